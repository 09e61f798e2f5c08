import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import t from "tap";
import { projectRoot } from "../tools/cache.ts";

const root = projectRoot();

/**
 * Which folder may import which: the arrows of ARCHITECTURE.md. A row speaks of the files directly in its folder. A
 * target ending in `/**` includes what is below it; a target with a file's ending is that file alone.
 */
const ROOMS: Readonly<Record<string, readonly string[]>> = {
  "src/base": ["src/base/error-codes"],
  "src/base/error-codes": [],
  "src/pci": ["src/base"],
  "src/platform": ["src/base"],
  "src/boot": ["src/base"],
  "src/virtio": ["src/base", "src/pci"],
  "src/host": ["src/base"],
  "src/host/memory": ["src/base", "src/host"],
  "src/host/disk": ["src/base", "src/host", "src/host/memory"],
  "src/host/char": ["src/base", "src/host"],
  "src/host/entropy": ["src/base", "src/host"],
  "src/kvm": ["src/base", "src/host", "src/host/memory"],
  "src/host-pci": ["src/base"],
  "src/passthrough": ["src/base", "src/pci"],
  "src/vfio": [
    "src/base",
    "src/pci",
    "src/host",
    "src/host/memory",
    "src/host-pci/attach-causes.ts",
    "src/passthrough/backend.ts",
  ],
  "src/vfio-user/protocol": ["src/base", "src/host"],
  "src/vfio-user/client": [
    "src/base",
    "src/pci",
    "src/host",
    "src/host/memory",
    "src/passthrough",
    "src/vfio",
    "src/vfio-user/protocol",
  ],
  "src/vfio-user/server": [
    "src/base",
    "src/pci",
    "src/host",
    "src/host/memory",
    "src/passthrough/backend.ts",
    "src/vfio",
    "src/vfio-user/protocol",
  ],
  "src/vfio-user/devices": ["src/base", "src/pci", "src/host", "src/host/disk", "src/vfio", "src/vfio-user/server"],
  "src/vfio-user": ["src/base", "src/pci", "src/vfio-user/server", "src/vfio-user/devices"],
  "src/vmm/spec/fields": ["src/base", "src/pci"],
  "src/vmm/spec/kinds": ["src/base", "src/vmm/spec/fields"],
  "src/vmm/spec": ["src/base", "src/vmm/spec/fields", "src/vmm/spec/kinds"],
  "src/vmm/shared": [
    "src/base",
    "src/host/disk/storage-ring.ts",
    "src/host/memory",
    "src/host-pci/functions.ts",
    "src/kvm",
    "src/pci/bar-placement.ts",
    "src/pci/function.ts",
    "src/pci/vectors.ts",
    "src/passthrough/config-policy.ts",
    "src/virtio/inspection.ts",
    "src/virtio/queue.ts",
    "src/vmm/spec",
  ],
  "src/vmm/vcpu": ["src/base", "src/host", "src/kvm", "src/vmm/shared"],
  "src/vmm/control": [
    "src/base",
    "src/boot",
    "src/host",
    "src/host/char/terminal.ts",
    "src/host/disk",
    "src/host/memory",
    "src/kvm",
    "src/host-pci",
    "src/pci/bar-placement.ts",
    "src/pci/function.ts",
    "src/vfio",
    "src/vmm/spec",
    "src/vmm/spec/kinds/list.ts",
    "src/vmm/shared",
  ],
  "src/vmm/device": [
    "src/base",
    "src/pci",
    "src/platform",
    "src/virtio",
    "src/host/**",
    "src/kvm",
    "src/passthrough",
    "src/vmm/spec",
    "src/vmm/shared",
    "src/vmm/device/kinds",
    "src/vmm/device/passed",
  ],
  "src/vmm/device/kinds": [
    "src/base",
    "src/pci",
    "src/platform",
    "src/virtio",
    "src/host",
    "src/host/memory",
    "src/kvm",
    "src/passthrough",
    "src/vfio",
    "src/vmm/shared",
    "src/vmm/device/passed",
  ],
  "src/vmm/device/passed": [
    "src/base",
    "src/pci",
    "src/platform",
    "src/host/memory",
    "src/host-pci/files.ts",
    "src/host-pci/interrupt-counts.ts",
    "src/passthrough",
    "src/vfio-user/client",
    "src/vmm/spec",
    "src/vmm/shared",
  ],
  "src/vmm": ["src/base", "src/host", "src/host/char", "src/vmm/spec", "src/vmm/shared", "src/vmm/control"],
  "src/cli/options": ["src/base", "src/vmm", "src/vmm/spec", "src/vmm/spec/fields", "src/vmm/spec/kinds"],
  "src/cli": [
    "src/base",
    "src/host",
    "src/host-pci",
    "src/passthrough",
    "src/vfio",
    "src/vmm",
    "src/vmm/spec",
    "src/vmm/spec/fields/spec-paths.ts",
    "src/vmm/shared",
    "src/vmm/control",
    "src/cli/options",
  ],
  src: ["src/base", "src/vmm", "src/vmm/spec", "src/vmm/shared", "src/cli"],
  guests: ["src/base"],
  tools: ["src/base", "src/cli", "src/host", "src/vmm/spec", "src/vmm/spec/fields", "src/vmm/spec/kinds"],
  examples: ["src"],
  "guest-images": ["src/base", "tools"],
  lab: ["src/base", "tools", "guest-images"],
  "lab/demo": ["src/base", "src/vmm", "src/vmm/shared", "tools", "guest-images", "lab"],
  "bench/measure": ["src/base", "src/host", "src/kvm", "src/vmm/shared", "guests", "tools"],
  "bench/rows": ["src", "src/host", "guests", "tools", "bench/measure"],
  bench: ["src", "src/host-pci", "lab", "tools", "bench/measure", "bench/rows"],
  test: ["src/host/constants.ts", "src/host/libc.ts", "src/kvm/abi.ts", "src/kvm/abi-structs.ts", "tools"],
  "test/support": ["src/**", "guests", "tools"],
  "test/abi": ["src/**", "test/support"],
  "test/fuzz/engine": [],
  "test/fuzz": [
    "test/fuzz/engine",
    "test/fuzz/accesses",
    "test/fuzz/removals",
    "test/fuzz/platform",
    "test/fuzz/block",
    "test/fuzz/boot",
    "test/fuzz/command-line",
    "test/fuzz/vfio-user",
  ],
  "test/fuzz/accesses": ["src/**", "test/support", "test/fuzz/engine"],
  "test/fuzz/block": ["src/**", "tools", "test/support", "test/fuzz/engine"],
  "test/fuzz/boot": ["src/base", "src/boot", "src/vmm/control", "guests", "test/support", "test/fuzz/engine"],
  "test/fuzz/command-line": [
    "src/cli",
    "src/cli/options",
    "src/host",
    "src/host-pci",
    "src/vmm/spec",
    "test/support",
    "test/fuzz/engine",
  ],
  "test/fuzz/removals": ["src/**", "test/support", "test/fuzz/engine", "test/fuzz/accesses"],
  "test/fuzz/platform": ["src/base", "src/platform", "test/support", "test/fuzz/engine"],
  "test/fuzz/vfio-user": ["src/**", "test/support", "test/fuzz/engine"],
  "test/kvm": ["src/**", "guests", "tools", "guest-images", "test/support"],
  "test/lab": ["src/**", "guests", "tools", "guest-images", "lab"],
  "test/unit/**": [
    "src/**",
    "guests",
    "tools",
    "guest-images",
    "lab",
    "bench/**",
    "test",
    "test/support",
    "test/fuzz/**",
  ],
};

/** Folders without system calls: nothing of Node's that reaches outside the process. */
const PURE = ["src/base", "src/pci", "src/platform", "src/boot", "src/virtio", "src/passthrough", "guests"];

const LINE_BUDGET = 400;
const ROOM_BUDGET = 20;

const text = (file: string): string => readFileSync(join(root, file), "utf8");

function filesBelow(folder: string, suffix: string): string[] {
  const path = join(root, folder);
  if (!existsSync(path)) return [];
  return readdirSync(path, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(suffix))
    .map((name) => join(folder, name))
    .sort();
}

/** Folders with TypeScript in them, of the project's own. */
const TOP_FOLDERS: readonly string[] = readdirSync(root, { withFileTypes: true })
  .filter((entry) => entry.isDirectory() && !entry.name.startsWith(".") && !/^(dist|node_modules)$/.test(entry.name))
  .map((entry) => entry.name)
  .sort();

const files: readonly string[] = TOP_FOLDERS.flatMap((folder) => filesBelow(folder, ".ts"));
const sources = files.filter((file) => file.startsWith("src/"));

/**
 * Specifiers of `import … from "x"`, `export … from "x"` and `import("x")`. Type imports count: they are the first
 * step.
 */
function specifiers(file: string): readonly string[] {
  const code = text(file).replace(/\/\*[\s\S]*?\*\//g, "");
  return [...code.matchAll(/(?:from|import|import\()\s*"([^"]+)"/g)].map((match) => match[1] ?? "");
}

/** What a file imports of this project, as paths below the root. */
const importsOf: ReadonlyMap<string, readonly string[]> = new Map(
  files.map((file) => [
    file,
    specifiers(file)
      .filter((specifier) => specifier.startsWith("."))
      .map((specifier) => relative(root, resolve(root, dirname(file), specifier))),
  ]),
);

/** Whether a row's folder or target means this folder or file. */
function means(pattern: string, path: string): boolean {
  if (pattern.endsWith(".ts")) return pattern === path;
  const folder = dirname(path);
  return pattern.endsWith("/**") ? `${folder}/`.startsWith(pattern.slice(0, -2)) : folder === pattern;
}

const rowOf = (file: string): readonly [string, readonly string[]] | undefined =>
  Object.entries(ROOMS).find(([folder]) => means(folder, file));

t.test("every file imports what its room may import, and no more", async (t) => {
  t.ok(sources.length > 50, `${sources.length} source files are looked at`);
  const wrong: string[] = [];
  for (const file of files) {
    const row = rowOf(file);
    if (row === undefined) {
      wrong.push(`${file}: ${dirname(file)} has no row in the table of rooms`);
      continue;
    }
    const [room, mayImport] = row;
    for (const imported of importsOf.get(file) ?? []) {
      if (dirname(imported) === dirname(file) || mayImport.some((target) => means(target, imported))) continue;
      wrong.push(`${file} imports ${imported}: ${room} may import ${mayImport.join(", ") || "nothing"}`);
    }
  }
  t.same(wrong, []);
});

t.test("every row of the table of rooms has files, and every arrow in it is used", async (t) => {
  const unused: string[] = [];
  for (const [room, mayImport] of Object.entries(ROOMS)) {
    const inRoom = files.filter((file) => means(room, file));
    if (inRoom.length === 0) unused.push(`${room} has no files`);
    const imported = inRoom.flatMap((file) => importsOf.get(file) ?? []);
    for (const target of mayImport)
      if (!imported.some((path) => means(target, path))) unused.push(`${room} → ${target}`);
  }
  t.same(unused, []);
});

/** The circles of a graph, each as a chain that ends where it began. */
function circles(arrows: ReadonlyMap<string, Iterable<string>>): readonly string[] {
  const found: string[] = [];
  const done = new Set<string>();
  const visit = (node: string, path: readonly string[]): void => {
    if (path.includes(node)) {
      found.push([...path.slice(path.indexOf(node)), node].join(" → "));
      return;
    }
    if (done.has(node)) return;
    for (const next of arrows.get(node) ?? []) visit(next, [...path, node]);
    done.add(node);
  };
  for (const node of arrows.keys()) visit(node, []);
  return found;
}

t.test("no two files import each other, directly or around a corner", async (t) => {
  t.same(circles(importsOf), []);
  const circle = new Map(Object.entries({ a: ["b"], b: ["a"] }));
  t.same(circles(circle), ["a → b → a"], "a circle would be found");
});

t.test("no two folders import each other, directly or around a corner", async (t) => {
  const folders = new Map<string, Set<string>>();
  for (const [file, imported] of importsOf) {
    const from = dirname(file);
    const targets = folders.get(from) ?? new Set();
    folders.set(from, targets);
    for (const path of imported) if (dirname(path) !== from) targets.add(dirname(path));
  }
  t.same(circles(folders), []);
});

t.test("every program that is named relative to a module is there", async (t) => {
  const missing: string[] = [];
  for (const file of files) {
    for (const [, path = ""] of text(file).matchAll(/new URL\("([^"]+\.js)", import\.meta\.url\)/g)) {
      const compiled = resolve(root, "dist", dirname(file), path);
      if (!existsSync(compiled)) missing.push(`${file}: ${path}`);
    }
  }
  t.same(missing, []);
});

t.test("folders without system calls import nothing of Node or of packages", async (t) => {
  const wrong = files
    .filter((file) => PURE.includes(dirname(file)))
    .flatMap((file) =>
      specifiers(file)
        .filter((specifier) => !specifier.startsWith("."))
        .map((specifier) => `${file}: ${specifier}`),
    );
  t.same(wrong, []);
});

t.test("koffi is imported by host/libc.ts alone", async (t) => {
  t.same(
    sources.filter((file) => specifiers(file).includes("koffi")),
    ["src/host/libc.ts"],
  );
});

t.test(`no file has more than ${LINE_BUDGET} lines, no room of src more than ${ROOM_BUDGET} files`, async (t) => {
  const long = files
    .map((file) => ({ file, lines: text(file).split("\n").length - 1 }))
    .filter(({ lines }) => lines > LINE_BUDGET);
  t.same(long, []);
  const counts = new Map<string, number>();
  for (const file of sources) counts.set(dirname(file), (counts.get(dirname(file)) ?? 0) + 1);
  t.same(
    [...counts].filter(([, count]) => count > ROOM_BUDGET),
    [],
  );
});

t.test("every folder of src, and each tool folder, tells what is in it in at most 40 lines", async (t) => {
  const rooms = new Set(sources.map((file) => dirname(file)).filter((folder) => folder !== "src"));
  const folders = [...rooms, "guests", "tools", "guest-images", "lab", "test", "examples"];
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
    ...filesBelow("src", ".md"),
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
