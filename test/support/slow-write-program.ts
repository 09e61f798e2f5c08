import { writeSlowly } from "../../src/host-pci/slow-write.ts";

/* Writes to a file that does not take it, and says so: for a test that ends this process meanwhile. */

const [file = ""] = process.argv.slice(2);
writeSlowly(file, "0000:01:00.0", (seconds) => process.stdout.write(`waited ${seconds} s\n`), 100);
