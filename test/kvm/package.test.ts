import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import t from "tap";
import { at } from "../../guests/assembler-encoding.ts";
import { multibootImage } from "../../guests/multiboot-image.ts";
import { projectRoot } from "../../tools/cache.ts";
import { installPackage } from "../support/installed-package.ts";
import { missingKvm } from "../support/kvm-guest.ts";

/*
 * The package as others install it: packed, unpacked in a project that has nothing else, with the dependencies it
 * declares.
 */

const root = projectRoot();
const project = mkdtempSync(join(tmpdir(), "tsvmm-package-"));
t.teardown(() => rmSync(project, { recursive: true, force: true }));
const { installed, bin } = installPackage(project, "linked");

/** Runs a Node program in the project. */
const node = (...words: readonly string[]): unknown => {
  const { status, stdout, stderr } = spawnSync(process.execPath, words, { cwd: project, encoding: "utf8" });
  return { status, stdout, stderr };
};

t.test("both programs of the package start", async (t) => {
  for (const [name, path] of Object.entries(bin)) {
    const link = join(project, name);
    symlinkSync(join(installed, path), link); // as npm does
    t.match(node(link, "--help"), { status: 0, stdout: new RegExp(name), stderr: "" }, name);
  }
});

t.test("every source map of the package leads to a file in it", async (t) => {
  const maps = readdirSync(installed, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".map"));
  t.ok(maps.length > 0);
  const missing = maps.filter((name) => {
    const path = join(installed, name);
    // Cast: tsc wrote it.
    const { sources } = JSON.parse(readFileSync(path, "utf8")) as { readonly sources: readonly string[] };
    return !sources.every((source) => existsSync(join(dirname(path), source)));
  });
  t.same(missing, []);
});

const SETTINGS = ["--target", "es2022", "--module", "nodenext", "--strict", "--skipLibCheck", "false"];
/** What the README tells: `await using` is compiled for versions of Node that do not know it. */
const WITH_USING = ["--lib", "es2022,esnext.disposable"];
const TYPES = ["--types", "node", "--typeRoots", join(root, "node_modules", "@types")];

/** Compiles programs of the project. @returns As {@link node} does. */
function compile(programs: Readonly<Record<string, string>>, ...settings: readonly string[]): unknown {
  writeFileSync(join(project, "package.json"), JSON.stringify({ type: "module" }));
  for (const [name, text] of Object.entries(programs)) writeFileSync(join(project, name), text);
  const compiler = join(root, "node_modules", "typescript", "bin", "tsc");
  return node(compiler, ...SETTINGS, ...TYPES, ...settings, ...Object.keys(programs));
}

const PROGRAM = `
import { Machine, type MachineExit, SpecError } from "tsvmm";
import { DeviceServer, EduDevice } from "tsvmm/vfio-user";

const kernel: string = process.argv[2] ?? "";
await Machine.start({ kernel: "/nowhere" }).catch((error: unknown) => {
  console.log(error instanceof SpecError ? error.message : error);
});
const socket = "edu.sock";
const server = DeviceServer.listen({ socket, device: (host) => new EduDevice(host) });
await using machine = await Machine.start({ kernel, userDevices: [{ socket }], debugExitPort: 0xf4 });
await machine.serial.waitFor(/all well/, { timeoutMs: 30_000 });
const exit: MachineExit = await machine.exited;
console.log(exit.status, exit.reason, (await machine.statistics()).functions.length);
await server.close();
`;

const THROWING_PROGRAM = `
import { existsSync } from "node:fs";
import { Machine, type MachineExit } from "tsvmm";
import { DeviceServer, EduDevice } from "tsvmm/vfio-user";

const socket = "throwing.sock";
const exits: Promise<MachineExit>[] = [];

async function run(kernel: string): Promise<void> {
  await using server = DeviceServer.listen({ socket, device: (host) => new EduDevice(host) });
  await using machine = await Machine.start({ kernel, userDevices: [{ socket }] });
  exits.push(machine.exited);
  throw new Error(server.isInUse ? "thrown on purpose" : "the device is not used");
}

await run(process.argv[2] ?? "").catch((error: Error) => console.log(error.message));
const [exit] = await Promise.all(exits);
console.log(exit?.reason, existsSync(socket));
`;

t.test(
  "a strict TypeScript project compiles against its types and boots a guest with it",
  { skip: missingKvm() },
  async (t) => {
    const kernel = join(project, "guest.elf");
    const image = multibootImage((a) => {
      a.mov("esi", at("text")).mov("ecx", 9).mov("edx", 0x3f8).cld().rep().outs(8);
      a.mov("al", 3).out(0xf4, "al").hlt().label("text").ascii("all well\n");
    });
    writeFileSync(kernel, image.bytes);
    const compiled = compile({ "program.ts": PROGRAM, "throwing.ts": THROWING_PROGRAM }, ...WITH_USING);
    t.same(compiled, { status: 0, stdout: "", stderr: "" });
    t.same(node("program.js", kernel), {
      status: 0,
      stdout: "kernel: there is no file /nowhere\n7 debugExit 1\n",
      stderr: "",
    });
  },
);

t.test(
  "`await using` ends Machine and DeviceServer when the block throws, and the process ends then",
  { skip: missingKvm() },
  async (t) => {
    const kernel = join(project, "halting.elf");
    const image = multibootImage((a) => {
      a.cli().label("forever").hlt().jmp("forever");
    });
    writeFileSync(kernel, image.bytes);
    // The test before has compiled it.
    t.same(node("throwing.js", kernel), { status: 0, stdout: "thrown on purpose\nstopped false\n", stderr: "" });
  },
);

const OLD_LIBRARY_PROGRAM = `
import { Machine } from "tsvmm";
import { DeviceServer, EduDevice } from "tsvmm/vfio-user";

export const start = (kernel: string): Promise<Machine> => Machine.start({ kernel });
export const serve = (socket: string): DeviceServer =>
  DeviceServer.listen({ socket, device: (host) => new EduDevice(host) });
`;

t.test("its types compile in a project whose library knows no Disposable", async (t) => {
  const compiled = compile({ "old-library.ts": OLD_LIBRARY_PROGRAM }, "--lib", "es2022", "--noEmit");
  t.same(compiled, { status: 0, stdout: "", stderr: "" });
});
