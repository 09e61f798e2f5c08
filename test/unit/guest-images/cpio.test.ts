import t from "tap";
import { cpioArchive } from "../../../guest-images/cpio.ts";

/** An entry's header fields by their place: 0 inode, 1 mode, 6 file size, 9 and 10 device numbers, 11 name size. */
function entries(archive: Buffer): { fields: number[]; name: string; content: string }[] {
  const found = [];
  for (let at = 0; at < archive.length; ) {
    t.equal(archive.toString("latin1", at, at + 6), "070701", `magic at ${at}`);
    const fields = Array.from({ length: 13 }, (_, index) =>
      Number.parseInt(archive.toString("latin1", at + 6 + 8 * index, at + 14 + 8 * index), 16),
    );
    const [nameSize = 0, fileSize = 0] = [fields[11], fields[6]];
    const contentAt = Math.ceil((at + 110 + nameSize) / 4) * 4;
    found.push({
      fields,
      name: archive.toString("latin1", at + 110, at + 110 + nameSize - 1),
      content: archive.toString("latin1", contentAt, contentAt + fileSize),
    });
    at = Math.ceil((contentAt + fileSize) / 4) * 4;
  }
  return found;
}

t.test("cpioArchive() writes every kind of entry, each on a multiple of four bytes, and a trailer", (t) => {
  const found = entries(
    cpioArchive([
      { kind: "directory", path: "dev" },
      { kind: "characterDevice", path: "dev/console", major: 5, minor: 1 },
      { kind: "file", path: "init", mode: 0o755, content: Buffer.from("12345") },
      { kind: "symlink", path: "bin/sh", target: "/bin/busybox" },
    ]),
  );
  t.same(
    found.map(({ name }) => name),
    ["dev", "dev/console", "init", "bin/sh", "TRAILER!!!"],
  );
  t.same(
    found.map(({ fields }) => fields[1]?.toString(8)),
    ["40755", "20600", "100755", "120777", "0"],
  );
  t.same([found[1]?.fields[9], found[1]?.fields[10]], [5, 1]);
  t.equal(found[2]?.content, "12345");
  t.equal(found[3]?.content, "/bin/busybox", "a link's content is its target");
  t.equal(
    new Set(found.slice(0, 4).map(({ fields }) => fields[0])).size,
    4,
    "inodes differ: equal ones are hard links",
  );
  t.end();
});

t.test("cpioArchive() answers the same bytes for the same entries", (t) => {
  const once = () => cpioArchive([{ kind: "file", path: "a", mode: 0o644, content: Buffer.from("x") }]);
  t.ok(once().equals(once()));
  t.end();
});
