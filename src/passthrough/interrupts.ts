import type { Report } from "../base/backends.ts";
import { HostError } from "../base/errors.ts";
import type { MsiRoute } from "../base/signals.ts";
import { type Fd, fd, type Gsi } from "../base/units.ts";
import { PCI_MSI_FLAGS_QSIZE, PCI_MSIX_FLAGS_ENABLE, PCI_MSIX_FLAGS_MASKALL } from "../pci/ids.ts";
import type { VectorHost } from "../pci/vectors.ts";
import { type DeviceBackend, VFIO_PCI_CONFIG_REGION_INDEX } from "./backend.ts";
import { HostVectors } from "./host-vectors.ts";
import { IntxConnection, type IntxHost } from "./intx.ts";

type Kind = "intx" | "msi" | "msix";

const CONFIG = VFIO_PCI_CONFIG_REGION_INDEX;
const QSIZE_SHIFT = 4;

/**
 * Which of its three kinds of interrupt a function uses, on the host as in the guest: MSI-X if the guest enabled it,
 * else MSI, else INTx. The host has one kind on at a time, so the old one goes before the new one comes.
 *
 * What the host refuses is reported once a kind; the guest then waits for interrupts in vain, as with a broken device.
 */
export class FunctionInterrupts implements VectorHost {
  readonly #backend: DeviceBackend;
  readonly #host: IntxHost;
  readonly #report: Report;
  readonly #vectors: { readonly msi: HostVectors; readonly msix: HostVectors };
  /** The guest's routes by kind; `undefined` while it has the kind off. */
  readonly #wanted: {
    msi: readonly (MsiRoute | undefined)[] | undefined;
    msix: readonly (MsiRoute | undefined)[] | undefined;
  } = {
    msi: undefined,
    msix: undefined,
  };
  readonly #failed: Set<Kind> = new Set();
  #line: Gsi | undefined;
  #intx: IntxConnection | undefined;
  #isHeld = false;
  #repeatedCount = 0;

  constructor(backend: DeviceBackend, host: IntxHost, report: Report) {
    this.#backend = backend;
    this.#host = host;
    this.#report = report;
    this.#vectors = {
      msi: new HostVectors(backend, "msi", report),
      msix: new HostVectors(backend, "msix", report),
    };
  }

  /** The kind that is on at the host. */
  get active(): Kind | "none" {
    if (this.#intx !== undefined) return "intx";
    if (this.#vectors.msix.isOn) return "msix";
    return this.#vectors.msi.isOn ? "msi" : "none";
  }

  /** Vectors that can arrive now; 1 for INTx. */
  get armedCount(): number {
    return this.#intx !== undefined ? 1 : this.#vectors.msi.armedCount + this.#vectors.msix.armedCount;
  }

  /** Interrupts that {@link FunctionInterrupts} itself gave the guest, one a vector that was disarmed for a moment. */
  get repeatedCount(): number {
    return this.#repeatedCount;
  }

  /** Vectors that the host signals now. */
  get armedVectors(): readonly number[] {
    return this.#vectors.msix.isOn ? this.#vectors.msix.armedVectors : this.#vectors.msi.armedVectors;
  }

  /**
   * Says which pin of the interrupt controller INTx drives, and connects it if the guest uses neither MSI nor MSI-X.
   */
  wireIntx(line: Gsi): void {
    this.#line = line;
    this.#agree();
  }

  vectorsChanged(kind: "msi" | "msix", isEnabled: boolean, used: readonly (MsiRoute | undefined)[]): void {
    this.#wanted[kind] = isEnabled ? used : undefined;
    this.#agree();
  }

  /**
   * A chip that its driver has reset forgets that MSI or MSI-X is on, and the driver writes the control word again. The
   * host kernel hands the word of MSI on to the device. It drops that of MSI-X, whose bit reads as the device has it:
   * where it is lost, all vectors are armed anew.
   */
  controlRewritten(kind: "msi" | "msix", offset: number, control: number): void {
    const vectors = this.#vectors[kind];
    if (this.#isHeld || !vectors.isOn) return;
    if (kind === "msi") {
      const size = Math.floor(Math.log2(vectors.placeCount)) << QSIZE_SHIFT;
      this.#backend.writeRegion(CONFIG, offset, 2, (control & ~PCI_MSI_FLAGS_QSIZE) | size);
      return;
    }
    this.#backend.writeRegion(CONFIG, offset, 2, control & ~PCI_MSIX_FLAGS_MASKALL);
    const found = this.#backend.readRegion(CONFIG, offset, 2);
    if (found === undefined || found === 0xffff || (found & PCI_MSIX_FLAGS_ENABLE) !== 0) return;
    this.#try(kind, () => this.#arm(kind, "again"));
  }

  /** Everything off at the host; what the guest's registers say is not followed until {@link resume}. */
  hold(): void {
    this.#isHeld = true;
    this.#switchOff(undefined);
  }

  /** The host agrees with the guest again. */
  resume(): void {
    this.#isHeld = false;
    this.#agree();
  }

  #agree(): void {
    if (this.#isHeld) return;
    const kind = this.#wantedKind();
    this.#try(kind ?? "intx", () => {
      this.#switchOff(kind);
      if (kind === "intx") this.#openIntx();
      else if (kind !== undefined) this.#arm(kind);
    });
  }

  #try(kind: Kind, work: () => void): void {
    try {
      work();
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      if (!this.#failed.has(kind)) this.#report("error", error.message);
      this.#failed.add(kind);
    }
  }

  #wantedKind(): Kind | undefined {
    if (this.#wanted.msix !== undefined) return "msix";
    if (this.#wanted.msi !== undefined) return "msi";
    return this.#line !== undefined && this.#backend.interrupt("intx").count > 0 ? "intx" : undefined;
  }

  #switchOff(except: Kind | undefined): void {
    if (except !== "intx" && this.#intx !== undefined) {
      const intx = this.#intx;
      this.#intx = undefined;
      intx.close();
    }
    if (except !== "msi") this.#vectors.msi.disarm();
    if (except !== "msix") this.#vectors.msix.disarm();
  }

  #openIntx(): void {
    if (this.#intx === undefined && this.#line !== undefined) {
      this.#intx = IntxConnection.open(this.#backend, this.#host, this.#line);
    }
  }

  #arm(kind: "msi" | "msix", how?: "again"): void {
    const routes = this.#wanted[kind] ?? [];
    const eventFds = routes.map((route): Fd => route?.eventFd ?? fd(-1));
    // A spurious interrupt costs a driver nothing, a lost one can stop it for good.
    const vectors = this.#vectors[kind];
    const disarmed = how === "again" ? vectors.armAgain(eventFds) : vectors.arm(eventFds);
    for (const vector of disarmed) routes[vector]?.inject();
    this.#repeatedCount += disarmed.length;
  }
}
