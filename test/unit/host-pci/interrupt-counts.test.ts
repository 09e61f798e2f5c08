import t from "tap";
import { hostInterrupts } from "../../../src/host-pci/interrupt-counts.ts";

const TABLE = `           CPU0       CPU1
   1:          0          9   IO-APIC   1-edge      i8042
  16:        100          1   IO-APIC  16-fasteoi   ehci_hcd:usb1, vfio-intx(0000:03:00.0)
  24:       4711          0  IR-PCI-MSIX-0000:01:00.0    0-edge      vfio-msix[0](0000:01:00.0)
  25:          3         40  IR-PCI-MSI 524289-edge      vfio-msix[12](0000:01:00.0)
  26:          5          0  PCI-MSI 1048576-edge      vfio-msi[0](0000:02:00.0)
  27:          8          0  PCI-MSI 1048577-edge      nvme0q0
 NMI:          0          0   Non-maskable interrupts
 ERR:          0
`;

t.test("hostInterrupts() adds up a function's vectors over the host's CPUs", async (t) => {
  t.same(
    [...hostInterrupts(TABLE, "0000:01:00.0")],
    [
      ["msix[0]", 4711],
      ["msix[12]", 43],
    ],
  );
  t.same([...hostInterrupts(TABLE, "0000:02:00.0")], [["msi[0]", 5]]);
  t.same([...hostInterrupts(TABLE, "0000:03:00.0")], [["intx", 101]], "a shared line");
  t.same([...hostInterrupts(TABLE, "0000:00:00.0")], []);
});
