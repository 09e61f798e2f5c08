import { HostError } from "../base/errors.ts";

/** Version of the glibc that this process runs with; `undefined` for another C library. Takes milliseconds. */
function runtimeGlibc(): string | undefined {
  // Cast: Node's documentation has the report's `header`; its types say `object`.
  const { header } = process.report.getReport() as { readonly header?: { readonly glibcVersionRuntime?: string } };
  return header?.glibcVersionRuntime;
}

const ADVICE = "use a system or an image with glibc, such as node:22-bookworm-slim";

/**
 * Passes on what a step of loading the C library answers.
 *
 * @param glibcVersion Of this process; tests have their own.
 * @throws HostError that says in one sentence what the loader's words do not: that the C library is musl.
 */
export function fromCLibrary<T>(step: () => T, glibcVersion: () => string | undefined = runtimeGlibc): T {
  try {
    return step();
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    if (glibcVersion() !== undefined) throw new HostError("TSVMM_C_LIBRARY", `Cannot load the C library: ${text}`);
    throw new HostError(
      "TSVMM_C_LIBRARY",
      "Cannot load the C library: this Node.js runs with musl (Alpine), tsvmm needs glibc",
      ADVICE,
    );
  }
}
