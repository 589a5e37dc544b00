import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { beforeAll, expect, onTestFinished, test } from "vitest";
import { sleep } from "../../common/worker.ts";
import { HostProcess } from "../host/scenarios/host-process.ts";
import {
  bytesOfDisk,
  command,
  GUEST_LIMIT_MS,
  sizeOfDisk,
  startInitiator,
  volumeCommand,
  writeToDisk,
} from "./guest-commands.ts";

const MIB = 1024 * 1024;
const SNAPSHOT = "00000000-0000-4000-8000-000000000001";

/** Writes blocks that say where they are and which write they are of, and reads each back, until a file is there; then says what it saw. */
const WRITER = `
import os, sys, mmap
disk, blocks = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT | os.O_SYNC), int(sys.argv[2])
written, read = mmap.mmap(-1, 4096), mmap.mmap(-1, 4096)
count = wrong = 0
while not os.path.exists(sys.argv[3]):
    count += 1
    place = count * 7 % blocks * 4096
    written.seek(0); written.write(b"%016d%016d" % (place, count) * 128)
    os.pwrite(disk, written, place)
    os.preadv(disk, [read], place)
    wrong += read[:] != written[:]
    print(count, wrong, flush=True)
`;
/** Enough for a write to be under way at whatever happens next. */
const WRITES_BETWEEN = 40;

beforeAll(async () => {
  const daemon = startInitiator();
  await command("modprobe", "nbd");
  return () => daemon[Symbol.asyncDispose]();
});

const startHost = async (): Promise<HostProcess> => {
  const process = new HostProcess(GUEST_LIMIT_MS);
  onTestFinished(() => process[Symbol.asyncDispose]());
  await process.start();
  return process;
};

const newFolder = (): string => {
  const folder = mkdtempSync(join(tmpdir(), "rs-disk-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  return folder;
};

const newBytes = (sizeBytes: number): { readonly bytes: Buffer; readonly file: string } => {
  const bytes = randomBytes(sizeBytes);
  const file = join(newFolder(), "bytes");
  writeFileSync(file, bytes);
  return { bytes, file };
};

type Progress = { readonly count: number; readonly wrong: number };

/** Verified work on a disk. */
class Work {
  readonly #stop = join(newFolder(), "stop");
  readonly #ended: Promise<void>;
  #last: Progress = { count: 0, wrong: 0 };
  #complaint = "";
  #hasEnded = false;

  constructor(disk: string, blocks: number) {
    const words = ["-c", WRITER, disk, String(blocks), this.#stop];
    const child = spawn("python3", words, { stdio: ["ignore", "pipe", "pipe"] });
    createInterface(child.stdout).on("line", (line) => {
      const [count = 0, wrong = 0] = line.split(" ").map(Number);
      this.#last = { count, wrong };
    });
    child.stderr.on("data", (chunk: Buffer) => (this.#complaint += chunk.toString()));
    this.#ended = once(child, "close").then(() => {
      this.#hasEnded = true;
    });
  }

  /** Resolves once some more writes were read back. */
  async goOn(): Promise<void> {
    const { count } = this.#last;
    while (this.#last.count < count + WRITES_BETWEEN) {
      if (this.#hasEnded) throw new Error(`the writer ended: ${this.#complaint}`);
      await sleep(20);
    }
  }

  async end(): Promise<Progress> {
    writeFileSync(this.#stop, "");
    await this.#ended;
    if (this.#complaint !== "") throw new Error(this.#complaint);
    return this.#last;
  }
}

test("where the kernel has device-mapper, volumes are thin logical volumes", async () => {
  const { host } = await startHost();
  expect(await host.pools()).toMatchObject([{ pool: "lvm", driver: "lvm", isThin: true }]);
});

test("a volume is a disk of the kernel over NBD: written with dd, read back, detached", async () => {
  const host = await startHost();
  const volumeId = await host.newVolume(16 * MIB);
  const { bytes, file } = newBytes(8 * MIB);
  const disk = await volumeCommand(host.folder, "attach", volumeId, "--protocol", "nbd");
  expect(disk).toMatch(/^\/dev\/nbd\d+$/);
  expect(await volumeCommand(host.folder, "attach", volumeId, "--protocol", "nbd")).toBe(disk);
  expect(await sizeOfDisk(disk)).toBe(16 * MIB);
  await writeToDisk(disk, file);
  expect((await bytesOfDisk(disk, 8 * MIB)).equals(bytes)).toBe(true);
  await volumeCommand(host.folder, "detach", volumeId);
  expect(await sizeOfDisk(disk)).toBe(0);
  expect(await host.host.exports()).toEqual([]);
  await host.host.extendVolume(volumeId, 24 * MIB);
  const again = await volumeCommand(host.folder, "attach", volumeId, "--protocol", "nbd");
  expect(await sizeOfDisk(again)).toBe(24 * MIB);
  const expected = Buffer.concat([bytes, Buffer.alloc(16 * MIB)]);
  expect((await bytesOfDisk(again, 24 * MIB)).equals(expected)).toBe(true);
  await volumeCommand(host.folder, "detach", volumeId);
});

test("over iSCSI a disk in use waits while its volume's daemon dies, is snapshotted and grows: no error, no byte wrong", async () => {
  const host = await startHost();
  const volumeId = await host.newVolume(32 * MIB);
  const disk = await volumeCommand(host.folder, "attach", volumeId);
  expect(disk).toMatch(/^\/dev\/sd[a-z]+$/);
  expect(await sizeOfDisk(disk)).toBe(32 * MIB);
  const work = new Work(disk, 4096);
  await work.goOn();
  process.kill(await host.daemonOf(volumeId), "SIGKILL");
  await work.goOn();
  await host.host.createSnapshot(volumeId, SNAPSHOT);
  process.kill(await host.daemonOf(volumeId), "SIGKILL");
  await work.goOn();
  process.kill(await host.daemonOf(volumeId), "SIGKILL");
  await work.goOn();
  await host.host.extendVolume(volumeId, 48 * MIB);
  await work.goOn();
  expect(await volumeCommand(host.folder, "attach", volumeId)).toBe(disk);
  expect(await sizeOfDisk(disk)).toBe(48 * MIB);
  await work.goOn();
  expect((await work.end()).wrong).toBe(0);
  const { bytes, file } = newBytes(8 * MIB);
  await writeToDisk(disk, file);
  expect((await bytesOfDisk(disk, 8 * MIB)).equals(bytes)).toBe(true);
  await volumeCommand(host.folder, "detach", volumeId);
  expect(readFileSync("/proc/partitions", "utf8")).not.toContain(disk.slice("/dev/".length));
  expect(await host.host.exports()).toEqual([]);
  await host.host.deleteSnapshot(volumeId, SNAPSHOT);
});

test("a volume that was unexported under its disk is attached anew over iSCSI, with what was flushed", async () => {
  const host = await startHost();
  const volumeId = await host.newVolume(16 * MIB);
  const { bytes, file } = newBytes(4 * MIB);
  await writeToDisk(await volumeCommand(host.folder, "attach", volumeId), file);
  await volumeCommand(host.folder, "unexport", volumeId);
  const disk = await volumeCommand(host.folder, "attach", volumeId);
  expect((await bytesOfDisk(disk, 4 * MIB)).equals(bytes)).toBe(true);
  await writeToDisk(disk, file);
  await volumeCommand(host.folder, "detach", volumeId);
  expect(await host.host.exports()).toEqual([]);
});

test("what the kernel zeroes and discards on a disk over iSCSI upon a snapshot reads as zeros", async () => {
  const host = await startHost();
  const volumeId = await host.newVolume(16 * MIB);
  const disk = await volumeCommand(host.folder, "attach", volumeId);
  const { bytes, file } = newBytes(8 * MIB);
  await writeToDisk(disk, file);
  await host.host.createSnapshot(volumeId, SNAPSHOT);
  for (const [words, offset, length] of [
    [["--zeroout"], MIB, 4096],
    [["--zeroout"], 3 * MIB - 4096, 128 * 1024],
    [[], 5 * MIB, 4096],
  ] as const) {
    await command("blkdiscard", "--force", ...words, "--offset", String(offset), "--length", String(length), disk);
    bytes.fill(0, offset, offset + length);
  }
  expect((await bytesOfDisk(disk, 8 * MIB)).equals(bytes)).toBe(true);
  await volumeCommand(host.folder, "detach", volumeId);
  await host.host.deleteSnapshot(volumeId, SNAPSHOT);
});

test("a file system on a disk over iSCSI gives back what was discarded, and is there again after detaching", async () => {
  const host = await startHost();
  const volumeId = await host.newVolume(128 * MIB);
  const mounted = join(newFolder(), "mounted");
  mkdirSync(mounted);
  const disk = await volumeCommand(host.folder, "attach", volumeId);
  await command("mke2fs", "-q", "-t", "ext4", disk);
  await command("mount", disk, mounted);
  const bytes = randomBytes(24 * MIB);
  writeFileSync(join(mounted, "kept"), bytes.subarray(0, MIB));
  writeFileSync(join(mounted, "removed"), bytes);
  await command("sync", "-f", mounted);
  const freeBytes = async (): Promise<number> => (await host.host.pools())[0]?.freeBytes ?? 0;
  const before = await freeBytes();
  rmSync(join(mounted, "removed"));
  // Blocks are free once the journal says so.
  await command("sync", "-f", mounted);
  await command("fstrim", mounted);
  await command("umount", mounted);
  expect((await freeBytes()) - before).toBeGreaterThan(20 * MIB);
  await volumeCommand(host.folder, "detach", volumeId);
  const again = await volumeCommand(host.folder, "attach", volumeId);
  await command("mount", "-o", "ro", again, mounted);
  const kept = readFileSync(join(mounted, "kept"));
  await command("umount", mounted);
  expect(kept.equals(bytes.subarray(0, MIB))).toBe(true);
  await volumeCommand(host.folder, "detach", volumeId);
});
