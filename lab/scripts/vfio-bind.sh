#!/bin/sh
# vfio-bind.sh BDF [DRIVER]: gives one PCI function to vfio-pci, or to another driver. driver_override concerns this one
# function only, unlike new_id.
device=/sys/bus/pci/devices/$1
driver=${2:-vfio-pci}
[ -e "$device" ] || { echo "There is no PCI function $1" >&2; exit 1; }
[ -e "$device/driver" ] && echo "$1" > "$device/driver/unbind"
echo "$driver" > "$device/driver_override"
echo "$1" > /sys/bus/pci/drivers_probe
[ "$(basename "$(readlink "$device/driver")")" = "$driver" ]
