import { spawn } from "node:child_process";
import { closeSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { getCompileCacheDir } from "node:module";
import { dirname, join } from "node:path";
import { codeOf, messageOf, RingsteadError } from "../../../common/errors.ts";
import { endProcesses, isRunning, isStartedWith, type ProcessIdentity } from "../../../common/process-identity.ts";
import { sleep } from "../../../common/worker.ts";
import { FrontControl, type FrontRequest } from "../disk-front/control.ts";
import { boundLog, identityOf, lastWordsIn, openLog } from "../exports/storage-daemon.ts";
import { runCommand } from "../run-command.ts";

export type FrontFiles = {
  readonly pidFile: string;
  readonly log: string;
  readonly control: string;
  /** Where the volume is a file. */
  readonly disk: string;
  /** What it says of writes that are not flushed, for the front after it. */
  readonly mark: string;
  /** Where its daemon serves it over NBD. */
  readonly nbdSocket: string;
};

type ShowRequest = Extract<FrontRequest, { do: "show" }>;

const MAIN = join(import.meta.dirname, "..", "disk-front", "main.ts");
/** Threads of its pool: those that wait for the kernel, and one for whatever else it does. */
const THREADS = "4";
/** It keeps some MiB of writes that are not flushed; the rest is the language's own. */
const NODE_WORDS = [
  "--max-old-space-size=64",
  "--max-semi-space-size=4",
  "--v8-pool-size=1",
  "--disable-warning=ExperimentalWarning",
];
const START_LIMIT_MS = 30_000;
const SIZE_LIMIT_MS = 10_000;
const GRACE_MS = 10_000;
const POLL_MS = 5;
/** More than ever lie upon one another: each death of a front leaves one. */
const MOUNTS_LIMIT = 64;

/** As /proc/mounts writes a path. */
const mountText = (path: string): string =>
  path.replace(/[\\ \t\n]/g, (character) => `\\${character.charCodeAt(0).toString(8).padStart(3, "0")}`);

const isMounted = (path: string): boolean =>
  readFileSync("/proc/self/mounts", "utf8").includes(` ${mountText(path)} fuse`);

/** Takes away what a front that was killed left mounted; whoever has it open keeps what is dead. */
export const unmountDisk = async (disk: string): Promise<void> => {
  for (let count = 0; isMounted(disk) && count < MOUNTS_LIMIT; count++) await runCommand("umount", ["--lazy", disk]);
};

/** Without the code that was compiled before, each front would have a compiler in its memory. */
const compileCache = (): NodeJS.ProcessEnv => {
  const folder = getCompileCacheDir();
  return folder === undefined ? {} : { NODE_COMPILE_CACHE: dirname(folder) };
};

/** The front that the pid file names, if it lives. */
const runningAt = ({ pidFile }: FrontFiles): ProcessIdentity | undefined => {
  let text: string;
  try {
    text = readFileSync(pidFile, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
  const pid = Number(text.trim());
  if (!Number.isSafeInteger(pid) || pid <= 1 || !isStartedWith(pid, pidFile)) return undefined;
  return identityOf(pid);
};

/**
 * A volume as a file, for tgtd: a process of its own (`../disk-front/`), which shows through FUSE what the volume's daemon serves over NBD. It
 * keeps what was written and not flushed, and gives it to the next daemon where one dies, so that nobody above notices.
 */
export class DiskFront {
  readonly identity: ProcessIdentity;
  readonly #control: FrontControl;
  readonly #files: FrontFiles;
  #sizeBytes = 0;

  private constructor(files: FrontFiles, identity: ProcessIdentity, control: FrontControl) {
    this.#files = files;
    this.identity = identity;
    this.#control = control;
  }

  /** The front that runs already; undefined where none does. One that cannot be asked is ended. */
  static async adopted(files: FrontFiles): Promise<DiskFront | undefined> {
    const identity = runningAt(files);
    if (identity === undefined) return undefined;
    try {
      return new DiskFront(files, identity, await FrontControl.connected(files.control));
    } catch (error) {
      if (codeOf(error) !== "daemon-lost") throw error;
      await endProcesses([identity], 0);
      return undefined;
    }
  }

  /** Requires: none runs. Errors: "daemon-failed". */
  static async started(files: FrontFiles): Promise<DiskFront> {
    await unmountDisk(files.disk);
    mkdirSync(dirname(files.pidFile), { recursive: true, mode: 0o700 });
    for (const stale of [files.control, files.pidFile]) rmSync(stale, { force: true });
    const log = openLog(files.log);
    const words = ["--disk", files.disk, "--nbd", files.nbdSocket, "--control", files.control, "--mark", files.mark];
    const child = spawn(process.execPath, [...NODE_WORDS, MAIN, ...words, "--pid-file", files.pidFile], {
      detached: true,
      stdio: ["ignore", log, log],
      cwd: "/",
      env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C", UV_THREADPOOL_SIZE: THREADS, ...compileCache() },
    });
    closeSync(log);
    let failure: string | undefined;
    child.once("error", (error) => (failure = messageOf(error)));
    child.once("exit", (code, signal) => (failure = `it ended with ${code ?? signal}: ${lastWordsIn(files.log)}`));
    child.unref();
    const deadline = performance.now() + START_LIMIT_MS;
    for (;;) {
      if (failure !== undefined)
        throw new RingsteadError("daemon-failed", `the front of a disk does not start: ${failure}`);
      const front = await DiskFront.#asked(files);
      if (front !== undefined) return front;
      if (performance.now() >= deadline) {
        const identity = child.pid === undefined ? undefined : identityOf(child.pid);
        if (identity !== undefined) await endProcesses([identity], 0);
        throw new RingsteadError("daemon-failed", "the front of a disk does not answer");
      }
      await sleep(POLL_MS);
    }
  }

  /** One that wrote its pid listens already. */
  static async #asked(files: FrontFiles): Promise<DiskFront | undefined> {
    const identity = runningAt(files);
    if (identity === undefined) return undefined;
    try {
      return new DiskFront(files, identity, await FrontControl.connected(files.control));
    } catch (error) {
      if (codeOf(error) !== "daemon-lost") throw error;
      return undefined;
    }
  }

  /** Resolves once it is gone. */
  get closed(): Promise<void> {
    return this.#control.closed;
  }

  /** Whether it runs and can be asked; one that is given up because it did not answer may run all the same. */
  get isOpen(): boolean {
    return this.#control.isOpen && isRunning(this.identity);
  }

  /** How long the file is. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Opens the volume and shows it, where it does not yet. Requires: its daemon serves `exportName`. */
  async show(what: Omit<ShowRequest, "do">): Promise<void> {
    const { disk, log } = this.#files;
    if (!isMounted(disk)) writeFileSync(disk, "", { mode: 0o600 });
    this.#sizeBytes = (await this.#control.ask({ do: "show", ...what })).sizeBytes;
    boundLog(log);
  }

  /**
   * Everything waits from now on until `letGo`, or until this process ends; what came before is flushed. Errors: "daemon-refused" where what is under way
   * does not end: it is let go then.
   */
  async hold(): Promise<void> {
    await this.#control.ask({ do: "hold" });
  }

  async letGo(): Promise<void> {
    await this.#control.ask({ do: "letGo" });
  }

  /** Resolves once the file has the size; "daemon-lost" where it does not get it. Requires: the volume's daemon serves it with that size. */
  async grow(sizeBytes: number): Promise<void> {
    const deadline = performance.now() + SIZE_LIMIT_MS;
    for (;;) {
      this.#sizeBytes = (await this.#control.ask({ do: "measure" })).sizeBytes;
      if (this.#sizeBytes === sizeBytes) return;
      if (performance.now() > deadline)
        throw new RingsteadError("daemon-lost", `the volume's file does not get ${sizeBytes} bytes long`);
      await sleep(POLL_MS);
    }
  }

  /** Resolves once the volume's daemon has all that the front was answered and keeps. Errors: "daemon-lost", also where that takes too long; "daemon-refused". */
  async settled(): Promise<void> {
    await this.#control.ask({ do: "measure" });
  }

  release(): void {
    this.#control[Symbol.dispose]();
  }

  /** Requires: tgtd does not have it open any more, or does not run. */
  async end(): Promise<void> {
    await endProcesses([this.identity], GRACE_MS);
    this.release();
    for (const path of [this.#files.control, this.#files.pidFile]) rmSync(path, { force: true });
    await unmountDisk(this.#files.disk);
  }
}
