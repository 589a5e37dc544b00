import { execFile, type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { sleep } from "../../common/worker.ts";

const run = promisify(execFile);
const OUTPUT_LIMIT_BYTES = 256 * 1024 * 1024;
const RINGSTEAD = join(import.meta.dirname, "..", "..", "scripts", "ringstead.ts");

/** What takes a second may take minutes, on an emulated machine beside other tests. */
export const GUEST_LIMIT_MS = 600_000;

/** Runs a program and resolves with what it printed. */
export const command = async (program: string, ...words: readonly string[]): Promise<string> =>
  (await run(program, [...words], { maxBuffer: OUTPUT_LIMIT_BYTES })).stdout;

/** `ringstead volume …` on the installation in that folder. */
export const volumeCommand = async (folder: string, ...words: readonly string[]): Promise<string> =>
  (await command(process.execPath, RINGSTEAD, "volume", ...words, "--data", folder)).trim();

export const sizeOfDisk = async (disk: string): Promise<number> =>
  Number(await command("blockdev", "--getsize64", disk));

/** What is on the disk itself, past the page cache. */
export const bytesOfDisk = async (disk: string, sizeBytes: number): Promise<Buffer> => {
  const words = [`if=${disk}`, "bs=1M", `count=${sizeBytes / 1024 / 1024}`, "iflag=direct", "status=none"];
  return (await run("dd", words, { encoding: "buffer", maxBuffer: OUTPUT_LIMIT_BYTES })).stdout;
};

/** Writes the file to the disk from its beginning, past the page cache, and flushes. */
export const writeToDisk = async (disk: string, file: string): Promise<void> => {
  await command("dd", `if=${file}`, `of=${disk}`, "bs=1M", "oflag=direct", "conv=fsync", "status=none");
};

/** A daemon that Debian starts by itself, and nobody in a guest. Of a session of its own: some end their whole process group. */
class SystemDaemon implements AsyncDisposable {
  readonly #child: ChildProcess;

  constructor(program: string, ...words: readonly string[]) {
    this.#child = spawn(program, [...words], { stdio: "ignore", detached: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, "exit");
    this.#child.kill("SIGTERM");
    await ended;
  }
}

/** The daemon of Debian's open-iscsi. */
export const startInitiator = (): AsyncDisposable => new SystemDaemon("iscsid", "--foreground");

/** udev, for programs that look for disks by what they are: `/dev/disk`. */
export const startUdev = async (): Promise<AsyncDisposable> => {
  const daemon = new SystemDaemon("/lib/systemd/systemd-udevd");
  while (!existsSync("/run/udev/control")) await sleep(20);
  await command("udevadm", "trigger", "--settle");
  return daemon;
};
