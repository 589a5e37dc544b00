import { spawn } from "node:child_process";
import * as fs from "node:fs/promises";
import { RingsteadError, codeOf } from "../../common/errors.ts";
import { sleep } from "../../common/worker.ts";
import type { DevicePaths } from "./paths.ts";

/** A killed owner keeps the lock until its last thread has left the disk, which a slow disk makes long. */
const DYING_OWNER_LIMIT_MS = 10_000;
/** An owner that lives may have been killed in this very moment, before it shows. */
const LIVING_OWNER_LIMIT_MS = 250;
const POLL_MS = 25;
/** What the file says has always this length: written in place, it needs no space on a full disk. */
const OWNER_TEXT_BYTES = 40;
/** Of field 9 of /proc/PID/stat: the process is on its way out (PF_EXITING of the kernel). */
const EXITING_FLAG = 4n;
const KILL_PENDING_BIT = 1n << 8n;
/** Exit code of flock(1) where somebody else has the lock. */
const FLOCK_REFUSED = 1;

/**
 * Keeps a device folder for this process until disposed. An owner that was killed is waited for while it ends. Errors: "device-busy".
 *
 * The lock is a flock(2) on the file `lock`: it belongs to this process's open file, and the kernel takes it back once the last thread
 * is gone, also one that was still in a write. Its words, pid and start time, are for people and for telling a dying owner from a living
 * one, never for deciding who owns: a zombie that nobody reaps has them too, and they mean nothing in another container (rejected
 * for both: a pid file; for the latter: a socket in the abstract name space, which is the network's). Node cannot call flock(2), so
 * flock(1) does, on the open file that it inherits.
 */
export const lockDevice = async (paths: DevicePaths): Promise<AsyncDisposable> => {
  const file = await fs.open(paths.lock, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600);
  try {
    const startedMs = performance.now();
    while (!(await tryLock(file.fd))) {
      const owner = await readOwner(paths.lock);
      const limitMs = owner !== undefined && (await lives(owner)) ? LIVING_OWNER_LIMIT_MS : DYING_OWNER_LIMIT_MS;
      if (performance.now() - startedMs >= limitMs) throw busy(paths, owner);
      await sleep(POLL_MS);
    }
    await writeOwner(file);
  } catch (error) {
    await file.close();
    throw error;
  }
  // The file stays: who opened it before it was unlinked would lock another one than who comes after.
  return { [Symbol.asyncDispose]: () => file.close() };
};

/** "startTime" is field 22 of /proc/PID/stat, ticks since boot: pids are used again, these are not. */
type Owner = { readonly pid: number; readonly startTime: string };

const busy = (paths: DevicePaths, owner: Owner | undefined): RingsteadError =>
  new RingsteadError(
    "device-busy",
    `${paths.root} is open already${owner === undefined ? "" : `, by process ${owner.pid}`}`,
    { path: paths.root, pid: owner?.pid },
  );

const tryLock = (descriptor: number): Promise<boolean> =>
  new Promise((resolve, reject) => {
    const child = spawn("flock", ["-x", "-n", "3"], { stdio: ["ignore", "ignore", "pipe", descriptor] });
    let complaint = "";
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      complaint += text;
    });
    child.once("error", (error) => reject(new Error(`flock of util-linux cannot be run: ${error.message}`)));
    child.once("close", (code) => {
      if (code === 0) resolve(true);
      else if (code === FLOCK_REFUSED && complaint === "") resolve(false);
      else reject(new Error(`flock failed: ${complaint.trim() || `code ${code}`}`));
    });
  });

const writeOwner = async (file: fs.FileHandle): Promise<void> => {
  const { startTime } = (await readStat(process.pid)) ?? { startTime: "0" };
  try {
    await file.write(`${`${process.pid} ${startTime}`.padEnd(OWNER_TEXT_BYTES - 1)}\n`, 0);
  } catch (error) {
    // A disk without a single free block: the lock is held all the same, only its owner is not told.
    if (codeOf(error) !== "ENOSPC" && codeOf(error) !== "EDQUOT") throw error;
  }
};

const readOwner = async (path: string): Promise<Owner | undefined> => {
  const match = /^(\d+) (\d+)\s*$/.exec(await fs.readFile(path, "utf8"));
  return match?.[1] === undefined || match[2] === undefined
    ? undefined
    : { pid: Number(match[1]), startTime: match[2] };
};

/** Whether the owner is a process here and was not killed; threads of one that was may still be in the kernel. */
const lives = async ({ pid, startTime }: Owner): Promise<boolean> => {
  const stat = await readStat(pid);
  if (stat?.startTime !== startTime) return false;
  if (stat.state === "Z" || stat.state === "X" || (stat.flags & EXITING_FLAG) !== 0n) return false;
  const status = await fs.readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  const pending = status.matchAll(/^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)$/gm);
  return [...pending].every(([, mask]) => (BigInt(`0x${mask}`) & KILL_PENDING_BIT) === 0n);
};

const readStat = async (pid: number): Promise<{ state: string; flags: bigint; startTime: string } | undefined> => {
  const text = await fs.readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  // The second field, the command's name in parentheses, may itself hold spaces and parentheses.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const [state, flags, startTime] = [fields[0], fields[6], fields[19]];
  return state === undefined || flags === undefined || startTime === undefined
    ? undefined
    : { state, flags: BigInt(flags), startTime };
};
