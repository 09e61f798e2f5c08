import { ConfigSpace } from "../../src/pci/config-space.ts";
import type { BarRequest, PciFunction } from "../../src/pci/function.ts";
import { PCI_CFG_SPACE_SIZE } from "../../src/pci/ids.ts";
import type { AnyDeviceKind } from "../../src/vmm/device/kinds/device-kind.ts";

/** The function of `stamp-kind.ts`: BAR 0 has one register. Writes are ignored. */
class Stamp implements PciFunction {
  readonly name: string;
  readonly config: ConfigSpace;
  readonly barRequests: readonly BarRequest[] = [{ kind: "mem32", index: 0, sizeBytes: 4096, isPrefetchable: false }];
  readonly #value: number;

  constructor({ id, value }: StampSpec) {
    this.name = id;
    this.#value = value;
    this.config = new ConfigSpace(id, PCI_CFG_SPACE_SIZE);
    this.config.setIdentity({
      ...{ vendorId: 0x1234, deviceId: 0x57a3, revision: 1, classCode: 0x08_8000 },
      ...{ subsystemVendorId: 0, subsystemId: 0 },
    });
  }

  readBar(_index: number, offset: number): number {
    return offset === 0 ? this.#value : 0;
  }

  writeBar(): void {
    // The register is read-only.
  }

  barPlaced(): void {
    // It decodes by the bus alone.
  }

  reset(): void {
    // No state.
  }

  close(): void {
    // Holds nothing.
  }
}

interface StampSpec {
  readonly id: string;
  readonly value: number;
}

const kind: AnyDeviceKind = {
  part: "stamps",
  // Cast: the specification was completed by the description.
  make: (part, board) =>
    (part as readonly StampSpec[]).map((spec) => ({
      plug: (slot) =>
        board.root.plug(
          board.undo.own(new Stamp(spec), (stamp) => stamp.close()),
          slot,
        ),
    })),
};

export default kind;
