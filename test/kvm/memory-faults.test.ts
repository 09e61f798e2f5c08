import t from "tap";
import { Assembler } from "../../guests/assembler.ts";
import { mem32 } from "../../guests/assembler-encoding.ts";
import { fd, gpa, hva } from "../../src/base/units.ts";
import { libc } from "../../src/host/libc.ts";
import { HostMapping } from "../../src/host/memory/mapping.ts";
import { decodeExit, type VcpuExit } from "../../src/kvm/exit.ts";
import { CODE, KvmGuest, missingKvm, stopWatchdog } from "../support/kvm-guest.ts";

const skip = missingKvm();
t.teardown(stopWatchdog);

const ADDRESS = 0xd000_0000;
const BYTES = 0x1000;

/** Memory that was there when it was mapped and is not any more, as a device's BAR is after it was pulled. */
const DEAD_MEMORY: Readonly<Record<string, () => HostMapping>> = {
  "a file that was cut short": () => {
    const file = fd(libc.memfdCreate("bar", 1));
    libc.ftruncate(file, BYTES);
    const mapping = HostMapping.ofFile("pretended BAR", file, 0, BYTES);
    libc.ftruncate(file, 0);
    libc.close(file);
    return mapping;
  },
  "pages without permissions": () => HostMapping.anonymous("pretended BAR", BYTES, { protection: 0 }),
};

for (const [what, make] of Object.entries(DEAD_MEMORY)) {
  t.test(`A guest that reads a memory slot over ${what} gets all ones and goes on`, { skip }, (t) => {
    const code = new Assembler(CODE).mov("eax", mem32(ADDRESS)).out(0x80, "eax");
    code.mov(mem32(ADDRESS), 1).mov("eax", 0x77).out(0x81, "eax").hlt();
    const guest = new KvmGuest(code);
    const memory = make();
    const slot = guest.slots.mapSlot("bar", gpa(ADDRESS), hva(memory.address), BYTES, false);
    t.teardown(() => {
      guest.close();
      memory.unmap();
    });
    // KVM says EFAULT at the access; one that emulates the instruction (a software KVM does) exits for it as for an
    // unclaimed access.
    const vcpu = guest.vcpu();
    let faults = 0;
    const next = (): VcpuExit => {
      for (;;) {
        const outcome = vcpu.run();
        if (outcome === "exit") return decodeExit(vcpu);
        if (outcome !== "fault") continue;
        faults++;
        slot.unmap(); // what the device thread does before it answers
      }
    };
    t.same(next(), { kind: "mmioRead", address: ADDRESS, length: 4 });
    vcpu.setMmioData(0xffff_ffff, 0xffff_ffff);
    t.same(next(), { kind: "portWrite", port: 0x80, width: 4, values: [0xffff_ffff] });
    t.same(next(), { kind: "mmioWrite", address: ADDRESS, length: 4, low: 1, high: 0 });
    t.same(next(), { kind: "portWrite", port: 0x81, width: 4, values: [0x77] }, "the guest is well");
    t.ok(faults <= 1, "one fault at most: after it the access exits");
    t.end();
  });
}
