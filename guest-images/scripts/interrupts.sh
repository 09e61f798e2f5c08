#!/bin/sh
# interrupts ADDRESS: the lines of /proc/interrupts that belong to one PCI function.
cd "/sys/bus/pci/devices/$1" || exit 1
numbers=$(cat irq; ls msi_irqs 2>/dev/null)
grep -E "^ *($(echo $numbers | tr ' ' '|')):" /proc/interrupts
