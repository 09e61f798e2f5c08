import t from "tap";
import { decodeExit, describeExit, exitName } from "../../../src/kvm/exit.ts";
import { RunPage } from "../../../src/kvm/run-page.ts";

/** A run page of two pages and a view to play KVM with. */
function setUp(reason: number): { page: RunPage; kvm: DataView } {
  const memory = new ArrayBuffer(8192);
  const kvm = new DataView(memory);
  kvm.setUint32(8, reason, true); // exit_reason
  return { page: new RunPage(memory), kvm };
}

function portExit(direction: 0 | 1, size: number, port: number, count: number): { page: RunPage; kvm: DataView } {
  const made = setUp(2); // KVM_EXIT_IO
  made.kvm.setUint8(32, direction);
  made.kvm.setUint8(33, size);
  made.kvm.setUint16(34, port, true);
  made.kvm.setUint32(36, count, true);
  made.kvm.setBigUint64(40, 4096n, true);
  return made;
}

t.test("RunPage.ioData() reads each element of a string write", (t) => {
  const { page, kvm } = portExit(1, 2, 0x3f8, 3);
  for (const [index, value] of [0x1122, 0x3344, 0xffff].entries()) kvm.setUint16(4096 + 2 * index, value, true);
  t.same([page.ioIsWrite, page.ioPort, page.ioWidth, page.ioCount], [true, 0x3f8, 2, 3]);
  t.same(decodeExit(page), { kind: "portWrite", port: 0x3f8, width: 2, values: [0x1122, 0x3344, 0xffff] });
  t.equal(describeExit(page), "write of 0x1122, 0x3344, 0xffff (2 bytes each) to port 0x3f8");
  t.end();
});

t.test("RunPage.setIoData() stores each element of a string read in its width", (t) => {
  const { page, kvm } = portExit(0, 1, 0x60, 2);
  page.setIoData(0, 0x1aa);
  page.setIoData(1, 0xbb);
  t.equal(kvm.getUint32(4096, true), 0xbbaa);
  t.same(decodeExit(page), { kind: "portRead", port: 0x60, width: 1, count: 2 });
  const wide = portExit(0, 4, 0x60, 1);
  wide.page.setIoData(0, 0xdead_beef);
  t.equal(wide.kvm.getUint32(4096, true), 0xdead_beef);
  t.end();
});

t.test("RunPage.mmioDataLow and mmioDataHigh cut stale bytes off at every length", (t) => {
  const { page, kvm } = setUp(6); // KVM_EXIT_MMIO
  kvm.setBigUint64(32, 0x12_3456_7890n, true);
  kvm.setBigUint64(40, 0xf8f7_f6f5_f4f3_f2f1n, true);
  kvm.setUint8(52, 1);
  const seen = [1, 2, 3, 4, 5, 6, 7, 8].map((length) => {
    kvm.setUint32(48, length, true);
    return [page.mmioDataLow, page.mmioDataHigh];
  });
  t.same(seen, [
    [0xf1, 0],
    [0xf2f1, 0],
    [0xf3_f2f1, 0],
    [0xf4f3_f2f1, 0],
    [0xf4f3_f2f1, 0xf5],
    [0xf4f3_f2f1, 0xf6f5],
    [0xf4f3_f2f1, 0xf7_f6f5],
    [0xf4f3_f2f1, 0xf8f7_f6f5],
  ]);
  t.equal(page.mmioAddress, 0x12_3456_7890);
  t.end();
});

t.test("RunPage.setMmioData() stores both halves", (t) => {
  const { page, kvm } = setUp(6);
  kvm.setUint32(48, 8, true);
  page.setMmioData(0xffff_fffe, 0x8000_0001);
  t.equal(kvm.getBigUint64(40, true), 0x8000_0001_ffff_fffen);
  t.equal(decodeExit(page).kind, "mmioRead");
  t.end();
});

t.test("RunPage.immediateExit is byte 1", (t) => {
  const { page, kvm } = setUp(0);
  page.immediateExit = true;
  t.equal(kvm.getUint8(1), 1);
  page.immediateExit = false;
  t.equal(page.immediateExit, false);
  t.end();
});

t.test("describeExit() shows the instruction KVM could not emulate, where the kernel gives it", (t) => {
  const { page, kvm } = setUp(17); // KVM_EXIT_INTERNAL_ERROR
  kvm.setUint32(32, 1, true); // KVM_INTERNAL_ERROR_EMULATION
  kvm.setUint32(36, 4, true); // ndata
  kvm.setBigUint64(40, 1n, true); // flags: instruction bytes
  kvm.setUint8(48, 3);
  for (const [index, byte] of [0x0f, 0x01, 0xd0].entries()) kvm.setUint8(49 + index, byte);
  t.match(describeExit(page), /KVM_INTERNAL_ERROR_EMULATION, instruction 0f 01 d0\)$/);
  kvm.setUint32(36, 0, true);
  t.match(describeExit(page), /KVM_INTERNAL_ERROR_EMULATION, data none\)$/, "an older kernel");
  kvm.setUint32(32, 3, true);
  kvm.setUint32(36, 2, true);
  t.match(describeExit(page), /KVM_INTERNAL_ERROR_DELIVERY_EV, data 0x1 0x[0-9a-f]+\)$/);
  t.end();
});

t.test("describeExit() has words for every other exit", (t) => {
  t.equal(describeExit(setUp(5).page), "halt (KVM_EXIT_HLT)");
  t.equal(describeExit(setUp(8).page), "triple fault (KVM_EXIT_SHUTDOWN)");
  const event = setUp(24);
  event.kvm.setUint32(32, 2, true);
  t.equal(describeExit(event.page), "system event KVM_SYSTEM_EVENT_RESET");
  const entry = setUp(9);
  entry.kvm.setBigUint64(32, 0x8000_0021n, true);
  t.match(describeExit(entry.page), /hardware reason 0x80000021/);
  t.equal(describeExit(setUp(29).page), "exit KVM_EXIT_X86_RDMSR");
  t.equal(exitName(999), "KVM_EXIT_999");
  t.end();
});
