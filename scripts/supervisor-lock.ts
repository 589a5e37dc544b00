import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { codeOf, RingsteadError } from "../common/errors.ts";
import { isRunning, type ProcessIdentity, startTimeOf } from "../common/process-identity.ts";

/** The supervisor that holds the lock file, undefined where none does (absent, stale or unreadable file). */
export const lockHolder = (lockFile: string): ProcessIdentity | undefined => {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(lockFile, "utf8"));
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null || !("pid" in value) || !("startTime" in value)) return undefined;
  const { pid, startTime } = value;
  if (typeof pid !== "number" || typeof startTime !== "number") return undefined;
  return isRunning({ pid, startTime }) ? { pid, startTime } : undefined;
};

const refuse = (holder: ProcessIdentity, dataDir: string): never => {
  throw new RingsteadError("already-running", `Ringstead already runs on ${dataDir} with pid ${holder.pid}`, holder);
};

/**
 * Makes this process the one supervisor of `dataDir`; disposal gives the lock back. Throws RingsteadError `already-running`.
 * The file appears by link(2) with its contents, so no reader sees it half written; a stale one is renamed away first, and
 * looked at again under its new name, since another process may have replaced it in between.
 */
export const takeLock = (lockFile: string, dataDir: string): Disposable => {
  const own: ProcessIdentity = { pid: process.pid, startTime: startTimeOf(process.pid) ?? 0 };
  const prepared = `${lockFile}.${process.pid}`;
  const aside = `${lockFile}.stale-${process.pid}`;
  writeFileSync(prepared, JSON.stringify(own), { mode: 0o644 });
  try {
    for (;;) {
      try {
        linkSync(prepared, lockFile);
        break;
      } catch (thrown) {
        if (codeOf(thrown) !== "EEXIST") throw thrown;
      }
      const holder = lockHolder(lockFile);
      if (holder !== undefined) refuse(holder, dataDir);
      try {
        renameSync(lockFile, aside);
      } catch (thrown) {
        if (codeOf(thrown) === "ENOENT") continue;
        throw thrown;
      }
      const winner = lockHolder(aside);
      if (winner !== undefined) {
        renameSync(aside, lockFile);
        refuse(winner, dataDir);
      }
      rmSync(aside, { force: true });
    }
  } finally {
    rmSync(prepared, { force: true });
  }
  return {
    [Symbol.dispose]: () => {
      if (lockHolder(lockFile)?.pid === process.pid) rmSync(lockFile, { force: true });
    },
  };
};
