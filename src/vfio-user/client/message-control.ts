import { decideConfig } from "../../passthrough/config-policy.ts";
import {
  PCI_MSI_FLAGS,
  PCI_MSI_FLAGS_ENABLE,
  PCI_MSI_FLAGS_QMASK,
  PCI_MSI_FLAGS_QSIZE,
  PCI_MSIX_FLAGS,
  PCI_MSIX_FLAGS_ENABLE,
  PCI_MSIX_FLAGS_MASKALL,
} from "../../pci/ids.ts";

/** A kind of interrupt that is a message. */
export type MessageKind = "msi" | "msix";

const QMASK_SHIFT = 1;
const QSIZE_SHIFT = 4;

/**
 * The control words of MSI and MSI-X in a server's configuration space. vfio-pci sets them as it is given eventfds. A
 * vfio-user server has no such helper. Devices of libvfio-user and of QEMU look at the enable bit before they
 * interrupt, so the client writes it.
 */
export class MessageControls {
  readonly #words: ReadonlyMap<MessageKind, { readonly offset: number; readonly flags: number }>;
  readonly #write: (offset: number, value: number) => void;
  /** How many vectors each kind was switched on for; absent while it is off. */
  readonly #vectors: Map<MessageKind, number> = new Map();

  /**
   * @param image Configuration space as the server has it after a reset.
   * @param write Writes 2 bytes of it.
   */
  constructor(image: Uint8Array, write: (offset: number, value: number) => void) {
    const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
    const words = new Map<MessageKind, { offset: number; flags: number }>();
    for (const { treatment, offset, sizeBytes } of decideConfig(image).standard) {
      if ((treatment !== "msi" && treatment !== "msix") || sizeBytes < 4) continue;
      const at = offset + (treatment === "msi" ? PCI_MSI_FLAGS : PCI_MSIX_FLAGS);
      words.set(treatment, { offset: at, flags: view.getUint16(at, true) });
    }
    this.#words = words;
    this.#write = write;
  }

  /**
   * The eventfds of `vectors` vectors are there, counted from the first; of MSI with the power of two that holds them.
   */
  enable(kind: MessageKind, vectors: number): void {
    const word = this.#words.get(kind);
    if (word === undefined || vectors <= (this.#vectors.get(kind) ?? 0)) return;
    const isOn = this.#vectors.has(kind);
    this.#vectors.set(kind, vectors);
    if (kind === "msix") {
      if (!isOn) this.#write(word.offset, (word.flags & ~PCI_MSIX_FLAGS_MASKALL) | PCI_MSIX_FLAGS_ENABLE);
      return;
    }
    const most = (word.flags & PCI_MSI_FLAGS_QMASK) >>> QMASK_SHIFT;
    const size = Math.min(most, Math.ceil(Math.log2(vectors))) << QSIZE_SHIFT;
    this.#write(word.offset, (word.flags & ~PCI_MSI_FLAGS_QSIZE) | size | PCI_MSI_FLAGS_ENABLE);
  }

  disable(kind: MessageKind): void {
    const word = this.#words.get(kind);
    if (word === undefined || !this.#vectors.delete(kind)) return;
    this.#write(word.offset, word.flags & ~(kind === "msi" ? PCI_MSI_FLAGS_ENABLE : PCI_MSIX_FLAGS_ENABLE));
  }
}
