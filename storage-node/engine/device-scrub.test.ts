import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { RingsteadError } from "../../common/errors.ts";
import type { DamagedEntry, DamagedRange, DeviceEngine, NewBody } from "./device-engine.ts";
import {
  bodyAt,
  codeOfFailure,
  DeviceFixture,
  expectRightDigests,
  keyOf,
  logFiles,
  overwrite,
  put,
  remove,
  smallParts,
  valueAt,
} from "./engine-fixture.ts";
import { emptyIndexPlatter, openMemoryIndex } from "./memory-index.ts";

type Round = {
  readonly ranges: readonly DamagedRange[];
  readonly damaged: readonly DamagedEntry[];
  readonly bytes: number;
  readonly entries: number;
};

/** One round over everything. */
const check = async (device: DeviceEngine): Promise<Round> => {
  const { scrub } = device;
  const ranges: DamagedRange[] = [];
  let bytes = 0;
  let entries = 0;
  const allow = async (count: number): Promise<void> => {
    bytes += count;
  };
  for (const { number } of scrub.segments()) ranges.push(...(await scrub.checkSegment(number, allow)));
  await scrub.settle();
  const damaged: DamagedEntry[] = [];
  for (let from: Uint8Array | undefined = new Uint8Array(0); from !== undefined; ) {
    const page = await scrub.checkEntries(from, ranges, allow);
    damaged.push(...page.damaged);
    entries += page.entries;
    from = page.next;
  }
  return { ranges, damaged, bytes, entries };
};

const namesOf = (damaged: readonly DamagedEntry[]): string[] =>
  damaged.map(({ key, damage }) => `${Buffer.from(key).toString()} ${damage}`);

const staged = async (device: DeviceEngine, bytes: Uint8Array): Promise<NewBody> => {
  const body = await device.stage();
  await body.write(bytes);
  return { kind: "staged", file: body.file, length: await body.seal() };
};

/** Where in the log a text stands; the first place, or the last. */
const placeInLog = (fixture: DeviceFixture, text: string): { path: string; offset: number } => {
  for (const { path } of logFiles(fixture)) {
    const offset = readFileSync(path).indexOf(text);
    if (offset >= 0) return { path, offset };
  }
  throw new Error(`${text} is not in the log`);
};

const flip = (fixture: DeviceFixture, text: string, behind = 0): void => {
  const { path, offset } = placeInLog(fixture, text);
  const byte = readFileSync(path)[offset + behind] ?? 0;
  overwrite(path, offset + behind, Buffer.of(byte ^ 0x40));
};

const quarantined = (fixture: DeviceFixture): { head: Record<string, unknown>; bytes: Buffer }[] =>
  readdirSync(join(fixture.path, "quarantine")).map((name) => {
    const file = readFileSync(join(fixture.path, "quarantine", name));
    const end = file.indexOf("\n");
    return { head: JSON.parse(file.toString("utf8", 0, end)), bytes: file.subarray(end + 1) };
  });

test("a round over a device without damage reads all of it and finds nothing, while it is written to and compacted", async () => {
  await using fixture = new DeviceFixture();
  const device = await fixture.open();
  const large = randomBytes(300_000);
  for (let index = 0; index < 40; index++) await put(device, `o${index}`, "1", randomBytes(50_000));
  await put(device, "large", "1", await staged(device, large));
  let isOver = false;
  const writing = (async () => {
    for (let index = 0; !isOver; index++) await put(device, `o${index % 40}`, "2", randomBytes(30_000));
  })();
  for (let round = 0; round < 3; round++) {
    const { ranges, damaged, bytes, entries } = await check(device);
    expect([ranges, damaged]).toEqual([[], []]);
    expect(bytes).toBeGreaterThan(1_200_000 + large.length);
    expect(entries).toBe(41);
  }
  isOver = true;
  await writing;
  expect(await device.scrub.recount()).toBe(0);
});

test("a body of the log that was altered is found, told as lost, and what stands there is set aside", async () => {
  await using fixture = new DeviceFixture();
  const device = await fixture.open();
  for (const name of ["a", "b", "c"]) await put(device, name, "1", `body of ${name} `.repeat(100));
  flip(fixture, "body of b", 300);
  const { ranges, damaged } = await check(device);
  expect(ranges).toHaveLength(1);
  expect(namesOf(damaged)).toEqual(["b record"]);
  const mended = await device.scrub.mend(keyOf("b"), "found by a test", true);
  expect(mended).toMatchObject({ kind: "body-lost", body: { kind: "log" } });
  const [file] = quarantined(fixture);
  expect(file?.head).toMatchObject({ format: 1, key: "b", cause: "found by a test" });
  expect(file?.bytes.includes("body of b body of b")).toBe(true);
  // What is put in its place ends it.
  await put(device, "b", "1", `body of b `.repeat(100));
  expect(namesOf((await check(device)).damaged)).toEqual([]);
  expect(await device.scrub.mend(keyOf("b"), "again", false)).toEqual({ kind: "whole" });
});

test("a record whose value the index has is written anew from there, with its body, and needs no other replica", async () => {
  await using fixture = new DeviceFixture();
  let device = await fixture.open();
  await put(device, "first", "1", "body one");
  await put(device, "second", "the value", "body two");
  await put(device, "third", "1", "body three");
  flip(fixture, "the value");
  device = await fixture.reopen();
  const { damaged } = await check(device);
  expect(namesOf(damaged)).toEqual(["second record"]);
  expect(await device.scrub.mend(keyOf("second"), "test", true)).toEqual({ kind: "mended" });
  expect(namesOf((await check(device)).damaged)).toEqual([]);
  device = await fixture.reopen();
  expect([valueAt(device, "second"), await bodyAt(device, "second")]).toEqual(["the value", "body two"]);
  await expectRightDigests(device);
});

test("a value that stands in the log alone is told as lost with its digest, its body as whole as it is", async () => {
  await using fixture = new DeviceFixture();
  let device = await fixture.open();
  const value = "long value ".repeat(60);
  await put(device, "long", value, "body");
  device = await fixture.reopen();
  flip(fixture, "long value");
  const told: string[] = [];
  device.scrub.onDamaged = (key) => told.push(Buffer.from(key).toString());
  expect(() => device.get(keyOf("long"))).toThrow(RingsteadError);
  await expect(
    device.scan({ gte: Buffer.of(1), lt: Buffer.of(255), limit: 10 }),
    "a listing would lack it",
  ).rejects.toMatchObject({ code: "entry-damaged" });
  expect(told).toEqual(["long", "long"]);
  expect(namesOf((await check(device)).damaged)).toEqual(["long record"]);
  const { scheme } = device.digests;
  expect(await device.scrub.mend(keyOf("long"), "test", true)).toMatchObject({
    kind: "value-lost",
    digest: scheme.digestOf(keyOf("long"), Buffer.from(value)),
    body: { kind: "log", length: 4 },
  });
});

test("a large body's damaged blocks are found and set aside; one whose file is gone is lost too", async () => {
  await using fixture = new DeviceFixture();
  const device = await fixture.open();
  for (const name of ["a", "b", "c"]) await put(device, name, "1", await staged(device, randomBytes(400_000)));
  const files = readdirSync(join(fixture.path, "large")).toSorted();
  const [, second = "", third = ""] = files.map((name) => join(fixture.path, "large", name));
  const at = 64 + 65_544 + 100;
  overwrite(second, at, Buffer.of((readFileSync(second)[at] ?? 0) ^ 1));
  unlinkSync(third);
  const { damaged } = await check(device);
  expect(namesOf(damaged)).toEqual(["b body", "c body"]);
  for (const name of ["b", "c"])
    expect(await device.scrub.mend(keyOf(name), "test", false)).toMatchObject({ kind: "body-lost" });
  const [of] = quarantined(fixture).filter(({ head }) => head["key"] === "b");
  expect(of?.head["pieces"]).toContainEqual({ file: files[1], offset: 64 + 65_544, length: 65_544, isReadable: true });
});

test("an entry that the index has lost comes back from the log, at its newest", async () => {
  await using fixture = new DeviceFixture();
  const platter = emptyIndexPlatter();
  const parts = { ...smallParts, openIndex: openMemoryIndex(platter) };
  let device = await fixture.open(parts);
  for (const value of ["1", "2", "3"]) await put(device, "a", value, `body ${value}`);
  await put(device, "gone", "1");
  await put(device, "b", "1", await staged(device, Buffer.alloc(100_000, 5)));
  await put(device, "b", "2", { kind: "keep" });
  await fixture.close();
  for (const name of ["a", "b"]) {
    const entry = platter.entries.get(name);
    if (entry !== undefined) entry[20] = (entry[20] ?? 0) ^ 1;
  }
  // Of what the log has deleted the index has nothing; that it has something is damage too.
  platter.entries.set("never", new Uint8Array(70));
  device = await fixture.open(parts);
  await remove(device, "gone");
  const { damaged } = await check(device);
  expect(namesOf(damaged)).toEqual(["a index", "b index", "never index"]);
  for (const { key } of damaged) expect(await device.scrub.mend(key, "test", true)).toEqual({ kind: "place-lost" });
  expect(await device.scrub.mendFromLog(damaged.map(({ key }) => key))).toEqual([]);
  expect([valueAt(device, "a"), await bodyAt(device, "a")]).toEqual(["3", "body 3"]);
  expect([valueAt(device, "b"), (await bodyAt(device, "b")).length]).toEqual(["2", 100_000]);
  expect(valueAt(device, "never")).toBeUndefined();
  expect(namesOf((await check(device)).damaged)).toEqual([]);
  await expectRightDigests(device);
});

test("an entry that a hole in the log may have swallowed is not taken from before the hole", async () => {
  await using fixture = new DeviceFixture();
  const platter = emptyIndexPlatter();
  const parts = { ...smallParts, openIndex: openMemoryIndex(platter) };
  let device = await fixture.open(parts);
  await put(device, "a", "1", "old body");
  await put(device, "a", "2", "new body");
  await put(device, "later", "1");
  await fixture.close();
  const entry = platter.entries.get("a");
  if (entry !== undefined) entry[20] = (entry[20] ?? 0) ^ 1;
  flip(fixture, "new body");
  device = await fixture.open(parts);
  expect(await device.scrub.mendFromLog([keyOf("a")])).toEqual([keyOf("a")]);
  expect(await codeOfFailure((async () => device.get(keyOf("a")))())).toBe("entry-damaged");
});

test("damage over many records and up to the end of a segment is found as one range, and as all entries in it", async () => {
  await using fixture = new DeviceFixture();
  const device = await fixture.open();
  for (let index = 0; index < 60; index++)
    await put(device, `o${String(index).padStart(2, "0")}`, "1", randomBytes(30_000));
  await device.scrub.settle();
  const [first] = logFiles(fixture);
  expect(first?.number).toBe(1);
  overwrite(first?.path ?? "", 700_000, Buffer.alloc(1024 * 1024 - 700_000));
  const { ranges, damaged } = await check(device);
  expect(ranges).toHaveLength(1);
  expect(damaged.length).toBeGreaterThan(8);
  const kinds = await Promise.all(damaged.map(({ key }) => device.scrub.mend(key, "test", true)));
  expect(new Set(kinds.map(({ kind }) => kind))).toEqual(new Set(["body-lost"]));
});

test("wrong digests are counted right by a recount, and while it counts they are not in doubt", async () => {
  await using fixture = new DeviceFixture();
  const device = await fixture.open();
  for (let index = 0; index < 300; index++) await put(device, `${String.fromCharCode(97 + (index % 20))}${index}`, "1");
  const { sums } = device.digests;
  sums["c".charCodeAt(0)] = 1n;
  const recount = device.scrub.recount();
  expect(device.digests.isCertain).toBe(true);
  expect(await recount).toBe(1);
  await expectRightDigests(device);
});
