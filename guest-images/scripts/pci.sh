#!/bin/sh
# pci: the machine's PCI functions, one a line: address, vendor, device, driver.
for device in /sys/bus/pci/devices/*; do
  driver=
  [ -e "$device/driver" ] && driver=$(basename "$(readlink "$device/driver")")
  echo "${device##*/} $(cat "$device/vendor") $(cat "$device/device") $driver"
done
