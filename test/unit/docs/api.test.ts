import { spawnSync } from "node:child_process";
import { join } from "node:path";
import t from "tap";
import { projectRoot } from "../../../tools/cache.ts";

t.test(
  "every type that the public API mentions is exported, and every link in its docstrings leads somewhere",
  async (t) => {
    const root = projectRoot();
    const typedoc = join(root, "node_modules", "typedoc", "bin", "typedoc");
    const run = spawnSync(process.execPath, [typedoc, "--emit", "none"], { cwd: root, encoding: "utf8" });
    t.equal(`${run.stdout}${run.stderr}`.replace(/^.*Documentation generated.*$/m, "").trim(), "");
    t.equal(run.status, 0);
  },
);
