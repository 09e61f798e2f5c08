import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";

/** Where distributions put the database of https://pci-ids.ucw.cz. */
export const PCI_ID_FILES: readonly string[] = [
  "/usr/share/misc/pci.ids",
  "/usr/share/misc/pci.ids.gz",
  "/usr/share/hwdata/pci.ids",
  "/usr/share/hwdata/pci.ids.gz",
];

const hexDigits = (value: number, count: number): string => value.toString(16).padStart(count, "0");

/** Names of PCI vendors, devices and classes, out of the `pci.ids` database where the host has it. */
export class PciNames {
  readonly #text: string;

  /** @param text The database's text; empty for none. */
  constructor(text: string) {
    this.#text = `\n${text}`;
  }

  /** Opens the first of some files that is there; without one there are no names. */
  static open(files: readonly string[] = PCI_ID_FILES): PciNames {
    for (const file of files) {
      try {
        const bytes = readFileSync(file);
        return new PciNames((file.endsWith(".gz") ? gunzipSync(bytes) : bytes).toString("utf8"));
      } catch {
        // Not there, or no database: the next one.
      }
    }
    return new PciNames("");
  }

  vendor(vendorId: number): string | undefined {
    return this.#section(hexDigits(vendorId, 4))?.name;
  }

  device(vendorId: number, deviceId: number): string | undefined {
    return entry(this.#section(hexDigits(vendorId, 4))?.body, hexDigits(deviceId, 4));
  }

  /** @param classCode 24 bits. The sub-class's name, or the base class's where that has none. */
  class(classCode: number): string | undefined {
    const section = this.#section(`C ${hexDigits(classCode >>> 16, 2)}`);
    return entry(section?.body, hexDigits((classCode >>> 8) & 0xff, 2)) ?? section?.name;
  }

  /** A line at the margin, and the indented lines below it. */
  #section(key: string): { readonly name: string; readonly body: string } | undefined {
    const at = this.#text.indexOf(`\n${key}  `);
    if (at < 0) return undefined;
    const start = at + 1;
    const lineEnd = end(this.#text.indexOf("\n", start), this.#text);
    const next = /\n[0-9a-fC]/g;
    next.lastIndex = lineEnd;
    const bodyEnd = end(next.exec(this.#text)?.index ?? -1, this.#text);
    return { name: this.#text.slice(start + key.length + 2, lineEnd).trim(), body: this.#text.slice(lineEnd, bodyEnd) };
  }
}

const end = (index: number, text: string): number => (index < 0 ? text.length : index);

function entry(body: string | undefined, key: string): string | undefined {
  const prefix = `\n\t${key}  `;
  const at = body?.indexOf(prefix) ?? -1;
  if (body === undefined || at < 0) return undefined;
  return body.slice(at + prefix.length, end(body.indexOf("\n", at + 1), body)).trim();
}
