import { type ChildProcess, spawn } from "node:child_process";
import * as fs from "node:fs";
import { once } from "node:events";
import { join } from "node:path";
import { expect, test } from "vitest";
import { seededRandom } from "../../common/random.ts";
import type { DeviceEngine } from "./device-engine.ts";
import { SEGMENT_DATA_START } from "./format.ts";
import {
  digests,
  codeOfFailure,
  DeviceFixture,
  bodyAt,
  crashed,
  identity,
  keyOf,
  logFiles,
  namesIn,
  overwrite,
  put,
  remove,
  smallParts,
  valueAt,
} from "./engine-fixture.ts";
import { openDevice } from "./open-device.ts";

const largeText = (length: number): string => "0123456789abcdef".repeat(Math.ceil(length / 16)).slice(0, length);

test("what was put is got, scanned and read, before and after reopening", async () => {
  await using fixture = new DeviceFixture();
  let device = await fixture.open();
  await put(device, "a", "value of a", "body of a");
  await put(device, "b", "value of b");
  await put(device, "c", largeText(5000), largeText(200_000));
  for (let round = 0; round < 2; round++) {
    expect(valueAt(device, "a")).toBe("value of a");
    expect(await bodyAt(device, "a")).toBe("body of a");
    expect(device.get(keyOf("b"))?.body).toEqual({ kind: "none" });
    expect(valueAt(device, "c")).toBe(largeText(5000));
    expect(await bodyAt(device, "c")).toBe(largeText(200_000));
    expect(device.get(keyOf("d"))).toBeUndefined();
    expect(await namesIn(device)).toEqual(["a", "b", "c"]);
    device = await fixture.reopen();
  }
});

test("an applied change is visible at once, and durable says when it is synced", async () => {
  await using fixture = new DeviceFixture();
  const device = await fixture.open();
  expect(device.durable(keyOf("a"))).toBeUndefined();
  const applied = put(device, "a", "1", "body");
  expect(valueAt(device, "a")).toBe("1");
  expect(await bodyAt(device, "a")).toBe("body");
  const durable = device.durable(keyOf("a"));
  expect(durable).toBeInstanceOf(Promise);
  await durable;
  await applied;
  expect(device.durable(keyOf("a"))).toBeUndefined();
  void put(device, "b", "2");
  await device.sync();
  expect(device.durable(keyOf("b"))).toBeUndefined();
});

test("a delete hides the key at once and for ever", async () => {
  await using fixture = new DeviceFixture();
  let device = await fixture.open();
  await put(device, "a", "1", "body");
  const removed = remove(device, "a");
  expect(valueAt(device, "a")).toBeUndefined();
  expect(await namesIn(device)).toEqual([]);
  await removed;
  device = await fixture.reopen();
  expect(valueAt(device, "a")).toBeUndefined();
});

test("keep changes the value and leaves the body, whichever segment it lies in", async () => {
  await using fixture = new DeviceFixture();
  let device = await fixture.open();
  await put(device, "a", "1", "the body");
  await put(device, "a", "2", { kind: "keep" });
  await put(device, "a", "3", { kind: "keep" });
  expect(await bodyAt(device, "a")).toBe("the body");
  device = await fixture.reopen();
  expect(valueAt(device, "a")).toBe("3");
  expect(await bodyAt(device, "a")).toBe("the body");
  expect(device.figures()["liveBytes"]).toBeLessThan(300);
});

test("a scan merges what the index has with what it does not have yet, in both directions", async () => {
  await using fixture = new DeviceFixture();
  const device = await fixture.reopen();
  for (const name of ["b", "d", "f", "h"]) await put(device, name, name);
  await fixture.reopen().then(async (reopened) => {
    void put(reopened, "a", "new");
    void put(reopened, "d", "newer");
    void put(reopened, "e", "new");
    void put(reopened, "z", "new");
    void remove(reopened, "f");
    expect(await namesIn(reopened)).toEqual(["a", "b", "d", "e", "h", "z"]);
    void put(reopened, "c", "newest");
    expect(await namesIn(reopened, { reverse: true })).toEqual(["z", "h", "e", "d", "c", "b", "a"]);
    void remove(reopened, "a");
    expect(await namesIn(reopened, { limit: 3 })).toEqual(["b", "c", "d"]);
    expect(await namesIn(reopened, { limit: 2, reverse: true })).toEqual(["z", "h"]);
    await reopened.sync();
    const some = await reopened.scan({ gte: keyOf("c"), lt: keyOf("e"), limit: 10 });
    expect(some.map(({ value }) => Buffer.from(value).toString())).toEqual(["newest", "newer"]);
  });
});

test("a batch of mutations is there whole or not at all after a torn write", async () => {
  await using fixture = new DeviceFixture();
  const device = await fixture.open();
  await put(device, "before", "1");
  const { path } = logFiles(fixture)[0]!;
  const used = Number(device.figures()["usedBytes"]);
  await device.apply([
    { kind: "put", key: keyOf("x"), value: Buffer.from("1"), body: { kind: "none" } },
    { kind: "put", key: keyOf("y"), value: Buffer.from("1"), body: { kind: "bytes", bytes: Buffer.alloc(3000, 1) } },
  ]);
  const end = Number(device.figures()["usedBytes"]);
  await using after = crashed(fixture);
  overwrite(join(after.path, "log", path.split("/").at(-1)!), SEGMENT_DATA_START + end - 512, new Uint8Array(512));
  fs.rmSync(join(after.path, "index"), { recursive: true });
  let recovered = await after.open();
  expect(await namesIn(recovered)).toEqual(["before"]);
  expect(recovered.figures()["usedBytes"]).toBe(used);
  await put(recovered, "x", "again");
  recovered = await after.reopen();
  expect(await namesIn(recovered)).toEqual(["before", "x"]);
});

test("garbage behind the tail is cut, and the log goes on", async () => {
  await using fixture = new DeviceFixture();
  const device = await fixture.open();
  await put(device, "a", "1", "body");
  const { path } = logFiles(fixture)[0]!;
  const end = SEGMENT_DATA_START + Number(device.figures()["usedBytes"]);
  await using after = crashed(fixture);
  overwrite(join(after.path, "log", path.split("/").at(-1)!), end, Buffer.alloc(5000, 0x5a));
  let recovered = await after.open();
  await put(recovered, "b", "2", "body");
  recovered = await after.reopen();
  expect(await namesIn(recovered)).toEqual(["a", "b"]);
  expect(recovered.figures()["quarantinedRanges"]).toBe(0);
});

test("a valid record of an earlier use behind the tail is never taken for a new one", async () => {
  await using fixture = new DeviceFixture();
  const device = await fixture.open();
  await put(device, "a", "1");
  await put(device, "a", "2");
  const { path } = logFiles(fixture)[0]!;
  const used = Number(device.figures()["usedBytes"]);
  await using after = crashed(fixture);
  const log = join(after.path, "log", path.split("/").at(-1)!);
  const bytes = fs.readFileSync(log).subarray(SEGMENT_DATA_START, SEGMENT_DATA_START + used);
  overwrite(log, SEGMENT_DATA_START + used, bytes);
  fs.rmSync(join(after.path, "index"), { recursive: true });
  const recovered = await after.open();
  expect(valueAt(recovered, "a")).toBe("2");
  expect(recovered.figures()["recoveredRecords"]).toBe(2);
});

test("a lost index is rebuilt from the log", async () => {
  await using fixture = new DeviceFixture();
  let device = await fixture.open();
  for (let index = 0; index < 300; index++) await put(device, `k${index % 100}`, `v${index}`, largeText(9000));
  await remove(device, "k7");
  const live = device.figures()["liveBytes"];
  await fixture.close();
  fs.rmSync(join(fixture.path, "index"), { recursive: true });
  device = await fixture.open();
  expect((await namesIn(device)).length).toBe(99);
  for (const index of [0, 8, 99]) {
    expect(valueAt(device, `k${index}`)).toBe(`v${200 + index}`);
    expect(await bodyAt(device, `k${index}`)).toBe(largeText(9000));
  }
  expect(device.figures()["liveBytes"]).toBe(live);
});

test("a damaged index is rebuilt from the log", async () => {
  await using fixture = new DeviceFixture();
  let device = await fixture.open();
  await put(device, "a", "1", "body");
  await fixture.close();
  for (const name of fs.readdirSync(join(fixture.path, "index"))) {
    fs.writeFileSync(join(fixture.path, "index", name), "damaged");
  }
  device = await fixture.open();
  expect(await bodyAt(device, "a")).toBe("body");
});

test("a record damaged in the middle is quarantined, and what is behind it is kept", async () => {
  await using fixture = new DeviceFixture();
  const device = await fixture.open();
  await put(device, "a", "1", "body of a");
  const from = Number(device.figures()["usedBytes"]);
  await put(device, "b", "1", "body of b");
  await put(device, "c", "1", "body of c");
  const { path } = logFiles(fixture)[0]!;
  await using after = crashed(fixture);
  overwrite(join(after.path, "log", path.split("/").at(-1)!), SEGMENT_DATA_START + from + 90, Buffer.from([255, 254]));
  fs.rmSync(join(after.path, "index"), { recursive: true });
  const recovered = await after.open();
  expect(await namesIn(recovered)).toEqual(["a", "c"]);
  expect(recovered.figures()["quarantinedRanges"]).toBe(1);
});

test("a key whose record lies in a hole of the log is still found where the index has it", async () => {
  await using fixture = new DeviceFixture();
  await put(await fixture.open(), "a", "1");
  const device = await fixture.reopen();
  const from = Number(device.figures()["usedBytes"]);
  await put(device, "b", "1", "body of b");
  await put(device, "c", "1", "body of c");
  await expect.poll(() => device.figures()["overlayEntries"]).toBe(0);
  const { path } = logFiles(fixture)[0]!;
  await using after = crashed(fixture);
  overwrite(join(after.path, "log", path.split("/").at(-1)!), SEGMENT_DATA_START + from + 90, Buffer.from([255, 254]));
  const recovered = await after.open();
  expect(recovered.figures()["quarantinedRanges"]).toBe(1);
  expect(await namesIn(recovered)).toEqual(["a", "b", "c"]);
  expect(valueAt(recovered, "b")).toBe("1");
  await remove(recovered, "b");
  expect(await namesIn(recovered)).toEqual(["a", "c"]);
});

test("runs that a killed rebuild left behind are removed", async () => {
  await using fixture = new DeviceFixture();
  await put(await fixture.open(), "a", "1");
  await fixture.close();
  fs.writeFileSync(join(fixture.path, "index.runs"), "half a run");
  const device = await fixture.open();
  expect(fs.readdirSync(fixture.path)).not.toContain("index.runs");
  expect(valueAt(device, "a")).toBe("1");
});

test("a damaged body is told, not served", async () => {
  await using fixture = new DeviceFixture();
  const device = await fixture.open();
  await put(device, "a", "1", largeText(5000));
  const { body } = device.get(keyOf("a"))!;
  if (body.kind !== "log") throw new Error("the body lies in the log");
  overwrite(logFiles(fixture)[0]!.path, body.offset + 4000, Buffer.from([0]));
  expect(await codeOfFailure(device.readBody(body, 0, 10))).toBe("body-damaged");
});

test("two openings of one device are refused, in one process and in two", async () => {
  await using fixture = new DeviceFixture();
  await fixture.open();
  expect(await codeOfFailure(openDevice({ path: fixture.path, identity, digests }, smallParts))).toBe("device-busy");
  await fixture.close();
  const script = `const { openDevice } = await import(${JSON.stringify(join(import.meta.dirname, "open-device.ts"))});
    const { digests } = await import(${JSON.stringify(join(import.meta.dirname, "engine-fixture.ts"))});
    await openDevice({ ...${JSON.stringify({ path: fixture.path, identity })}, digests }, ${JSON.stringify(smallParts)});
    console.log("open"); setInterval(() => {}, 1000);`;
  const child: ChildProcess = spawn(process.execPath, ["--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(child.stdout!, "data");
  expect(await codeOfFailure(openDevice({ path: fixture.path, identity, digests }, smallParts))).toBe("device-busy");
  child.kill("SIGKILL");
  await once(child, "exit");
  const device = await fixture.open();
  await put(device, "a", "after the other died");
});

test("a folder of another device, a newer one and a file are refused", async () => {
  await using fixture = new DeviceFixture();
  await fixture.open();
  await fixture.close();
  const other = { ...identity, device: "d2" };
  expect(await codeOfFailure(openDevice({ path: fixture.path, identity: other, digests }, smallParts))).toBe(
    "device-foreign",
  );
  const file = join(fixture.path, "device.json");
  fs.writeFileSync(file, JSON.stringify({ ...identity, format: 3 }));
  expect(await codeOfFailure(openDevice({ path: fixture.path, identity, digests }, smallParts))).toBe("format-newer");
  expect(await codeOfFailure(openDevice({ path: file, identity, digests }, smallParts))).toBe("device-path-not-folder");
});

const stageText = async (
  device: DeviceEngine,
  text: string,
): Promise<{ kind: "staged"; file: string; length: number }> => {
  const staged = await device.stage();
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += 100_000) await staged.write(bytes.subarray(at, at + 100_000));
  return { kind: "staged", file: staged.file, length: await staged.seal() };
};

const largeFiles = (fixture: DeviceFixture): string[] => fs.readdirSync(join(fixture.path, "large"));

test("large bodies are staged, committed, read in ranges, superseded", async () => {
  await using fixture = new DeviceFixture();
  let device = await fixture.open();
  for (const length of [0, 1, 65_535, 65_536, 65_537, 1_048_576, 3_000_001]) {
    const text = largeText(length);
    await put(device, "big", `${length}`, await stageText(device, text));
    expect(await bodyAt(device, "big")).toBe(text);
    const { body } = device.get(keyOf("big"))!;
    for (const [offset, count] of [
      [0, 10],
      [65_530, 20],
      [length - 5, 100],
      [131_072, 65_536],
    ] as const) {
      if (offset < 0) continue;
      expect(Buffer.from(await device.readBody(body, offset, count)).toString()).toBe(
        text.slice(offset, offset + count),
      );
    }
    if (length % 2 === 0) device = await fixture.reopen();
    await put(device, "big", "kept", { kind: "keep" });
  }
  expect(await bodyAt(device, "big")).toBe(largeText(3_000_001));
  device = await fixture.reopen();
  expect(largeFiles(fixture).length).toBe(1);
  const { body } = device.get(keyOf("big"))!;
  await remove(device, "big");
  device = await fixture.reopen();
  expect(largeFiles(fixture)).toEqual([]);
  expect(await codeOfFailure(device.readBody(body, 0, 10))).toBe("body-gone");
});

test("a staged body that was abandoned, or that no commit named, leaves nothing", async () => {
  await using fixture = new DeviceFixture();
  const device = await fixture.open();
  await put(device, "kept", "1", await stageText(device, largeText(70_000)));
  await (await device.stage()).abandon();
  expect(largeFiles(fixture).length).toBe(1);
  await stageText(device, "sealed and never named");
  const open = await device.stage();
  await open.write(Buffer.from("never sealed"));
  expect(largeFiles(fixture).length).toBe(3);
  await using after = crashed(fixture);
  let recovered = await after.open();
  expect(largeFiles(after).length).toBe(1);
  expect(await bodyAt(recovered, "kept")).toBe(largeText(70_000));
  await after.close();
  fs.rmSync(join(after.path, "index"), { recursive: true });
  recovered = await after.open();
  expect(await bodyAt(recovered, "kept")).toBe(largeText(70_000));
  await open.abandon();
});

test("a damaged block of a large body is told, others are served", async () => {
  await using fixture = new DeviceFixture();
  const device = await fixture.open();
  await put(device, "big", "1", await stageText(device, largeText(200_000)));
  const { body } = device.get(keyOf("big"))!;
  overwrite(join(fixture.path, "large", largeFiles(fixture)[0]!), 64 + 65_544 + 7, Buffer.from([0]));
  expect((await device.readBody(body, 0, 65_536)).length).toBe(65_536);
  expect(await codeOfFailure(device.readBody(body, 65_536, 1))).toBe("body-damaged");
});

test("space amplification is never above 1.5 during a steady load of overwrites, and everything stays readable", async () => {
  await using fixture = new DeviceFixture();
  let device = await fixture.open();
  const keys = 4000;
  const body = Buffer.alloc(16_000, 3);
  const latest = new Map<string, string>();
  const random = seededRandom(5n);
  let worst = 0;
  for (let round = 0; round < 20_000; round += 50) {
    const applied: Promise<void>[] = [];
    for (let index = round; index < round + 50; index++) {
      const name = `k${index < keys ? index : random.below(keys)}`;
      latest.set(name, `v${index}`);
      applied.push(put(device, name, `v${index}`, body));
    }
    await Promise.all(applied);
    worst = Math.max(worst, device.figures().amplification);
  }
  expect(worst).toBeLessThanOrEqual(1.5);
  // Not because nothing was overwritten: without compaction the log would be five times the live bytes.
  expect(device.figures()["recycledSegments"]).toBeGreaterThan(200);
  for (let round = 0; round < 2; round++) {
    for (const [name, value] of latest) {
      expect(valueAt(device, name)).toBe(value);
      if (name.endsWith("7")) expect((await bodyAt(device, name)).length).toBe(16_000);
    }
    const { liveBytes, amplification } = device.figures();
    expect(amplification).toBeLessThanOrEqual(1.5);
    await fixture.close();
    if (round === 0) fs.rmSync(join(fixture.path, "index"), { recursive: true });
    device = await fixture.open();
    expect(device.figures()["liveBytes"]).toBe(liveBytes);
  }
});

test("deleted keys stay deleted through compaction and a rebuild, and deletes do not pile up", async () => {
  await using fixture = new DeviceFixture();
  let device = await fixture.open();
  for (let index = 0; index < 300; index++) await put(device, `cold${index}`, "1", Buffer.alloc(8000, 1));
  for (let round = 0; round < 40; round++) {
    const applied: Promise<void>[] = [];
    for (let index = 0; index < 1000; index++) {
      applied.push(
        put(device, `hot${round}-${index}`, "1", Buffer.alloc(500, 2)),
        remove(device, `hot${round}-${index}`),
      );
    }
    await Promise.all(applied);
  }
  await fixture.close();
  fs.rmSync(join(fixture.path, "index"), { recursive: true });
  device = await fixture.open();
  expect((await namesIn(device)).length).toBe(300);
  await expect.poll(() => device.figures()["usedBytes"], { timeout: 20_000 }).toBeLessThan(6_500_000);
  expect((await namesIn(device)).length).toBe(300);
});

test("a reference into a recycled segment is answered as gone", async () => {
  await using fixture = new DeviceFixture();
  const device = await fixture.open();
  await put(device, "a", "0", Buffer.alloc(8000, 1));
  const { body } = device.get(keyOf("a"))!;
  for (let index = 0; index < 1000; index++) await put(device, "a", `${index}`, Buffer.alloc(8000, 1));
  expect(await codeOfFailure(device.readBody(body, 0, 100))).toBe("body-gone");
  expect((await bodyAt(device, "a")).length).toBe(8000);
});
