import { readdirSync, readFileSync } from "node:fs";
import { codeOf } from "../../../common/errors.ts";
import { sleep } from "../../../common/worker.ts";

/** A process that cannot be mistaken for a later one with its pid: `startTime` is field 22 of /proc/PID/stat (clock ticks). */
export type ProcessIdentity = { readonly pid: number; readonly startTime: number };

const POLL_MS = 10;

/** A killed process is a zombie while threads of it still end (in a write, say): until then it may change what another one has opened. */
const hasThreads = (pid: number): boolean => {
  try {
    return readdirSync(`/proc/${pid}/task`).length > 1;
  } catch {
    return false;
  }
};

/** The start time of a living process; undefined for one that has ended. */
export const startTimeOf = (pid: number): number | undefined => {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    // Field 2, the command's name, is in parentheses and may itself hold blanks and parentheses.
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    const isOver = fields[0] === "X" || (fields[0] === "Z" && !hasThreads(pid));
    return isOver ? undefined : Number(fields[19]);
  } catch (error) {
    if (codeOf(error) === "ENOENT" || codeOf(error) === "ESRCH") return undefined;
    throw error;
  }
};

export const isRunning = ({ pid, startTime }: ProcessIdentity): boolean => startTimeOf(pid) === startTime;

/** Whether `word` is among the words that the process was started with. */
export const isStartedWith = (pid: number, word: string): boolean => {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(word);
  } catch (error) {
    if (codeOf(error) === "ENOENT" || codeOf(error) === "ESRCH") return false;
    throw error;
  }
};

const signal = (identity: ProcessIdentity, name: NodeJS.Signals): void => {
  if (!isRunning(identity)) return;
  try {
    process.kill(identity.pid, name);
  } catch (error) {
    if (codeOf(error) !== "ESRCH") throw error;
  }
};

const untilEnded = async (identity: ProcessIdentity, limitMs: number): Promise<boolean> => {
  const deadline = performance.now() + limitMs;
  while (isRunning(identity)) {
    if (performance.now() >= deadline) return false;
    await sleep(POLL_MS);
  }
  return true;
};

/** SIGTERM, and SIGKILL where it still lives after `graceMs`. Resolves once it has ended. */
export const endProcess = async (identity: ProcessIdentity, graceMs: number): Promise<void> => {
  signal(identity, "SIGTERM");
  if (await untilEnded(identity, graceMs)) return;
  signal(identity, "SIGKILL");
  await untilEnded(identity, 30_000);
};
