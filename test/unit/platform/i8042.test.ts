import t from "tap";
import { I8042 } from "../../../src/platform/i8042.ts";

const DATA = 0;
const CONTROL_B = 1;
const COMMAND = 4;
const OUTPUT_FULL = 0x01;
const INPUT_FULL = 0x02;

function build() {
  const state = { resets: 0 };
  return { state, controller: new I8042(() => state.resets++) };
}

t.test("I8042 resets when 0xfe is written to port 0x64", async (t) => {
  const { controller, state } = build();
  controller.write(COMMAND, 1, 0xff); // pulses nothing
  t.equal(state.resets, 0);
  controller.write(COMMAND, 1, 0xfe);
  t.equal(state.resets, 1);
});

t.test("I8042 resets when the output port's reset line is written low", async (t) => {
  const { controller, state } = build();
  controller.write(COMMAND, 1, 0xd1);
  controller.write(DATA, 1, 0xdf); // A20 on, reset high
  t.equal(state.resets, 0);
  controller.write(COMMAND, 1, 0xd1);
  controller.write(DATA, 1, 0xfe);
  t.equal(state.resets, 1);
});

t.test("I8042 is never busy, so that Linux's wait before a reset ends at once", async (t) => {
  const { controller } = build();
  for (const command of [0x20, 0x60, 0xaa, 0xad, 0xd4, 0xff]) {
    controller.write(COMMAND, 1, command);
    t.equal(controller.read(COMMAND, 1) & INPUT_FULL, 0);
  }
});

t.test("I8042 answers a probe at once and shows no device", async (t) => {
  const { controller } = build();
  const ask = (command: number): number | undefined => {
    controller.write(COMMAND, 1, command);
    if ((controller.read(COMMAND, 1) & OUTPUT_FULL) === 0) return undefined;
    const answer = controller.read(DATA, 1);
    t.equal(controller.read(COMMAND, 1) & OUTPUT_FULL, 0, "one byte");
    return answer;
  };
  t.equal(controller.read(COMMAND, 1) & OUTPUT_FULL, 0, "nothing to flush");
  t.equal(ask(0xaa), 0x55, "self test");
  t.equal(ask(0xa9), 0x01, "no auxiliary port");
  t.equal(ask(0xab), 0x01, "no keyboard");
  t.equal(ask(0xd0), 0x03, "output port: reset high, A20 on");
  t.equal(ask(0xad), undefined);
  controller.write(COMMAND, 1, 0x60);
  controller.write(DATA, 1, 0x74);
  t.equal(ask(0x20), 0x74, "command byte");
  controller.write(DATA, 1, 0xf2); // identify, to a keyboard that is not there
  t.equal(controller.read(DATA, 1), 0xfe);
});

t.test("I8042 loops an auxiliary byte back unmarked", async (t) => {
  const { controller } = build();
  controller.write(COMMAND, 1, 0xd3);
  controller.write(DATA, 1, 0x5a);
  t.equal(controller.read(COMMAND, 1) & 0x21, OUTPUT_FULL, "full, and not from the auxiliary port");
  t.equal(controller.read(DATA, 1), 0x5a);
});

t.test("I8042 toggles the refresh bit of port 0x61 at every read", async (t) => {
  const { controller } = build();
  controller.write(CONTROL_B, 1, 0xff);
  const first = controller.read(CONTROL_B, 1);
  const second = controller.read(CONTROL_B, 1);
  t.equal(first ^ second, 0x10);
  t.equal(first & 0x2f, 0x2f, "the writable bits and timer 2's output");
});
