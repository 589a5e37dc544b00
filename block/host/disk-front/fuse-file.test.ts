import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";
import { RingsteadError } from "../../../common/errors.ts";
import { type FileContent, FuseFile } from "./fuse-file.ts";
import { ERROR } from "./fuse-protocol.ts";

/*
 * A file on the kernel of this machine, used by other processes: one that waited for its own file in the thread pool, beside the threads that read what
 * the kernel asks, could wait for ever.
 */
const KIB = 1024;
const SIZE = 1024 * KIB;
const TRANSFER_LIMIT = 256 * KIB;
const run = promisify(execFile);

class Memory implements FileContent {
  readonly bytes = Buffer.alloc(SIZE);
  readonly sizeBytes = SIZE;
  readonly asked: string[] = [];
  failure: Error | undefined;

  async read(offset: number, length: number): Promise<readonly Buffer[]> {
    if (this.failure !== undefined) throw this.failure;
    expect(length).toBeLessThanOrEqual(TRANSFER_LIMIT);
    const half = offset + Math.floor(length / 2);
    return [this.bytes.subarray(offset, half), this.bytes.subarray(half, offset + length)];
  }

  async write(offset: number, bytes: Buffer): Promise<void> {
    if (this.failure !== undefined) throw this.failure;
    expect(bytes.length).toBeLessThanOrEqual(TRANSFER_LIMIT);
    // What comes in is kept for a while, as a volume whose daemon is away has it, and stays what it is.
    await new Promise((resolve) => setImmediate(resolve));
    bytes.copy(this.bytes, offset);
  }

  async zero(offset: number, length: number): Promise<void> {
    this.asked.push(`zero ${offset} ${length}`);
    this.bytes.fill(0, offset, offset + length);
  }

  async flush(): Promise<void> {
    if (this.failure !== undefined) throw this.failure;
    this.asked.push("flush");
  }
}

const mounted = async (content: FileContent) => {
  const folder = mkdtempSync(join(tmpdir(), "rs-fuse-"));
  const path = join(folder, "disk");
  writeFileSync(path, "");
  const file = await FuseFile.mounted(path, content);
  onTestFinished(async () => {
    // It may be unmounted already.
    await file.unmount().catch(() => undefined);
    await file.closed;
    rmSync(folder, { recursive: true });
  });
  return { folder, path, file };
};

test("a file is as long as its content, and other processes write, read, zero and flush it", async () => {
  const content = new Memory();
  const { folder, path } = await mounted(content);
  expect((await run("stat", ["--format=%s", path])).stdout.trim()).toBe(String(SIZE));
  const bytes = randomBytes(SIZE);
  writeFileSync(join(folder, "source"), bytes);
  await run("dd", [`if=${folder}/source`, `of=${path}`, "bs=1M", "conv=notrunc,fsync"]);
  expect(content.bytes.equals(bytes)).toBe(true);
  expect(content.asked).toEqual(["flush"]);
  await run("fallocate", ["--punch-hole", "--offset", "4096", "--length", "8192", path]);
  await run("fallocate", ["--zero-range", "--keep-size", "--offset", "512", "--length", "512", path]);
  // The program flushes of itself.
  expect(content.asked.slice(1)).toEqual(["zero 4096 8192", "flush", "zero 512 512", "flush"]);
  await run("dd", [`if=${path}`, `of=${folder}/back`, "bs=1M"]);
  bytes.fill(0, 4096, 4096 + 8192).fill(0, 512, 1024);
  expect(readFileSync(`${folder}/back`).equals(bytes)).toBe(true);
});

test("what fails fails with its own error, or else with an I/O error, and the file goes on", async () => {
  const content = new Memory();
  const { folder, path } = await mounted(content);
  writeFileSync(join(folder, "source"), Buffer.alloc(4 * KIB, 7));
  const write = () => run("dd", [`if=${folder}/source`, `of=${path}`, "bs=4k", "conv=notrunc"]);
  content.failure = new RingsteadError("daemon-refused", "it is full", { errorNumber: ERROR.noSpace });
  await expect(write()).rejects.toThrow("No space left on device");
  content.failure = new RingsteadError("daemon-refused", "it says something odd", { errorNumber: 100_000 });
  await expect(write()).rejects.toThrow("Input/output error");
  content.failure = new Error("whatever");
  await expect(run("dd", [`if=${path}`, "of=/dev/null", "bs=4k", "count=1"])).rejects.toThrow("Input/output error");
  await expect(run("sync", [path])).rejects.toThrow("Input/output error");
  content.failure = undefined;
  await expect(run("truncate", ["--size=1", path])).rejects.toThrow("Invalid argument");
  await expect(run("fallocate", ["--collapse-range", "--length", "4096", path])).rejects.toThrow("not supported");
  await write();
  expect(content.bytes[4 * KIB - 1]).toBe(7);
});

test("requests are done side by side: one that waits keeps no other one waiting", async () => {
  const content = new Memory();
  const { promise, resolve } = Promise.withResolvers<void>();
  const read = content.read.bind(content);
  content.read = async (offset, length) => {
    if (offset === 0) await promise;
    return read(offset, length);
  };
  const { path } = await mounted(content);
  const first = run("dd", [`if=${path}`, "of=/dev/null", "bs=4k", "count=1"]);
  await run("dd", [`if=${path}`, "of=/dev/null", "bs=4k", "skip=1", "count=1"]);
  resolve();
  await first;
});

test("an unmounted file is closed once nobody has it open", async () => {
  const content = new Memory();
  const { path, file } = await mounted(content);
  await file.unmount();
  await file.closed;
  expect(readFileSync(path).length).toBe(0);
});
