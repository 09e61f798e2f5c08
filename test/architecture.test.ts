import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import t from "tap";

/** The project's root: the first folder upwards that has a package.json. */
function findRoot(start: string): string {
  return existsSync(join(start, "package.json")) ? start : findRoot(dirname(start));
}

const root = findRoot(dirname(fileURLToPath(import.meta.url)));

function filesBelow(folder: string, suffix: string): string[] {
  const path = join(root, folder);
  if (!existsSync(path)) return [];
  return readdirSync(path, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(suffix))
    .map((name) => join(folder, name));
}

const sources = filesBelow("src", ".ts");
const text = (file: string): string => readFileSync(join(root, file), "utf8");

/** Specifiers of `import … from "x"`, `export … from "x"`, `import("x")` and `new URL("x.js", import.meta.url)`. */
function imports(file: string): string[] {
  const code = text(file).replace(/\/\*[\s\S]*?\*\//g, "");
  const found = [...code.matchAll(/(?:from|import|import\()\s*"([^"]+)"/g)].map((match) => match[1] ?? "");
  return found;
}

/** Folder of a source file under src; files directly in src count as `main`. */
function room(file: string): string {
  const parts = relative("src", file).split("/");
  return parts.length === 1 ? "main" : (parts[0] ?? "");
}

/** Where a relative import leads, as a path below the root. */
const target = (file: string, specifier: string): string => relative(root, resolve(root, dirname(file), specifier));

/** The arrows of ARCHITECTURE.md. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  base: [],
  pci: ["base"],
  platform: ["base"],
  boot: ["base"],
  virtio: ["base", "pci"],
  host: ["base"],
  kvm: ["base", "host"],
  vfio: ["base", "host", "pci"],
  "vfio-user": ["base", "host", "pci", "vfio"],
  vmm: ["base", "pci", "virtio", "platform", "boot", "host", "kvm", "vfio"],
  cli: ["base", "vmm", "host", "vfio"],
  main: ["base", "vmm", "host", "cli", "vfio"],
};

/** Folders without system calls: nothing of Node's that reaches outside the process. */
const PURE = ["base", "pci", "platform", "boot", "virtio"];

/** What the vCPU thread may reach of its siblings: never a device. */
const VCPU_WORKER_REACHES = ["mailbox", "messages", "vcpu-control", "plain-error", "memory-map", "plan", "spec"];

const LINE_BUDGET = 400;

t.test("imports in src follow the arrows of the architecture", async (t) => {
  t.ok(sources.length > 50, `${sources.length} source files are looked at`);
  const wrong: string[] = [];
  for (const file of sources) {
    const from = room(file);
    for (const specifier of imports(file).filter((specifier) => specifier.startsWith("."))) {
      const to = room(target(file, specifier));
      if (to !== from && !(MAY_IMPORT[from] ?? []).includes(to)) wrong.push(`${file} imports ${specifier}`);
    }
  }
  t.same(wrong, []);
});

t.test("folders without system calls import nothing of Node or of packages", async (t) => {
  const wrong = sources
    .filter((file) => PURE.includes(room(file)))
    .flatMap((file) =>
      imports(file)
        .filter((specifier) => !specifier.startsWith("."))
        .map((specifier) => `${file}: ${specifier}`),
    );
  t.same(wrong, []);
});

t.test("koffi is imported by host/libc.ts alone", async (t) => {
  t.same(
    sources.filter((file) => imports(file).includes("koffi")),
    ["src/host/libc.ts"],
  );
});

t.test("the vCPU worker reaches no device", async (t) => {
  const reached = new Set<string>();
  const visit = (file: string): void => {
    if (reached.has(file)) return;
    reached.add(file);
    for (const specifier of imports(file).filter((specifier) => specifier.startsWith(".")))
      visit(target(file, specifier));
  };
  visit("src/vmm/vcpu-worker.ts");
  // Types are erased, but a type import of a device would be the first step: type-only imports count too.
  const wrong = [...reached].filter((file) => {
    const name = file.replace(/^.*\//, "").replace(/\.ts$/, "");
    if (room(file) === "vmm") return name !== "vcpu-worker" && !VCPU_WORKER_REACHES.includes(name);
    return !["base", "host", "kvm"].includes(room(file));
  });
  t.same(wrong, []);
});

t.test("no two source files import each other, directly or around a corner", async (t) => {
  const cycles: string[] = [];
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): void => {
    if (path.includes(file)) {
      cycles.push([...path.slice(path.indexOf(file)), file].join(" → "));
      return;
    }
    if (done.has(file)) return;
    for (const specifier of imports(file).filter((specifier) => specifier.startsWith("."))) {
      visit(target(file, specifier), [...path, file]);
    }
    done.add(file);
  };
  for (const file of sources) visit(file, []);
  t.same(cycles, []);
});

t.test(`no source or test file has more than ${LINE_BUDGET} lines`, async (t) => {
  const files = ["src", "test", "lab", "guest-images", "bench", "examples"].flatMap((folder) =>
    filesBelow(folder, ".ts"),
  );
  const long = files
    .map((file) => ({ file, lines: text(file).split("\n").length - 1 }))
    .filter(({ lines }) => lines > LINE_BUDGET);
  t.same(long, []);
});

t.test("every folder of src, and each tool folder, tells what is in it in at most 40 lines", async (t) => {
  const folders = [
    ...new Set(
      sources
        .map(room)
        .filter((name) => name !== "main")
        .map((name) => join("src", name)),
    ),
    "guest-images",
    "lab",
    "test",
    "examples",
  ];
  for (const folder of folders) {
    const readme = join(folder, "README.md");
    t.ok(existsSync(join(root, readme)), `${readme} exists`);
    if (existsSync(join(root, readme))) t.ok(text(readme).split("\n").length <= 41, `${readme} is short`);
  }
});

/** Top-level definitions and class members of a source file, well enough to notice that one is gone. */
function definesSymbol(file: string, symbol: string): boolean {
  const name = symbol.split(".").pop() ?? symbol;
  return new RegExp(`(^|[^A-Za-z0-9_$#])#?${name.replace(/[^A-Za-z0-9_]/g, "")}\\b`).test(text(file));
}

t.test("links in the docs lead to files and symbols that exist", async (t) => {
  const documents = [
    ...filesBelow("docs", ".md"),
    ...["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].filter((name) => existsSync(join(root, name))),
  ];
  t.ok(documents.length >= 8, `${documents.length} documents are looked at`);
  const broken: string[] = [];
  for (const document of documents) {
    for (const match of text(document).matchAll(/\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)/g)) {
      const [, path = "", symbol] = match;
      const file = path === "" ? document : relative(root, resolve(root, dirname(document), path));
      if (!existsSync(join(root, file))) broken.push(`${document}: ${path} does not exist`);
      else if (
        symbol !== undefined &&
        file.endsWith(".ts") &&
        statSync(join(root, file)).isFile() &&
        !definesSymbol(file, symbol)
      ) {
        broken.push(`${document}: ${path}#${symbol} is gone`);
      }
    }
  }
  t.same(broken, []);
});
