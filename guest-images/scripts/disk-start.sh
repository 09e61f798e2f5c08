#!/bin/sh
# Runs once when the disk's system starts, before the shell.
for directory in proc sys dev; do mkdir -p /$directory; done
grep -q " /proc " /proc/mounts 2>/dev/null || mount -t proc proc /proc
grep -q " /sys " /proc/mounts 2>/dev/null || mount -t sysfs sys /sys
grep -q " /dev " /proc/mounts 2>/dev/null || mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
hostname -F /etc/hostname
ip link set lo up
echo "The guest is up: $(uname -sr), $(grep -c ^processor /proc/cpuinfo) CPUs, $(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo) MiB"
