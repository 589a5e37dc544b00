import * as fs from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { codeOf } from "../../common/errors.ts";
import { seededRandom } from "../../common/random.ts";
import { SimulatedDisk } from "../../common/simulation/disk.ts";
import { BodyFiles } from "./body-files.ts";
import { BLOCK_BYTES } from "./body-format.ts";
import { DirectSlots } from "./direct-slots.ts";
import { DeviceFixture, alteredDisk, keyOf, put } from "./engine-fixture.ts";
import { devicePaths } from "./paths.ts";

const SEED = 11n;
const KIB = 1024;
const paths = devicePaths("/device");

/** Bytes of which no two blocks are alike. */
const bytesOf = (length: number, seed: number): Buffer => {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at + 4 <= length; at += 4) bytes.writeUInt32LE((at * 2_654_435_761 + seed) % 2 ** 32, at);
  return bytes;
};

const simulated = async (): Promise<{ disk: SimulatedDisk; files: BodyFiles }> => {
  const disk = new SimulatedDisk();
  await disk.makeFolder("/device");
  await disk.makeFolder("/device/large");
  return { disk, files: new BodyFiles(disk, paths, SEED, 1) };
};

test("a body that comes in pieces of any size is read back in ranges of any place and length", async () => {
  const { files } = await simulated();
  const random = seededRandom(3n);
  for (const pieceLimit of [7000, 64 * KIB, 256 * KIB, 1_500_000]) {
    const whole = bytesOf(1_000_000 + random.below(500_000), pieceLimit);
    const body = await files.stage();
    for (let at = 0; at < whole.length; ) {
      const count = pieceLimit >= 64 * KIB && random.below(2) === 0 ? pieceLimit : 1 + random.below(pieceLimit);
      await body.write(whole.subarray(at, at + count));
      at += count;
    }
    const fileId = files.adopt(body.file, await body.seal());
    expect(Buffer.compare(await files.read(fileId, whole.length, 0, whole.length), whole)).toBe(0);
    for (let count = 0; count < 60; count++) {
      const offset = random.below(whole.length);
      const length = 1 + random.below(Math.min(whole.length - offset, count < 30 ? 100 : 600_000));
      const found = await files.read(fileId, whole.length, offset, length);
      expect(Buffer.compare(found, whole.subarray(offset, offset + length))).toBe(0);
    }
  }
});

test("a range is read without the blocks beside it", async () => {
  const { disk, files } = await simulated();
  const whole = bytesOf(20 * BLOCK_BYTES, 1);
  const body = await files.stage();
  await body.write(whole);
  const fileId = files.adopt(body.file, await body.seal());
  // One byte in each block but the tenth.
  for (let block = 0; block < 20; block++) {
    if (block !== 9) disk.flipBit(paths.body(fileId), 64 + block * (BLOCK_BYTES + 8) + 100);
  }
  const range = [9 * BLOCK_BYTES, BLOCK_BYTES] as const;
  expect(
    Buffer.compare(await files.read(fileId, whole.length, ...range), whole.subarray(range[0], 10 * BLOCK_BYTES)),
  ).toBe(0);
  for (const [offset, length] of [
    [range[0] - 1, 1],
    [range[0], BLOCK_BYTES + 1],
    [0, whole.length],
  ] as const) {
    const failure = await files.read(fileId, whole.length, offset, length).catch(codeOf);
    expect(failure).toBe("body-damaged");
  }
});

test("a superseded body that was read lately is readable until nobody has read it for some time, and holds up nobody who needs its space", async () => {
  const { disk } = await simulated();
  let nowMs = 0;
  let due: (() => void)[] = [];
  const timer = { nowMs: () => nowMs, after: (_delayMs: number, run: () => void) => void due.push(run) };
  let reservedBytes = 0;
  const files = new BodyFiles(
    alteredDisk(disk, { freeBytes: async () => (reservedBytes === 0 ? 2 ** 40 : 0) }),
    paths,
    SEED,
    1,
    1,
    timer,
  );
  const whole = bytesOf(3 * BLOCK_BYTES, 5);
  const stored = async (): Promise<number> => {
    const body = await files.stage();
    await body.write(whole);
    return files.adopt(body.file, await body.seal());
  };
  const isReadable = (fileId: number): Promise<boolean> =>
    files.read(fileId, whole.length, BLOCK_BYTES, 100).then(
      (bytes) => Buffer.compare(bytes, whole.subarray(BLOCK_BYTES, BLOCK_BYTES + 100)) === 0,
      (error: unknown) => (codeOf(error) === "body-gone" ? false : Promise.reject(error)),
    );
  const pass = (ms: number): void => {
    nowMs += ms;
    const running = due;
    due = [];
    for (const run of running) run();
  };
  const [begun, unread, forgotten] = [await stored(), await stored(), await stored()];
  expect(await isReadable(begun)).toBe(true);
  expect(await isReadable(forgotten)).toBe(true);
  for (const fileId of [begun, unread, forgotten]) {
    files.supersede(fileId);
    await files.remove(fileId);
  }
  expect(files.looseFiles()).toEqual([]);
  expect(await isReadable(unread)).toBe(false);
  for (let count = 0; count < 5; count++) {
    pass(20_000);
    expect(await isReadable(begun)).toBe(true);
  }
  expect(await isReadable(forgotten)).toBe(false);
  pass(40_000);
  expect(await isReadable(begun)).toBe(false);

  const last = await stored();
  expect(await isReadable(last)).toBe(true);
  files.supersede(last);
  await files.remove(last);
  reservedBytes = 1;
  // Looked at after so many bytes; the space of who reads is given up before anybody is refused.
  for (let count = 0; count < 1000 && (await isReadable(last)); count++) await stored().catch(() => {});
  expect(await isReadable(last)).toBe(false);
});

test("bodies whose clients send nothing hold up nobody, however many they are", async () => {
  const { disk: inner } = await simulated();
  let taken = 0;
  const directMemory = (bytes: number): Uint8Array => {
    taken += bytes;
    return inner.directMemory(bytes);
  };
  const files = new BodyFiles(alteredDisk(inner, { directMemory }), paths, SEED, 1);
  const whole = bytesOf(700_000, 2);
  const bodies = await Promise.all(Array.from({ length: 200 }, () => files.stage()));
  await Promise.all(bodies.map((body) => body.write(whole.subarray(0, 300_000))));
  const last = await files.stage();
  await last.write(whole);
  const lastId = files.adopt(last.file, await last.seal());
  expect(Buffer.compare(await files.read(lastId, whole.length, 0, whole.length), whole)).toBe(0);
  await Promise.all(bodies.map((body) => body.write(whole.subarray(300_000))));
  const ids = await Promise.all(bodies.map(async (body) => files.adopt(body.file, await body.seal())));
  const found = await Promise.all(ids.map((fileId) => files.read(fileId, whole.length, 0, whole.length)));
  for (const bytes of found) expect(Buffer.compare(bytes, whole)).toBe(0);
  expect(taken).toBeLessThan(5 * 1024 * KIB);
});

test("a failed write or sync of a body is final, and what it held goes back: slots and the open file", async () => {
  const { disk: inner } = await simulated();
  let fails: "write" | "sync" | undefined;
  let openFiles = 0;
  const broken = (): Promise<void> => Promise.reject(Object.assign(new Error("EIO: i/o error"), { code: "EIO" }));
  const disk = alteredDisk(inner, {
    open: async (path, mode) => {
      const file = await inner.open(path, mode);
      const write = (bytes: Uint8Array, at: number): Promise<void> =>
        fails === "write" ? broken() : file.write(bytes, at);
      const sync = (): Promise<void> => (fails === "sync" ? broken() : file.sync());
      const close = async (): Promise<void> => {
        openFiles--;
        await file.close();
      };
      openFiles++;
      return { ...file, write, sync, close };
    },
  });
  const files = new BodyFiles(disk, paths, SEED, 1);
  const piece = bytesOf(256 * KIB, 4);
  for (const kind of ["write", "sync"] as const) {
    // More often than there are slots.
    for (let round = 0; round < 18; round++) {
      const body = await files.stage();
      await body.write(piece);
      fails = kind;
      await body.write(piece);
      if (kind === "write") await expect(body.write(piece)).rejects.toThrow("EIO");
      else for (let count = 0; count < 40; count++) await body.write(piece).catch(() => {});
      fails = undefined;
      await expect(body.seal()).rejects.toThrow("EIO");
      await body.abandon();
    }
  }
  const body = await files.stage();
  await body.write(piece);
  expect(await body.seal()).toBe(piece.length);
  expect(openFiles).toBe(0);
});

test("a file is padded to whole units, and read as well without the padding", async () => {
  await using fixture = new DeviceFixture();
  const device = await fixture.open();
  const whole = bytesOf(200_001, 6);
  const staged = await device.stage();
  await staged.write(whole);
  await put(device, "big", "1", { kind: "staged", file: staged.file, length: await staged.seal() });
  const path = join(fixture.path, "large", staged.file);
  const bytes = fs.readFileSync(path);
  const end = 64 + whole.length + 4 * 8;
  expect(bytes.length).toBe(Math.ceil(end / 4096) * 4096);
  expect(bytes.subarray(end).every((byte) => byte === 0)).toBe(true);
  fs.truncateSync(path, end);
  const { body } = device.get(keyOf("big"))!;
  expect(Buffer.compare(await device.readBody(body, 0, whole.length), whole)).toBe(0);
  fs.truncateSync(path, end - 1);
  expect(await device.readBody(body, whole.length - 1, 1).catch(codeOf)).toBe("body-damaged");
});

test("slots are lent to whoever waits longest", async () => {
  const slots = new DirectSlots(new SimulatedDisk(), 8192, 2);
  const first = await slots.take();
  const second = await slots.take();
  expect(new Set([first, second].map(({ bytes }) => bytes.byteOffset))).toEqual(new Set([0, 8192]));
  const order: string[] = [];
  const waiting = ["a", "b"].map(async (name) => {
    const slot = await slots.take();
    order.push(name);
    return slot;
  });
  slots.give(second);
  expect(await waiting[0]).toBe(second);
  slots.give(first);
  expect(await waiting[1]).toBe(first);
  expect(order).toEqual(["a", "b"]);
});
