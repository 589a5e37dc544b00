import { readdirSync, readFileSync } from "node:fs";
import { codeOf } from "./errors.ts";
import { sleep } from "./worker.ts";

/** A process that cannot be mistaken for a later one with its pid: `startTime` is field 22 of /proc/PID/stat (clock ticks). */
export type ProcessIdentity = { readonly pid: number; readonly startTime: number };

const POLL_MS = 20;

/** A write that is under way ends first. */
const KILLED_LIMIT_MS = 30_000;

/** A killed process is a zombie while threads of it still end (in an fdatasync, say): until then its files and locks are held. */
const hasThreads = (pid: number): boolean => {
  try {
    return readdirSync(`/proc/${pid}/task`).length > 1;
  } catch {
    return false;
  }
};

/** The start time of a living process, undefined for one that is gone or a zombie. */
export const startTimeOf = (pid: number): number | undefined => {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch {
    return undefined;
  }
  // Field 2, the command's name, is in parentheses and may itself hold blanks and parentheses.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const isOver = fields[0] === "X" || (fields[0] === "Z" && !hasThreads(pid));
  return isOver ? undefined : Number(fields[19]);
};

/** Whether this very process lives. */
export const isRunning = ({ pid, startTime }: ProcessIdentity): boolean => startTimeOf(pid) === startTime;

/** Whether `word` is part of what the process was started with. */
export const isStartedWith = (pid: number, word: string): boolean => {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(word);
  } catch (error) {
    if (codeOf(error) === "ENOENT" || codeOf(error) === "ESRCH") return false;
    throw error;
  }
};

/** Sends `signal` if this very process still lives. */
export const signalProcess = (identity: ProcessIdentity, signal: NodeJS.Signals): void => {
  if (!isRunning(identity)) return;
  try {
    process.kill(identity.pid, signal);
  } catch (thrown) {
    if (codeOf(thrown) !== "ESRCH") throw thrown;
  }
};

/** Resolves with whether all have ended within `limitMs`. */
export const waitUntilEnded = async (processes: readonly ProcessIdentity[], limitMs: number): Promise<boolean> => {
  const deadline = performance.now() + limitMs;
  while (processes.some(isRunning)) {
    if (performance.now() >= deadline) return false;
    await sleep(POLL_MS);
  }
  return true;
};

/** SIGTERM, then SIGKILL to those that still live after `graceMs`. Resolves once all have ended. */
export const endProcesses = async (processes: readonly ProcessIdentity[], graceMs: number): Promise<void> => {
  for (const identity of processes) signalProcess(identity, "SIGTERM");
  if (await waitUntilEnded(processes, graceMs)) return;
  for (const identity of processes) signalProcess(identity, "SIGKILL");
  await waitUntilEnded(processes, KILLED_LIMIT_MS);
};
