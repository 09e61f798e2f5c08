import { pathToFileURL } from "node:url";

/*
 * Runs several compiled test files in this process, one after the other: those that the environment variable TSVMM_TEST_FILES lists, as
 * JSON. On the command line they would become part of the names of tap's scratch folders, and those too long.
 */

// Cast: test/run.ts writes it.
const files = JSON.parse(process.env["TSVMM_TEST_FILES"] ?? "[]") as readonly string[];
for (const file of files) await import(pathToFileURL(file).href);
