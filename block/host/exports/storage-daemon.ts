import { spawn } from "node:child_process";
import { closeSync, fchmodSync, mkdirSync, openSync, readFileSync, rmSync, statSync, truncateSync } from "node:fs";
import { dirname } from "node:path";
import { codeOf, messageOf, RingsteadError } from "../../../common/errors.ts";
import {
  endProcesses,
  isRunning,
  isStartedWith,
  type ProcessIdentity,
  signalProcess,
  startTimeOf,
} from "../../../common/process-identity.ts";
import { sleep } from "../../../common/worker.ts";
import { QmpClient } from "./qmp-client.ts";

export type StorageDaemonFiles = { readonly pidFile: string; readonly qmpSocket: string; readonly log: string };

const START_LIMIT_MS = 15_000;
const POLL_MS = 5;
/** What a daemon has in flight is written out when it is asked to end. */
const GRACE_MS = 10_000;
/** What strangers at a port make a daemon say must not fill the disk. */
const LOG_LIMIT_BYTES = 1024 * 1024;

/** Whether the daemon itself said no, in words that `pattern` finds. */
export const isRefused = (error: unknown, pattern: RegExp): boolean =>
  codeOf(error) === "daemon-refused" && pattern.test(messageOf(error));

/** The end of what it said, for whoever asks why it does not start. */
export const lastWordsIn = (path: string): string => {
  try {
    return readFileSync(path, "utf8").trim().split("\n").slice(-3).join("; ");
  } catch {
    return "";
  }
};

/** Keeps what a process said within its limit. */
export const boundLog = (path: string): void => {
  try {
    if (statSync(path).size > LOG_LIMIT_BYTES) truncateSync(path);
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
  }
};

/** Opens a file for what a process says, for its owner's eyes alone. The caller closes it. */
export const openLog = (path: string): number => {
  const log = openSync(path, "a", 0o600);
  fchmodSync(log, 0o600);
  return log;
};

export const identityOf = (pid: number): ProcessIdentity | undefined => {
  const startTime = startTimeOf(pid);
  return startTime === undefined ? undefined : { pid, startTime };
};

/** The process that the pid file names, if it lives and is what was started with these files. */
const runningAt = (files: StorageDaemonFiles): ProcessIdentity | undefined => {
  let text: string;
  try {
    text = readFileSync(files.pidFile, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
  const pid = Number(text.trim());
  if (!Number.isSafeInteger(pid) || pid <= 1 || !isStartedWith(pid, files.qmpSocket)) return undefined;
  return identityOf(pid);
};

/**
 * One `qemu-storage-daemon`: a session of its own that outlives whoever started it. Who comes next finds it by its pid file, which it holds
 * locked, so that there are never two with the same files.
 */
export class StorageDaemon {
  readonly identity: ProcessIdentity;
  /** Resolves once its monitor is gone. */
  readonly closed: Promise<void>;
  readonly files: StorageDaemonFiles;
  readonly #qmp: QmpClient;

  private constructor(files: StorageDaemonFiles, identity: ProcessIdentity, qmp: QmpClient) {
    this.files = files;
    this.identity = identity;
    this.#qmp = qmp;
    this.closed = qmp.closed;
  }

  /** The daemon that runs already; undefined where none does. One that does not answer within `patienceMs` is ended. */
  static async adopted(files: StorageDaemonFiles, patienceMs?: number): Promise<StorageDaemon | undefined> {
    const identity = runningAt(files);
    if (identity === undefined) return undefined;
    // One that was stopped by a process that then died is let go on first.
    signalProcess(identity, "SIGCONT");
    try {
      return new StorageDaemon(files, identity, await QmpClient.connected(files.qmpSocket, patienceMs));
    } catch (error) {
      if (codeOf(error) !== "daemon-lost") throw error;
      await endProcesses([identity], 0);
      return undefined;
    }
  }

  /** Starts one that has nothing open yet. Requires: none runs. Errors: "daemon-failed". */
  static async started(files: StorageDaemonFiles): Promise<StorageDaemon> {
    mkdirSync(dirname(files.pidFile), { recursive: true, mode: 0o700 });
    for (const stale of [files.qmpSocket, files.pidFile]) rmSync(stale, { force: true });
    const log = openLog(files.log);
    const monitor = ["--chardev", `socket,id=monitor,path=${files.qmpSocket},server=on,wait=off`];
    const child = spawn(
      "qemu-storage-daemon",
      ["--pidfile", files.pidFile, ...monitor, "--monitor", "chardev=monitor"],
      { detached: true, stdio: ["ignore", log, log], cwd: "/" },
    );
    closeSync(log);
    let failure: string | undefined;
    child.once("error", (error) => (failure = messageOf(error)));
    child.once("exit", (code, signal) => (failure = `it ended with ${code ?? signal}: ${lastWordsIn(files.log)}`));
    child.unref();
    const deadline = performance.now() + START_LIMIT_MS;
    for (;;) {
      if (failure !== undefined)
        throw new RingsteadError("daemon-failed", `qemu-storage-daemon does not start: ${failure}`);
      const identity = child.pid === undefined ? undefined : identityOf(child.pid);
      if (identity !== undefined) {
        try {
          return new StorageDaemon(files, identity, await QmpClient.connected(files.qmpSocket));
        } catch (error) {
          if (codeOf(error) !== "daemon-lost") throw error;
        }
        if (performance.now() >= deadline) {
          await endProcesses([identity], 0);
          throw new RingsteadError("daemon-failed", "qemu-storage-daemon does not answer");
        }
      }
      await sleep(POLL_MS);
    }
  }

  get isRunning(): boolean {
    return isRunning(this.identity);
  }

  /** Errors: "daemon-refused" with what it says; "daemon-lost": whether it was done is not known. */
  ask(command: string, parameters: object = {}): Promise<unknown> {
    return this.#qmp.ask(command, parameters);
  }

  /** As `ask`, where a refusal in the words of `done` means that there is nothing to do any more. */
  async unlessDone(command: string, parameters: object, done: RegExp): Promise<void> {
    try {
      await this.#qmp.ask(command, parameters);
    } catch (error) {
      if (!isRefused(error, done)) throw error;
    }
  }

  /** Lets go of it: it goes on. */
  release(): void {
    this.#qmp[Symbol.dispose]();
  }

  /** Ends it, what it has in flight written out, or at once. */
  async end(graceMs = GRACE_MS): Promise<void> {
    await endProcesses([this.identity], graceMs);
    this.release();
    rmSync(this.files.qmpSocket, { force: true });
  }
}
