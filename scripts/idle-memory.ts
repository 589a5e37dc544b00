import { readFileSync } from "node:fs";
import { join } from "node:path";
import { messageOf } from "../common/errors.ts";
import { sleep } from "../common/worker.ts";
import type { ReadyFile } from "./ready-file.ts";
import { TestInstallation } from "./scenarios/installation.ts";

/** What object and identity may take together while nobody asks them for anything. */
const LIMIT_MIB = 300;
/** Start-up garbage is collected by then. */
const SETTLE_MS = 20_000;
const KIB_PER_MIB = 1024;

/** Proportional set size of a process in KiB: pages shared with others count by their share. */
const pssOf = (pid: number): number => {
  const line = /^Pss:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"));
  if (line?.[1] === undefined) throw new Error(`/proc/${pid}/smaps_rollup has no Pss`);
  return Number(line[1]);
};

/** Prints each process's share and the sum. Exit code 1 when the sum is above the limit. */
const main = async (): Promise<number> => {
  await using installation = new TestInstallation(["--only", "object"]);
  await installation.up();
  process.stdout.write(`waiting ${SETTLE_MS / 1000} s for an idle installation …\n`);
  await sleep(SETTLE_MS);
  const ready = JSON.parse(readFileSync(join(installation.folder, "ready.json"), "utf8")) as ReadyFile;
  let sumKib = 0;
  for (const { role, pid } of ready.processes) {
    const kib = pssOf(pid);
    sumKib += kib;
    process.stdout.write(`${role.padEnd(14)} ${(kib / KIB_PER_MIB).toFixed(1).padStart(7)} MiB\n`);
  }
  const sumMib = sumKib / KIB_PER_MIB;
  process.stdout.write(`${"sum".padEnd(14)} ${sumMib.toFixed(1).padStart(7)} MiB, limit ${LIMIT_MIB} MiB\n`);
  return sumMib < LIMIT_MIB ? 0 : 1;
};

try {
  process.exitCode = await main();
} catch (thrown) {
  process.stderr.write(`${messageOf(thrown)}\n`);
  process.exitCode = 1;
}
