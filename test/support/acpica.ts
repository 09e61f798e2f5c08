import { execFile, spawnSync } from "node:child_process";

/**
 * Why tests that ask ACPICA's tools cannot run here; `false` when they can. For tap's `skip` option.
 * In CI (`CI=true`) it is always `false`: missing tools fail the tests there instead of hiding them.
 */
export function missingAcpica(): string | false {
  if (process.env["CI"] === "true") return false;
  const isFound = ["iasl", "acpiexec"].every(
    (tool) => spawnSync(tool, ["-v"], { stdio: "ignore" }).error === undefined,
  );
  return isFound ? false : "iasl and acpiexec are not installed (Debian: apt install acpica-tools)";
}

/**
 * Runs one of the tools in `directory`; answers all it printed, whatever its exit status. @throws Error when it does
 * not start.
 */
export function runAcpica(directory: string, tool: "iasl" | "acpiexec", ...options: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(tool, options, { cwd: directory }, (error, stdout, stderr) => {
      if (error !== null && typeof error.code === "string") reject(error);
      else resolve(stdout + stderr);
    });
  });
}
