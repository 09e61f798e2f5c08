#!/bin/sh
# Runs in the nested host as its first program: loads KVM and VFIO, gives the devices to vfio-pci, runs the scenarios
# that lie in /lab one after another, reports through the virtio port, and switches the machine off.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t tmpfs tmpfs /run
mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
# Guest RAM in huge pages: pinning half a gigabyte for DMA page by page takes 8 s under emulation.
echo always > /sys/kernel/mm/transparent_hugepage/shmem_enabled
echo always > /sys/kernel/mm/transparent_hugepage/enabled
hostname lab
ip link set lo up 2>/dev/null

for name in /sys/class/virtio-ports/*/name; do
  [ "$(cat "$name")" = lab ] && port=/dev/$(basename "$(dirname "$name")")
done
exec 3>"$port"
token=$(cat /lab/token)
# A line that begins with the byte 0x1e and the run's token is for the lab; everything else is what a scenario printed.
say() { printf '\036%s %s\n' "$token" "$*" >&3; }

# LAB_MODULES (the kernel's modules in the outer machine's cache), LAB_DEVICES, LAB_DRIVERS, LAB_LOST_STATUSES, and the outer PATH and HOME.
. /lab/environment
mkdir -p /lib/modules
[ -e "/lib/modules/$(uname -r)" ] || ln -s "$LAB_MODULES" "/lib/modules/$(uname -r)"
if grep -qw svm /proc/cpuinfo; then modprobe kvm_amd; else modprobe kvm_intel; fi
modprobe -a vfio-pci vfio_iommu_type1 tun
[ -c /dev/kvm ] || say problem "the nested host has no /dev/kvm"

if [ "$LAB_DRIVERS" = vfio ]; then
  for device in $LAB_DEVICES; do
    sh /lab/vfio-bind.sh "$device" || say problem "cannot give $device to vfio-pci"
  done
fi
say ready "$(uname -r)"

cgroup=/sys/fs/cgroup/scenario
for scenario in /lab/scenarios/*; do
  [ -d "$scenario" ] || continue
  name=$(basename "$scenario")
  seconds=$(cat "$scenario/seconds")
  say begin "$name"
  mkdir $cgroup
  # The pipe gives the scenario a standard output it can open again. It ends when the last process that holds it does, so
  # whatever a scenario leaves behind is killed first: it is all in one control group.
  {
    sh -c "echo \$\$ > $cgroup/cgroup.procs; cd \"\$LAB_DIRECTORY\"; exec timeout -k 10 $seconds bash $scenario/script"
    echo $? > /run/status
    echo 1 > $cgroup/cgroup.kill
  } 2>&1 < /dev/null | cat >&3
  until rmdir $cgroup 2>/dev/null; do sleep 0.1; done
  say end "$name" "$(cat /run/status)"
  # Out of time, or lost by its own account: this machine may be what is sick, so the others get a fresh one.
  case " $LAB_LOST_STATUSES " in *" $(cat /run/status) "*) break ;; esac
done

sync
say done
# Not exit: the kernel would panic at the end of its first program before the machine is off.
echo o > /proc/sysrq-trigger
while :; do sleep 60; done
