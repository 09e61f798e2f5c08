import { pathToFileURL } from "node:url";
import t from "tap";

/*
 * Runs several compiled test files in this process, one after the other: those that the environment variable
 * TSVMM_TEST_FILES lists, as JSON. On the command line they would become part of the names of tap's scratch folders,
 * and those too long.
 *
 * From its first teardown on, tap's root ends as soon as it has nothing to run. Loading the next file can take longer
 * than the tests of the last one. So teardowns of the root are registered behind all files.
 */

// Cast: test/run.ts writes it.
const files = JSON.parse(process.env["TSVMM_TEST_FILES"] ?? "[]") as readonly string[];
const register = t.teardown.bind(t);
const teardowns: Parameters<typeof register>[] = [];
t.teardown = (...teardown) => void teardowns.push(teardown);
for (const file of files) await import(pathToFileURL(file).href);
t.teardown = register;
for (const teardown of teardowns) t.teardown(...teardown);
