import { EventEmitter } from "node:events";
import t from "tap";
import { StopRequests } from "../../../src/cli/stop-requests.ts";

/** A process that only remembers what is done to it. */
class FakeProcess extends EventEmitter {
  readonly pid = 42;
  readonly killed: [number, string][] = [];
  readonly exits: number[] = [];

  constructor() {
    super();
    this.on("exit", (status: number) => this.exits.push(status));
  }

  kill(pid: number, signal: string): void {
    this.killed.push([pid, signal]);
  }
}

/** A machine that stops when it is told to by the test, or never. */
class FakeMachine {
  readonly stops: string[] = [];

  async stop(text: string): Promise<void> {
    this.stops.push(text);
  }
}

t.test("StopRequests stops the machine at a signal and answers 128 and the signal's number", async (t) => {
  for (const [signal, status] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
    ["SIGHUP", 129],
  ] as const) {
    const process = new FakeProcess();
    const machine = new FakeMachine();
    const requests = new StopRequests(process, () => t.fail("nothing to report"));
    requests.attach(machine);
    t.equal(requests.status, undefined);
    process.emit(signal, signal);
    t.same(machine.stops, [signal]);
    t.equal(requests.status, status);
    requests.close();
    t.same(process.killed, []);
    t.equal(process.listenerCount(signal), 0);
  }
});

t.test("StopRequests keeps a signal that comes before there is a machine", async (t) => {
  const process = new FakeProcess();
  const machine = new FakeMachine();
  const requests = new StopRequests(process, () => t.fail("nothing to report"));
  process.emit("SIGTERM", "SIGTERM");
  t.same(machine.stops, []);
  requests.attach(machine);
  t.same(machine.stops, ["SIGTERM"]);
  requests.close();
});

t.test(
  "StopRequests.signal is aborted by a request that comes while the machine starts, not by a later one",
  async (t) => {
    const process = new FakeProcess();
    const early = new StopRequests(process, () => t.fail("nothing to report"));
    t.equal(early.signal.aborted, false);
    process.emit("SIGINT", "SIGINT");
    t.match(early.signal.reason, { message: "SIGINT" });
    t.equal(early.status, 130);
    early.close();
    const late = new StopRequests(process, () => t.fail("nothing to report"));
    late.attach(new FakeMachine());
    process.emit("SIGINT", "SIGINT");
    t.equal(late.signal.aborted, false);
    late.close();
  },
);

t.test("StopRequests ends the process by its signal when a second one comes, after the exit listeners", async (t) => {
  const process = new FakeProcess();
  let milliseconds = 1000;
  const requests = new StopRequests(
    process,
    () => t.fail("nothing to report"),
    () => milliseconds,
  );
  requests.attach(new FakeMachine());
  process.emit("SIGINT", "SIGINT");
  t.same(process.killed, []);
  milliseconds += 20;
  process.emit("SIGINT", "SIGINT");
  process.emit("SIGTERM", "SIGTERM");
  t.same(process.killed, [], "one request, which a wrapper has sent to the process and to its group");
  milliseconds += 400;
  process.emit("SIGINT", "SIGINT");
  t.same(process.exits, [130]);
  t.same(process.killed, [[42, "SIGINT"]]);
  t.equal(process.listenerCount("SIGINT"), 0, "so that the signal has its default action");
  requests.close();
});

t.test("StopRequests reports an uncaught error, stops the machine and answers 1", async (t) => {
  const process = new FakeProcess();
  const machine = new FakeMachine();
  const reported: Error[] = [];
  const requests = new StopRequests(process, (error) => reported.push(error));
  requests.attach(machine);
  const error = new Error("oops");
  process.emit("uncaughtException", error);
  t.same(reported, [error]);
  t.same(machine.stops, ["oops"]);
  t.equal(requests.status, 1);
  process.emit("uncaughtException", new Error("again"));
  t.equal(reported.length, 2, "later errors are told too");
  t.equal(machine.stops.length, 1);
  requests.close();
});
