import * as fs from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { LateNumber, lateContract, putOf } from "./device-engine.contract.ts";
import { DeviceFixture, crashed, keyOf, logFiles, namesIn, overwrite, put, remove, valueAt } from "./engine-fixture.ts";
import { RECORD_HEAD_BYTES, SEGMENT_DATA_START } from "./format.ts";
import { LogDevice } from "./log-device.ts";
import { MemoryDevice } from "./memory-device.ts";

lateContract("log device", async (doing) => {
  await using fixture = new DeviceFixture();
  await doing(await fixture.open());
});

lateContract("memory device", async (doing) => {
  await using device = new MemoryDevice((done) => setImmediate(done));
  await doing(device);
});

test("one record is written per batch and late key, however many commits ask for it", async () => {
  await using fixture = new DeviceFixture();
  let device = await fixture.open();
  const total = new LateNumber("total");
  const rare = new LateNumber("rare");
  const applied = Array.from({ length: 100 }, (_, index) =>
    device.apply([putOf(`k${index}`), total.plus(1), ...(index === 50 ? [rare.plus(7)] : [])]),
  );
  await Promise.all(applied);
  const { records, batches } = device.figures();
  expect({ records, batches }).toEqual({ records: 102, batches: 1 });
  expect([total.encodings, rare.encodings]).toEqual([1, 1]);
  device = await fixture.reopen();
  expect(valueAt(device, "total")).toBe("100");
  expect(valueAt(device, "rare")).toBe("7");
});

test("late changes survive segment changes, full batches, compaction and a lost index", async () => {
  await using fixture = new DeviceFixture();
  let device = await fixture.open();
  const total = new LateNumber("total");
  for (let round = 0; round < 30; round++) {
    const applied = Array.from({ length: 40 }, (_, index) =>
      device.apply([
        { kind: "put", key: keyOf(`k${index}`), value: Buffer.from(`${round}`), body: body(9000) },
        total.plus(1),
      ]),
    );
    if (round % 3 === 0) applied.push(remove(device, "k1"));
    await Promise.all(applied);
  }
  await expect.poll(() => Number(device.figures()["recycledSegments"]), { timeout: 10_000 }).toBeGreaterThan(0);
  await fixture.close();
  fs.rmSync(join(fixture.path, "index"), { recursive: true });
  device = await fixture.open();
  expect(valueAt(device, "total")).toBe("1200");
  expect((await namesIn(device)).length).toBe(41);
  const { liveBytes } = device.figures();
  device = await fixture.reopen();
  expect(device.figures()["liveBytes"]).toBe(liveBytes);
});

test("a torn batch with late puts is cut as a whole, from its first late commit on", async () => {
  await using fixture = new DeviceFixture();
  const device = await fixture.open();
  const total = new LateNumber("total");
  await device.apply([putOf("first"), total.plus(1)]);
  const before = Number(device.figures()["usedBytes"]);
  await Promise.all([
    put(device, "alone", "1"),
    device.apply([putOf("counted"), total.plus(1)]),
    put(device, "b", "1"),
  ]);
  const [log] = logFiles(fixture);
  await using after = crashed(fixture);
  // The batch's last record, which is the late one, did not arrive.
  const end = SEGMENT_DATA_START + Number(device.figures()["usedBytes"]);
  overwrite(join(after.path, "log", log!.name), end - 8, Buffer.alloc(8, 0xee));
  fs.rmSync(join(after.path, "index"), { recursive: true });
  const recovered = await after.open();
  expect(end - SEGMENT_DATA_START).toBeGreaterThan(before);
  expect(await namesIn(recovered)).toEqual(["alone", "first", "total"]);
  expect(valueAt(recovered, "total")).toBe("1");
});

test("a record that compaction moves into a batch with late puts does not end it, be it the late key's own", async () => {
  await using fixture = new DeviceFixture();
  let device = await fixture.open();
  const total = new LateNumber("total");
  await device.apply([putOf("first"), total.plus(1)]);
  if (!(device instanceof LogDevice)) throw new Error("moving is for log devices");
  const applied = [device.apply([putOf("second"), total.plus(1)])];
  for (const name of ["first", "total"]) {
    const live = device.liveEntry(keyOf(name));
    if (live === undefined) throw new Error(`${name} is there`);
    device.move(keyOf(name), live, undefined);
  }
  applied.push(device.apply([putOf("third"), total.plus(1)]));
  await Promise.all(applied);
  const { liveBytes } = device.figures();
  const [log] = logFiles(fixture);
  const end = SEGMENT_DATA_START + device.figures().usedBytes;
  await using torn = crashed(fixture);
  overwrite(join(torn.path, "log", log!.name), end - 8, Buffer.alloc(8, 0xee));
  fs.rmSync(join(torn.path, "index"), { recursive: true });
  const recovered = await torn.open();
  expect(await namesIn(recovered)).toEqual(["first", "total"]);
  expect(valueAt(recovered, "total")).toBe("1");
  device = await fixture.reopen();
  expect(valueAt(device, "total")).toBe("3");
  expect(device.figures()["liveBytes"]).toBe(liveBytes);
});

test("damage in the middle of a batch with late puts costs the damaged record only", async () => {
  await using fixture = new DeviceFixture();
  const device = await fixture.open();
  const total = new LateNumber("total");
  await Promise.all(["a", "b", "c"].map((name) => device.apply([putOf(name), total.plus(1)])));
  await put(device, "later", "1");
  const [log] = logFiles(fixture);
  await using after = crashed(fixture);
  const recordBytes = RECORD_HEAD_BYTES + 8;
  overwrite(join(after.path, "log", log!.name), SEGMENT_DATA_START + recordBytes + 70, Buffer.from([255, 254]));
  fs.rmSync(join(after.path, "index"), { recursive: true });
  const recovered = await after.open();
  expect(await namesIn(recovered)).toEqual(["a", "c", "later", "total"]);
  expect(valueAt(recovered, "total")).toBe("3");
  expect(recovered.figures()["quarantinedRanges"]).toBe(1);
});

test("a torn first batch of a new log shows nothing of it", async () => {
  await using fixture = new DeviceFixture();
  const device = await fixture.open();
  await Promise.all([put(device, "a", "1"), put(device, "b", "1"), put(device, "c", "1")]);
  const [log] = logFiles(fixture);
  await using after = crashed(fixture);
  overwrite(join(after.path, "log", log!.name), SEGMENT_DATA_START + 70, Buffer.from([255, 254]));
  fs.rmSync(join(after.path, "index"), { recursive: true });
  const recovered = await after.open();
  expect(await namesIn(recovered)).toEqual([]);
  expect(recovered.figures()["quarantinedRanges"]).toBe(0);
  await put(recovered, "d", "1");
  expect(await namesIn(recovered)).toEqual(["d"]);
});

const body = (length: number): { kind: "bytes"; bytes: Uint8Array } => ({
  kind: "bytes",
  bytes: Buffer.alloc(length, 5),
});
