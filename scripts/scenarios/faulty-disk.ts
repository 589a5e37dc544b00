import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, realpathSync, statSync, writeFileSync } from "node:fs";
import { createConnection, type Socket } from "node:net";
import { basename, join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { sleep } from "../../common/worker.ts";
import { whyNoLoggedDisk } from "../../storage-node/scenarios/logged-disk.ts";
import { checkImage, makeImage, mountImage } from "./small-disk.ts";

const run = promisify(execFile);
const START_LIMIT_MS = 10_000;

/** Why this machine has no disk that fails on demand; undefined where it has. */
export const whyNoFaultyDisk = whyNoLoggedDisk;

/** What the disk answers with an I/O error: EIO. */
export type Fault = "read" | "write" | "flush";

/** Talks to qemu-storage-daemon. */
class Monitor {
  readonly #socket: Socket;
  readonly #lines: AsyncIterator<string>;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#lines = createInterface({ input: socket })[Symbol.asyncIterator]();
  }

  static async connect(path: string): Promise<Monitor> {
    const socket = createConnection({ path });
    await once(socket, "connect");
    const monitor = new Monitor(socket);
    await monitor.#lines.next();
    await monitor.run("qmp_capabilities");
    return monitor;
  }

  async run(command: string, parameters: Readonly<Record<string, unknown>> = {}): Promise<void> {
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: parameters })}\n`);
    for (;;) {
      const { value, done } = await this.#lines.next();
      if (done === true) throw new Error(`qemu-storage-daemon ended at ${command}`);
      const answer = JSON.parse(value) as { error?: { desc: string }; return?: unknown };
      if (answer.error !== undefined) throw new Error(`${command}: ${answer.error.desc}`);
      if (answer.return !== undefined) return;
    }
  }

  close(): void {
    this.#socket.destroy();
  }
}

/**
 * A small ext4 whose disk fails on demand:
 *
 *     ext4 ─ loop device ─ FUSE file ─ qemu-storage-daemon: raw ─┬─ file
 *                                                                └─ blkdebug ─ file, while it fails
 *
 * (Device-mapper's `error` and `flakey` targets would do the same; not every kernel has them.)
 */
export class FaultyDisk implements AsyncDisposable {
  readonly folder: string;
  readonly #image: string;
  readonly #exported: string;
  readonly #socket: string;
  #daemon: ChildProcess | undefined;
  #monitor: Monitor | undefined;
  #mounted: AsyncDisposable | undefined;
  #faults = 0;

  private constructor(parent: string, name: string) {
    this.folder = join(parent, name);
    this.#image = join(parent, `${name}.image`);
    this.#exported = join(parent, `${name}.exported`);
    this.#socket = join(parent, `${name}.monitor`);
  }

  static async make(parent: string, name: string, bytes: number): Promise<FaultyDisk> {
    const disk = new FaultyDisk(parent, name);
    await makeImage(disk.#image, bytes);
    writeFileSync(disk.#exported, "");
    try {
      await disk.#start(bytes);
    } catch (error) {
      await disk[Symbol.asyncDispose]();
      throw error;
    }
    return disk;
  }

  async #start(bytes: number): Promise<void> {
    const daemon = spawn(
      "qemu-storage-daemon",
      [
        ["--blockdev", `driver=file,node-name=file,filename=${this.#image},cache.no-flush=on`],
        ["--blockdev", "driver=raw,node-name=disk,file=file"],
        ["--export", `type=fuse,id=disk,node-name=disk,mountpoint=${this.#exported},writable=on`],
        ["--chardev", `socket,id=monitor,path=${this.#socket},server=on,wait=off`],
        ["--monitor", "chardev=monitor"],
      ].flat(),
      { stdio: ["ignore", "ignore", "pipe"] },
    );
    this.#daemon = daemon;
    let complaint = "";
    daemon.stderr.setEncoding("utf8").on("data", (text: string) => {
      complaint += text;
    });
    const startedMs = performance.now();
    while (statSync(this.#exported).size !== bytes) {
      if (daemon.exitCode !== null) throw new Error(`qemu-storage-daemon: ${complaint}`);
      if (performance.now() - startedMs > START_LIMIT_MS) throw new Error("qemu-storage-daemon exports nothing");
      await sleep(10);
    }
    this.#monitor = await Monitor.connect(this.#socket);
    this.#mounted = await mountImage(this.#exported, this.folder);
  }

  /** From now on these fail, all over the disk. */
  async fail(...faults: readonly Fault[]): Promise<void> {
    const name = `faulty${++this.#faults}`;
    const rules = faults.map((iotype) => ({ event: "none", iotype, errno: 5 }));
    const node = { driver: "blkdebug", "node-name": name, image: "file", "inject-error": rules };
    await this.#monitor?.run("blockdev-add", node);
    await this.#use(name);
  }

  /** From now on it answers nothing, and what it is asked waits. */
  freeze(): void {
    this.#daemon?.kill("SIGSTOP");
  }

  /** It answers again, also what it was asked meanwhile. */
  thaw(): void {
    this.#daemon?.kill("SIGCONT");
  }

  /** The disk is well again; its file system may not be. Not for one that fails to flush, which would have to flush for that. */
  async heal(): Promise<void> {
    await this.#use("file");
  }

  async #use(file: string): Promise<void> {
    await this.#monitor?.run("blockdev-reopen", { options: [{ driver: "raw", "node-name": "disk", file }] });
  }

  /** Drops what the kernel keeps of the disk in memory, so that reads reach it. */
  async forget(): Promise<void> {
    const { dev } = statSync(this.folder);
    const loop = `/dev/${basename(realpathSync(`/sys/dev/block/${dev >> 8}:${dev & 255}`))}`;
    const files = readdirSync(this.folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name));
    for (const path of [...files, loop, this.#exported])
      await run("dd", [`if=${path}`, "iflag=nocache", "count=0", "status=none"]);
  }

  /** Another disk with the same content, checked and mounted anew. Requires: nobody uses it. */
  async repair(): Promise<void> {
    const { size } = statSync(this.#exported);
    await this.#stop();
    await checkImage(this.#image);
    await this.#start(size);
  }

  async #stop(): Promise<void> {
    this.thaw();
    await this.#mounted?.[Symbol.asyncDispose]();
    this.#mounted = undefined;
    this.#monitor?.close();
    const daemon = this.#daemon;
    this.#daemon = undefined;
    if (daemon === undefined || daemon.exitCode !== null || daemon.signalCode !== null) return;
    const ended = once(daemon, "exit");
    // A faulty disk cannot be flushed, and the file beneath needs it not.
    daemon.kill("SIGKILL");
    await ended;
    // It had no time to take its mount along.
    await run("umount", ["--lazy", this.#exported]).catch(() => {});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stop();
  }
}
