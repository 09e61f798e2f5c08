#!/bin/sh
# First program of the nested host: makes the outer machine's own files its root, with a layer in memory above them for
# what is written, and goes over to the agent.

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
modprobe -a virtio_pci 9pnet_virtio 9p overlay virtio_console

mkdir /lower /upper
options=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o "$options,cache=loose,ro" host /lower || exec sh
mount -t tmpfs -o size=80% tmpfs /upper
mkdir /upper/data /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /newroot || exec sh

mkdir -p /newroot/lab
mount -t 9p -o "$options,cache=none" lab /newroot/lab || exec sh
for directory in proc sys dev; do
  mkdir -p /newroot/$directory
  mount --move /$directory /newroot/$directory
done
exec switch_root /newroot /bin/sh /lab/agent.sh
