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
    writeFileSync(join(project, "package.json"), JSON.stringify({ type: "module" }));
    writeFileSync(join(project, "program.ts"), PROGRAM);
    // What the README tells: `await using` is compiled for versions of Node that do not know it.
    const settings = ["--target", "es2022", "--lib", "es2022,esnext.disposable", "--module", "nodenext", "--strict"];
    const types = ["--types", "node", "--typeRoots", join(root, "node_modules", "@types")];
    const compiled = node(join(root, "node_modules", "typescript", "bin", "tsc"), ...settings, ...types, "program.ts");
    t.same(compiled, { status: 0, stdout: "", stderr: "" });
    t.same(node("program.js", kernel), {
      status: 0,
      stdout: "kernel: there is no file /nowhere\n7 debugExit 1\n",
      stderr: "",
    });
  },
);
