import { statSync } from "node:fs";
import { dirname } from "node:path";
import { errnoOf, fileErrorCode, SpecError } from "../../base/errors.ts";

/**
 * Looks at where a file is to be written, before anything has been done for its content; makes nothing.
 *
 * @throws SpecError for what can be no file.
 */
export function checkOutputFile(option: string, file: string): void {
  const folder = found(option, dirname(file));
  if (folder === undefined) throw new SpecError("TSVMM_FILE_ABSENT", option, `there is no directory ${dirname(file)}`);
  if (!folder.isDirectory()) throw new SpecError("TSVMM_FILE_KIND", option, `${dirname(file)} is not a directory`);
  if (found(option, file)?.isDirectory() === true) {
    throw new SpecError("TSVMM_FILE_KIND", option, `${file} is a directory: a file is needed`);
  }
}

function found(option: string, path: string): ReturnType<typeof statSync> {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch (error) {
    throw new SpecError(fileErrorCode(errnoOf(error)), option, `cannot look at ${path}: ${errnoOf(error)}`);
  }
}
