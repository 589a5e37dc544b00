import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { messageOf } from "../../common/errors.ts";
import { type Random, seededRandom } from "../../common/random.ts";
import type { DeviceEngine } from "../engine/device-engine.ts";
import { expectRightDigests } from "../engine/engine-fixture.ts";
import { MemoryDevice } from "../engine/memory-device.ts";
import { openDevice } from "../engine/open-device.ts";
import { devicePaths } from "../engine/paths.ts";
import { RowSpace } from "../row-space.ts";
import { decodeCounters } from "../store/counters-format.ts";
import { countersKey } from "../store/keys.ts";
import { type Name, type Row, unpackRows } from "../wire.ts";
import { LoggedDisk, mountFile, whyNoLoggedDisk } from "./logged-disk.ts";
import { type Kind, SCAN_LIMIT, deviceParts, wholeListing } from "./power-loss-load.ts";
import { PromiseBook } from "./promise-book.ts";
import {
  allKeys,
  bodyOf,
  containers,
  DIGESTS,
  identity,
  nameOf,
  rowOf,
  rowSeeds,
  rowTitle,
  storedIn,
  versionOf,
} from "./stored-content.ts";
import { WriteLog } from "./write-log.ts";

const run = promisify(execFile);
const LOAD = fileURLToPath(new URL("power-loss-load.ts", import.meta.url));
/** Flush marks at which the power is cut. `./scripts/test all` asks for more, and gets a longer history. */
const FEW_MARKS = 20;
const MARKS = Number(process.env["POWER_LOSS_MARKS"] ?? FEW_MARKS);
const LIVES: readonly Kind[] = MARKS > FEW_MARKS ? ["brisk", "wide", "brisk"] : ["brisk", "brisk"];
const DISK_BYTES = (MARKS > FEW_MARKS ? 320 : 160) * 1024 * 1024;
const LIFE_MS = MARKS > FEW_MARKS ? 5000 : 2500;
const EARLY_SHARE = 0.1;
/** Every so many marks the index is thrown away after recovery, and the device recovered from its log alone. */
const REBUILD_EVERY = 5;
const DEVICE = "d1";

/** A cut: the disk keeps its first `kept` writes, and of those before `seen`, which nothing flushed any more, some or parts of some. */
type Cut = { readonly kept: number; readonly seen: number };

/** A life of the device in a process of its own, killed after a while. Throws where it ends by itself. */
const live = async (disk: LoggedDisk, book: string, number: number, kind: Kind): Promise<void> => {
  const args = [LOAD, join(disk.folder, DEVICE), book, disk.log, String(number), kind];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "pipe"] });
  const ended = once(child, "exit");
  let complaint = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    complaint += text;
  });
  await Promise.race([ended, sleep(LIFE_MS)]);
  const endedItself = child.exitCode !== null || child.signalCode !== null;
  if (!endedItself) {
    child.kill("SIGKILL");
    await ended;
  }
  if (endedItself) throw new Error(`life ${number} ended: ${complaint}`);
};

/**
 * Cuts at flushes: the first ones while the device is being made, the others spread over the bytes written, so that a life of few large
 * batches gets its share. At every other one the disk's own cache is lost only in part.
 */
const chooseCuts = (log: WriteLog, count: number, random: Random): Cut[] => {
  const marks: { readonly kept: number; readonly bytes: number }[] = [];
  let bytes = 0;
  for (const [index, { length, isFlush }] of log.writes.entries()) {
    bytes += length;
    if (isFlush) marks.push({ kept: index + 1, bytes });
  }
  expect(marks.length).toBeGreaterThan(count);
  const early = Math.floor(count * EARLY_SHARE);
  let at = -1;
  return Array.from({ length: count }, (_, number) => {
    const wanted = number < early ? 0 : ((number - early + random.unit()) * bytes) / (count - early);
    const found = marks.findIndex((mark, index) => index > at && mark.bytes >= wanted);
    // As many marks as there are cuts to come must be left.
    at = Math.min(found < 0 ? marks.length : found, marks.length - (count - number));
    const kept = marks[at]?.kept ?? 0;
    return { kept, seen: number % 2 === 0 ? kept : (marks[at + 1]?.kept ?? kept) };
  });
};

const tearUnflushed = (log: WriteLog, image: string, { kept, seen }: Cut, random: Random): void => {
  const descriptor = openSync(image, "r+");
  for (let index = kept; index < seen; index++) {
    const fate = random.below(3);
    const sectors = (log.writes[index]?.length ?? 0) / log.sectorBytes;
    if (fate === 0) log.redo(index, descriptor);
    else if (fate === 1) log.redo(index, descriptor, random.below(sectors + 1));
  }
  closeSync(descriptor);
};

const summaryOf = async (owner: Name, rows: readonly Row[]): Promise<unknown> => {
  await using device = new MemoryDevice((done) => setImmediate(done));
  const space = new RowSpace(device, rowSeeds);
  for (const row of rows) await space.put(owner, row);
  return space.summary(owner);
};

/** Versions of all rows by title; their statistics must be those of the rows. */
const readRows = async (device: DeviceEngine): Promise<Map<string, number>> => {
  const found = new Map<string, number>();
  const space = new RowSpace(device, rowSeeds);
  for (const owner of containers) {
    const rows = unpackRows(Buffer.concat(await space.list(owner, wholeListing)));
    for (const row of rows) {
      const { payload, bytes, objects } = rowOf(row.name, versionOf(row), row.isDeleted);
      expect({ payload: row.payload.toString(), bytes: row.bytes, objects: row.objects }).toEqual({
        payload: payload.toString(),
        bytes,
        objects,
      });
      expect(found.has(rowTitle(owner, row.name)), "a row is live and deleted at once").toBe(false);
      found.set(rowTitle(owner, row.name), versionOf(row));
    }
    const isLive = rows.filter(({ isDeleted }) => !isDeleted);
    expect(space.summary(owner)).toEqual(await summaryOf(owner, isLive));
    const counters = device.get(countersKey(owner));
    const deletedRows = counters === undefined ? 0 : decodeCounters(counters.value)?.deletedRows;
    expect(deletedRows).toBe(rows.length - isLive.length);
  }
  return found;
};

/** Versions of all entries by name; each value and body must be whole. */
const readEntries = async (device: DeviceEngine): Promise<Map<string, number>> => {
  const found = new Map<string, number>();
  const entries = await device.scan({ ...allKeys, limit: SCAN_LIMIT });
  for (const { key, value } of entries) {
    const stored = storedIn(value);
    const { name, version, bodyVersion, bodyLength } = stored;
    expect(nameOf(key)).toBe(name);
    const entry = device.get(key);
    if (entry === undefined) throw new Error(`${name} is scanned and absent`);
    expect(storedIn(entry.value)).toEqual(stored);
    const length = entry.body.kind === "none" ? 0 : entry.body.length;
    const body = await device.readBody(entry.body, 0, length);
    const wanted = bodyOf(name, bodyVersion, bodyLength);
    if (!wanted.equals(body)) throw new Error(`the body of ${name}, version ${version}, is not what was written`);
    found.set(name, version);
  }
  return found;
};

/** What is wrong with a recovered device, one line each. */
const violations = async (device: DeviceEngine, book: PromiseBook, { kept, seen }: Cut): Promise<string[]> => {
  const found = new Map([...(await readEntries(device)), ...(await readRows(device))]);
  const wrong: string[] = [];
  for (const name of book.names) {
    const version = found.get(name) ?? 0;
    const allowed = book.allowed(name, kept, seen);
    const isAllowed = allowed.some((candidate) =>
      version === 0 ? candidate.isAbsent : !candidate.isAbsent && candidate.version === version,
    );
    found.delete(name);
    if (!isAllowed) wrong.push(`${name}: version ${version}, allowed ${allowed.map((one) => one.version).join(" ")}`);
    if (name.startsWith("left") && found.get(name.replace("left", "right")) !== (version === 0 ? undefined : version))
      wrong.push(`${name}: its commit was torn`);
  }
  for (const name of found.keys()) wrong.push(`${name}: nobody asked for it`);
  if (device.figures()["quarantinedRanges"] !== 0) wrong.push("recovery took a torn tail for damage");
  return wrong;
};

/** Opens the device, looks for violations and closes it. */
const recover = async (path: string, book: PromiseBook, cut: Cut): Promise<string[]> => {
  await using device = await openDevice({ path, identity, digests: DIGESTS }, deviceParts);
  const found = await violations(device, book, cut);
  await expectRightDigests(device);
  return found;
};

test("power loss of a real file system loses nothing acknowledged, with the index or without", {
  timeout: 1_800_000,
}, async ({ skip }) => {
  const obstacle = whyNoLoggedDisk();
  if (obstacle !== undefined) {
    process.stdout.write(`real power loss is not tested: ${obstacle}\n`);
    skip(obstacle);
  }
  await using held = new AsyncDisposableStack();
  const folder = held.adopt(mkdtempSync(join(tmpdir(), "ringstead-power-loss-")), (path) =>
    rmSync(path, { recursive: true, force: true }),
  );
  const bookPath = join(folder, "book");
  const disk = await LoggedDisk.make(folder, DISK_BYTES);
  {
    await using _mounted = disk;
    for (const [index, kind] of LIVES.entries()) await live(disk, bookPath, index + 1, kind);
  }
  using log = new WriteLog(disk.log);
  const book = new PromiseBook(bookPath);
  const random = seededRandom(BigInt(Date.now()));
  const cuts = chooseCuts(log, MARKS, random);
  process.stdout.write(
    `power loss: ${log.writes.length} disk writes, ${book.doneCount} promises, ${cuts.length} cuts\n`,
  );
  const image = openSync(disk.base, "r+");
  held.defer(() => closeSync(image));
  const copy = join(folder, "copy");
  let redone = 0;
  for (const [number, cut] of cuts.entries()) {
    while (redone < cut.kept) log.redo(redone++, image);
    await run("cp", ["--sparse=auto", disk.base, copy]);
    tearUnflushed(log, copy, cut, random);
    await using _mounted = await mountFile(copy, join(folder, "recovered"), "unflushed");
    const path = join(folder, "recovered", DEVICE);
    try {
      expect(await recover(path, book, cut)).toEqual([]);
      if (number % REBUILD_EVERY !== 0) continue;
      rmSync(devicePaths(path).index, { recursive: true });
      expect(await recover(path, book, cut)).toEqual([]);
    } catch (error) {
      const place = `${cut.kept} to ${cut.seen} of ${log.writes.length} disk writes`;
      throw new Error(`cut ${number}, at ${place}: ${messageOf(error)}`, { cause: error });
    }
  }
  expect(cuts.some(({ kept }) => kept > book.firstDoneAt)).toBe(true);
});
