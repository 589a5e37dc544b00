import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, closeSync, constants, copyFileSync, mkdirSync, openSync, statSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

const run = promisify(execFile);
const START_LIMIT_MS = 10_000;
const STOP_LIMIT_MS = 5_000;
const TOOLS = ["/usr/bin/qemu-storage-daemon", "/usr/sbin/mkfs.ext4", "/usr/sbin/losetup"];

/** Why this machine cannot cut the power of a file system; undefined where it can. */
export const whyNoLoggedDisk = (): string | undefined => {
  if (process.getuid?.() !== 0) return "mounting needs root";
  const missing = ["/dev/fuse", "/dev/loop-control", ...TOOLS].filter((path) => !isThere(path));
  return missing.length === 0 ? undefined : `there is no ${missing.join(", ")}`;
};

const isThere = (path: string): boolean => {
  try {
    accessSync(path, constants.R_OK);
    return true;
  } catch {
    return false;
  }
};

const makeEmpty = (path: string, bytes: number): void => {
  closeSync(openSync(path, "wx"));
  truncateSync(path, bytes);
};

/**
 * Mounts a file with a file system in it until disposed. Mounting replays the file system's journal. One that is thrown away afterwards
 * needs no flushes.
 */
export const mountFile = async (
  file: string,
  folder: string,
  flushes: "flushed" | "unflushed",
): Promise<AsyncDisposable> => {
  await using held = new AsyncDisposableStack();
  const device = (await run("losetup", ["--find", "--show", file])).stdout.trim();
  held.defer(async () => {
    await run("losetup", ["--detach", device]);
  });
  mkdirSync(folder, { recursive: true });
  // Discards would reach the disk beneath as holes; the log of writes is easier to trust without them.
  const barrier = flushes === "flushed" ? 1 : 0;
  await run("mount", ["-t", "ext4", "-o", `nodiscard,barrier=${barrier}`, device, folder]);
  held.defer(async () => {
    await run("umount", [folder]);
  });
  return held.move();
};

/**
 * A mounted ext4 whose every write and flush is logged:
 *
 *     ext4 ─ loop device ─ FUSE file ─ qemu-storage-daemon: blklogwrites ─┬─ disk
 *                                                                         └─ log of writes
 *
 * `base` is the disk as it was before the first logged write.
 */
export class LoggedDisk implements AsyncDisposable {
  readonly base: string;
  readonly log: string;
  readonly folder: string;
  #held = new AsyncDisposableStack();

  private constructor(parent: string) {
    this.base = join(parent, "base");
    this.log = join(parent, "writes");
    this.folder = join(parent, "mounted");
  }

  static async make(parent: string, bytes: number): Promise<LoggedDisk> {
    await using held = new AsyncDisposableStack();
    const disk = new LoggedDisk(parent);
    const [raw, exported] = [join(parent, "disk"), join(parent, "exported")];
    makeEmpty(disk.base, bytes);
    // Blocks as on a real device; by itself mkfs would take smaller ones for so small a disk.
    const layout = ["-b", "4096", "-O", "has_journal", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
    await run("mkfs.ext4", ["-q", ...layout, disk.base]);
    copyFileSync(disk.base, raw);
    makeEmpty(disk.log, 0);
    makeEmpty(exported, 0);
    const daemon = spawn("qemu-storage-daemon", daemonArguments(raw, disk.log, exported), {
      stdio: ["ignore", "ignore", "pipe"],
    });
    let complaint = "";
    daemon.stderr.setEncoding("utf8").on("data", (text: string) => {
      complaint += text;
    });
    held.defer(() => stopDaemon(daemon, exported));
    const startedMs = performance.now();
    while (statSync(exported).size !== bytes) {
      if (daemon.exitCode !== null) throw new Error(`qemu-storage-daemon: ${complaint}`);
      if (performance.now() - startedMs > START_LIMIT_MS) throw new Error("qemu-storage-daemon exports nothing");
      await sleep(10);
    }
    held.use(await mountFile(exported, disk.folder, "flushed"));
    disk.#held = held.move();
    return disk;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#held[Symbol.asyncDispose]();
  }
}

/** The host's own flushes are left out: its power stays on, and the log says where they would be. */
const daemonArguments = (raw: string, log: string, exported: string): string[] => {
  const file = (name: string, path: string): string =>
    `driver=file,node-name=${name},filename=${path},cache.no-flush=on`;
  return [
    ["--blockdev", file("disk-file", raw)],
    ["--blockdev", "driver=raw,node-name=disk,file=disk-file"],
    ["--blockdev", file("log-file", log)],
    ["--blockdev", "driver=raw,node-name=log,file=log-file"],
    ["--blockdev", "driver=blklogwrites,node-name=logged,file=disk,log=log,log-sector-size=512"],
    ["--export", `type=fuse,id=logged,node-name=logged,mountpoint=${exported},writable=on`],
  ].flat();
};

const stopDaemon = async (daemon: ChildProcess, exported: string): Promise<void> => {
  if (daemon.exitCode !== null || daemon.signalCode !== null) return;
  const ended = once(daemon, "exit");
  daemon.kill("SIGTERM");
  if ((await Promise.race([ended, sleep(STOP_LIMIT_MS)])) !== undefined) return;
  daemon.kill("SIGKILL");
  await ended;
  // It had no time to take its mount along.
  await run("umount", ["--lazy", exported]).catch(() => {});
};
