import type { Row } from "../measure/row.ts";

/*
 * Rows of counts, which need a Linux guest, and one of them a real device: `lab.ts` takes them, in the nested lab or on
 * a host that has both. They stand here so that a table shows what it lacks.
 */

const HOW =
  "is counted by `node dist/bench/lab.js`, in the nested lab (`npm run lab`) or on a host that has what it needs";

function row(name: string, meaning: string, needs: string): Row {
  return { name, meaning, missing: () => `it needs ${needs}, and ${HOW}`, run: async () => undefined };
}

export const boot: Row = row(
  "boot-exits",
  "Userspace exits from the start to a Linux guest's first userspace line, by kind and by device.",
  "a Linux guest",
);

export const path: Row = row(
  "data-path",
  "Userspace exits and system calls of all threads for each NVMe request in steady state.",
  "a Linux guest and a passed-through NVMe function",
);

export const linuxIdle: Row = row(
  "linux-idle",
  "Share of one processor that all threads take while the vCPUs of a booted Linux guest idle.",
  "a Linux guest",
);
