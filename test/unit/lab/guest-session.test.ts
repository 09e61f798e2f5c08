import t from "tap";
import { GuestSession } from "../../../lab/guest-session.ts";

/** A "VMM" whose guest is a shell: prompts and echoes as ours does, cursor questions included, and ends at poweroff. */
const GUEST = String.raw`bash -c '
  prompt() { printf "guest:/root# \033[6n"; }
  echo booting; prompt
  while IFS= read -r line; do
    printf "%s\r\n" "$line"
    [ "$line" = poweroff ] && { echo "Power down"; exit 0; }
    eval "$line" | sed "s/$/\r/"
    prompt
  done'`;

t.test("GuestSession.run() answers a command's status and output, without its echo", async (t) => {
  const session = new GuestSession(GUEST);
  await session.booted();
  t.match(await session.run("echo one; echo two"), { status: 0, output: "one\ntwo\n" });
  t.match(await session.run("(exit 3)"), { status: 3, output: "" });
  t.match(await session.run("printf unfinished; echo"), { status: 0, output: "unfinished\n" });
  t.equal(await session.powerOff(), 0);
  t.match(session.transcript, /Power down/);
});

t.test("GuestSession.waitFor() says what it waited for when the VMM ends, with what both have said", async (t) => {
  const session = new GuestSession("bash -c 'echo kernel panic; echo no such device >&2; exit 4'");
  await t.rejects(session.booted(), {
    message: /ended with status 4 before the shell prompt[\s\S]*no such device[\s\S]*kernel panic/,
  });
});

t.test("GuestSession.waitFor() gives up at its deadline", async (t) => {
  const session = new GuestSession("cat");
  await t.rejects(session.waitFor(/never/, "a word", 1), { message: /a word did not come/ });
  session.kill();
  await session.ended(10_000);
});

t.test("GuestSession reports a VMM that cannot be started", async (t) => {
  const session = new GuestSession("/nonexistent/vmm");
  await t.rejects(session.booted(), { message: /ended with status 127/ });
});

t.test("GuestSession.booted() gives up a guest that falls silent", async (t) => {
  const session = new GuestSession("bash -c 'echo half a li; exec sleep 60'");
  await session.waitFor(/half/, "its first word", 10_000);
  await t.rejects(session.booted(200), { message: /said nothing for 0\.2 s before the shell prompt[\s\S]*half a li/ });
  session.kill();
  await session.ended(10_000);
});

t.test("GuestSession.booted() gives up a guest whose kernel crashed", async (t) => {
  const session = new GuestSession("bash -c 'echo BUG: unable to handle page fault; exec sleep 60'");
  await t.rejects(session.booted(), { message: /kernel crashed before the shell prompt/ });
  session.kill();
  await session.ended(10_000);
});
