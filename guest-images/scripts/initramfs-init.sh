#!/bin/sh
# First program of a guest: loads the drivers of what the machine has, mounts the root file system, and goes over to it.
# Kernel line: root=, rootfstype=, rootflags=, ro, init=; without root= it gives a shell here, in memory.

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null

root= rootfstype= rootflags= mode=rw init=/sbin/init
for word in $(cat /proc/cmdline); do
  case $word in
    root=*) root=${word#root=} ;;
    rootfstype=*) rootfstype=${word#rootfstype=} ;;
    rootflags=*) rootflags=,${word#rootflags=} ;;
    init=*) init=${word#init=} ;;
    ro) mode=ro ;;
    rw) mode=rw ;;
  esac
done

# Each device names itself in a file "modalias"; the tables of modprobe know the driver. Loading one can bring new
# devices up (a virtio function brings its virtio device), so there is a second round.
load_drivers() {
  modprobe -a -q $(find /sys/devices -name modalias -exec cat {} + | sort -u) 2>/dev/null
}
load_drivers
load_drivers
# What no device names: a card or stick that is seen only after a while, and file systems.
modprobe -a -q mmc_block sd_mod crc32c_generic ext4 vfat nls_cp437 nls_ascii nls_utf8 2>/dev/null

if [ -z "$root" ]; then
  echo "No root= on the kernel line: a shell in the initramfs"
  hostname guest
  while :; do setsid cttyhack sh -l; done
fi

device_of() {
  case $1 in
    UUID=*|LABEL=*|PARTUUID=*) findfs "$1" 2>/dev/null ;;
    *) echo "$1" ;;
  esac
}
tries=0
until device=$(device_of "$root"); [ -b "$device" ]; do
  tries=$((tries + 1))
  if [ $tries -gt 300 ]; then
    echo "Cannot find the root device $root; block devices here: $(ls /sys/class/block | tr '\n' ' ')"
    exec setsid cttyhack sh -l
  fi
  usleep 100000
done
mount -o "$mode$rootflags" ${rootfstype:+-t "$rootfstype"} "$device" /newroot || exec setsid cttyhack sh -l
for directory in proc sys dev; do mount --move /$directory /newroot/$directory; done
exec switch_root /newroot "$init"
