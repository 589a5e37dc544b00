import { sleep } from "../common/worker.ts";
import { familyOf } from "./process-usage.ts";

const STOP_LIMIT_MS = 10_000;
const POLL_MS = 100;

const signal = (pid: number, name: NodeJS.Signals | 0): boolean => {
  try {
    return process.kill(pid, name);
  } catch {
    return false;
  }
};

/** Ends `roots` and all that descends of them: SIGTERM, and after ten seconds SIGKILL. */
export const stopFamily = async (roots: readonly number[]): Promise<void> => {
  const family = familyOf(roots);
  for (const pid of family) signal(pid, "SIGTERM");
  const deadlineMs = performance.now() + STOP_LIMIT_MS;
  while (family.some((pid) => signal(pid, 0)) && performance.now() < deadlineMs) await sleep(POLL_MS);
  for (const pid of family) signal(pid, "SIGKILL");
};
