import t from "tap";
import { DebugExitPort, PostCodePort } from "../../../src/platform/debug-port.ts";

t.test("DebugExitPort hands on values of every width", async (t) => {
  const values: number[] = [];
  const port = new DebugExitPort((value) => values.push(value));
  port.write(0, 1, 0x10);
  port.write(0, 2, 0xabcd);
  port.write(0, 4, 0xffff_fffe);
  t.same(values, [0x10, 0xabcd, 0xffff_fffe]);
  t.equal(port.read(0, 2), 0xffff);
});

t.test("PostCodePort keeps and announces the last code, with a listener or without", async (t) => {
  const codes: number[] = [];
  const port = new PostCodePort((code) => codes.push(code));
  port.write(0, 1, 0x41);
  t.same(codes, [0x41]);
  t.equal(port.read(0, 1), 0x41);
  const silent = new PostCodePort();
  silent.write(0, 1, 0x42);
  t.equal(silent.read(0, 1), 0x42);
});
