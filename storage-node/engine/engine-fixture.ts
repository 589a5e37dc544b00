import { closeSync, cpSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import type { Disk } from "../../common/disk.ts";
import { xxh64 } from "../../common/hash.ts";
import { RingsteadError } from "../../common/errors.ts";
import type { DeviceEngine, NewBody } from "./device-engine.ts";
import { type DigestScheme, DigestTable } from "./digest-table.ts";
import { type DeviceParts, openDevice } from "./open-device.ts";

export const identity = { clusterId: "cluster", node: "node1", device: "d1" };

/** Counts every entry, in a bucket for each first byte of its key. */
export const digests: DigestScheme = {
  id: 1n,
  bucketCount: 256,
  groupSize: 16,
  bucketOf: (key) => key[0] ?? -1,
  digestOf: (key, value) => BigInt.asUintN(64, xxh64(key) + xxh64(value, 1n)),
  firstKeyOf: (group) => (group < 16 ? Buffer.of(group * 16) : Buffer.alloc(5, 0xff)),
};

/** What the digests of a device have to be: counted from its entries. Requires: nothing is written meanwhile, and at most 10,000 entries. */
export const expectRightDigests = async (device: DeviceEngine): Promise<void> => {
  while (!device.digests.isCertain) await new Promise((resolve) => setImmediate(resolve));
  const { scheme, sums, counts } = device.digests;
  const counted = new DigestTable(scheme);
  for (const { key, value } of await device.scan({ gte: Buffer.of(0), lt: Buffer.alloc(5, 0xff), limit: 10_000 })) {
    const bucket = scheme.bucketOf(key);
    if (bucket >= 0) counted.replace(bucket, undefined, scheme.digestOf(key, value));
  }
  const different = [...sums.keys()].filter((at) => sums[at] !== counted.sums[at] || counts[at] !== counted.counts[at]);
  expect(different, "buckets that are not what the entries add up to").toEqual([]);
};

/** Small segments, so that tests see many of them. */
export const smallParts: Partial<DeviceParts> = {
  segmentBytes: 1024 * 1024,
  checkpointBytes: 1024 * 1024,
  reservedBytes: 0,
};

/** A device folder of a test, removed with everything in it. */
export class DeviceFixture implements AsyncDisposable {
  readonly path = join(mkdtempSync(join(tmpdir(), "ringstead-device-")), "d1");
  #device: DeviceEngine | undefined;

  async open(parts: Partial<DeviceParts> = smallParts): Promise<DeviceEngine> {
    this.#device = await openDevice({ path: this.path, identity, digests }, parts);
    return this.#device;
  }

  async close(): Promise<void> {
    await this.#device?.[Symbol.asyncDispose]();
    this.#device = undefined;
  }

  async reopen(parts: Partial<DeviceParts> = smallParts): Promise<DeviceEngine> {
    await this.close();
    return this.open(parts);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
    rmSync(join(this.path, ".."), { recursive: true, force: true });
  }
}

/** The code of the error that a promise ends with, "none" where it ends well; any other error fails the test. */
export const codeOfFailure = async (doing: Promise<unknown>): Promise<string> => {
  try {
    await doing;
  } catch (error) {
    if (error instanceof RingsteadError) return error.code;
    throw error;
  }
  return "none";
};

/** Log files of segments in use, in order of their numbers. */
export const logFiles = (fixture: DeviceFixture): { name: string; path: string; number: number }[] => {
  const folder = join(fixture.path, "log");
  return readdirSync(folder)
    .filter((name) => name.endsWith(".log"))
    .map((name) => {
      const path = join(folder, name);
      return { name, path, number: readFileSync(path).readUInt32LE(24) };
    })
    .filter(({ number }) => number > 0)
    .toSorted((left, right) => left.number - right.number);
};

export const overwrite = (path: string, offset: number, bytes: Uint8Array): void => {
  const descriptor = openSync(path, "r+");
  writeSync(descriptor, bytes, 0, bytes.length, offset);
  closeSync(descriptor);
};

/** The folder as a power loss would leave it, the device still open: a copy of it without the lock. */
export const crashed = (fixture: DeviceFixture): DeviceFixture => {
  const copy = new DeviceFixture();
  cpSync(fixture.path, copy.path, { recursive: true });
  return copy;
};

/** A disk of which something is replaced. */
export const alteredDisk = (inner: Disk, changes: Partial<Disk>): Disk => ({
  kindOf: (path) => inner.kindOf(path),
  makeFolder: (path) => inner.makeFolder(path),
  list: (path) => inner.list(path),
  rename: (from, to) => inner.rename(from, to),
  unlink: (path) => inner.unlink(path),
  syncFolder: (path) => inner.syncFolder(path),
  freeBytes: (path) => inner.freeBytes(path),
  directMemory: (bytes) => inner.directMemory(bytes),
  open: (path, mode) => inner.open(path, mode),
  ...changes,
});

export const keyOf = (name: string): Uint8Array => Buffer.from(name);

/** Puts a value, and a body of bytes where one is given. */
export const put = (
  device: DeviceEngine,
  name: string,
  value: string,
  body?: string | Uint8Array | NewBody,
): Promise<void> => {
  const newBody = (): NewBody => {
    if (body === undefined) return { kind: "none" };
    if (typeof body === "string") return { kind: "bytes", bytes: Buffer.from(body) };
    return body instanceof Uint8Array ? { kind: "bytes", bytes: body } : body;
  };
  return device.apply([{ kind: "put", key: keyOf(name), value: Buffer.from(value), body: newBody() }]);
};

export const remove = (device: DeviceEngine, name: string): Promise<void> =>
  device.apply([{ kind: "delete", key: keyOf(name) }]);

/** The key's value as text, undefined when absent. */
export const valueAt = (device: DeviceEngine, name: string): string | undefined => {
  const entry = device.get(keyOf(name));
  return entry === undefined ? undefined : Buffer.from(entry.value).toString();
};

/** The key's whole body as text. */
export const bodyAt = async (device: DeviceEngine, name: string): Promise<string> => {
  const entry = device.get(keyOf(name));
  if (entry === undefined) throw new Error(`${name} is absent`);
  const length = entry.body.kind === "none" ? 0 : entry.body.length;
  return Buffer.from(await device.readBody(entry.body, 0, length)).toString();
};

/** All keys of a device as text. */
export const namesIn = async (
  device: DeviceEngine,
  options: { reverse?: boolean; limit?: number } = {},
): Promise<string[]> => {
  const range = { gte: Buffer.from([0]), lt: Buffer.from([255]), limit: options.limit ?? 10_000 };
  const found = await device.scan({ ...range, reverse: options.reverse ?? false });
  return found.map(({ key }) => Buffer.from(key).toString());
};
