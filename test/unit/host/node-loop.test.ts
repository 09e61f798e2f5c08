import { spawn } from "node:child_process";
import { once } from "node:events";
import t from "tap";
import { EventFd } from "../../../src/host/eventfd.ts";
import { NodeLoop } from "../../../src/host/node-loop.ts";

t.test("NodeLoop calls a watch's callback between the turns of Node's own loop", async (t) => {
  const loop = new NodeLoop((error) => t.fail(String(error)));
  const event = EventFd.create();
  let rings = 0;
  await new Promise<void>((resolve) => {
    loop.epoll.watch(event.fd, "input", () => {
      rings += event.drain();
      if (rings === 3) resolve();
      else setImmediate(() => event.signal());
    });
    setImmediate(() => event.signal());
  });
  t.equal(rings, 3);
  loop.close();
  await loop.closed;
  event.close();
});

t.test("NodeLoop hands an exception of a callback on and goes on", async (t) => {
  const errors: unknown[] = [];
  const loop = new NodeLoop((error) => errors.push(error));
  const event = EventFd.create();
  await new Promise<void>((resolve) => {
    loop.epoll.watch(event.fd, "input", () => {
      event.drain();
      if (errors.length > 0) return resolve();
      setImmediate(() => event.signal());
      throw new Error("broken");
    });
    event.signal();
  });
  t.match(errors, [{ message: "broken" }]);
  loop.close();
  loop.close();
  await loop.closed;
  event.close();
});

for (const [how, status] of [
  ["process.exit(7)", 7],
  ["throw new Error('broken')", 1],
] as const) {
  t.test(`NodeLoop keeps no process from ending: ${how}`, async (t) => {
    const module = new URL("../../../src/host/node-loop.js", import.meta.url);
    const program =
      `import { NodeLoop } from "${module}"; new NodeLoop(() => undefined); setTimeout(() => { ` + `${how} }, 10);`;
    const child = spawn(process.execPath, ["--input-type=module", "--eval", program], { stdio: "ignore" });
    t.teardown(() => child.kill("SIGKILL"));
    t.same(await once(child, "exit"), [status, null]);
  });
}
