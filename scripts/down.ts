import { rmSync } from "node:fs";
import { runtimePaths } from "../common/runtime-paths.ts";
import { endProcesses, signalProcess, waitUntilEnded } from "../common/process-identity.ts";
import { releaseVolumes } from "./export-processes.ts";
import { DRAIN_MS, KEEP_RUNNING_SIGNAL, keptProcesses, stopOrphans } from "./supervisor.ts";
import { lockHolder } from "./supervisor-lock.ts";
import { dataDirOf, parseOptions } from "./up-options.ts";

/** The supervisor kills what has not drained in time; this is for one that hangs itself. */
const SUPERVISOR_GRACE_MS = DRAIN_MS + 15_000;

/**
 * `ringstead down`: exit 0 also when nothing ran. `--keep-running` leaves the processes whose role is an export, a guest or tgtd; the next
 * supervisor takes them over.
 */
export const down = async (argv: readonly string[]): Promise<number> => {
  const { values } = parseOptions(argv, { data: { type: "string" }, "keep-running": { type: "boolean" } });
  const keep = values["keep-running"] === true;
  const paths = runtimePaths(dataDirOf(values.data));
  rmSync(paths.readyJson, { force: true });
  const supervisor = lockHolder(paths.supervisorLock);
  if (supervisor !== undefined) {
    signalProcess(supervisor, keep ? KEEP_RUNNING_SIGNAL : "SIGTERM");
    if (!(await waitUntilEnded([supervisor], SUPERVISOR_GRACE_MS))) await endProcesses([supervisor], 0);
  }
  const orphans = await stopOrphans(paths, DRAIN_MS, keep);
  if (!keep) await releaseVolumes(paths);
  if (lockHolder(paths.supervisorLock) === undefined) rmSync(paths.supervisorLock, { force: true });
  // A supervisor that was still starting may have written it meanwhile.
  rmSync(paths.readyJson, { force: true });
  const kept = keep ? keptProcesses(paths) : [];
  process.stdout.write(
    supervisor !== undefined || orphans > 0
      ? `Ringstead on ${paths.dataDir} is stopped.\n`
      : `Nothing was running on ${paths.dataDir}.\n`,
  );
  if (keep) {
    process.stdout.write(
      kept.length === 0
        ? "There were no exports or guests to leave running.\n"
        : `Left running: ${kept.map(({ role, pid }) => `${role} (pid ${pid})`).join(", ")}.\n`,
    );
  }
  return 0;
};
