import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { seededRandom } from "../../common/random.ts";
import {
  bodyAt,
  crashed,
  DeviceFixture,
  digests,
  expectRightDigests,
  identity,
  namesIn,
  put,
  remove,
  smallParts,
  valueAt,
} from "./engine-fixture.ts";
import { openDevice } from "./open-device.ts";

const sumOf = (sums: BigUint64Array): bigint => sums.reduce((sum, one) => BigInt.asUintN(64, sum + one), 0n);

test("digests follow puts, overwritten values, deletions and compaction, and come back without counting", async () => {
  await using fixture = new DeviceFixture();
  let device = await fixture.open();
  const random = seededRandom(7n);
  for (let round = 0; round < 2000; round++) {
    const name = `${String.fromCharCode(97 + random.below(26))}${random.below(20)}`;
    if (random.below(4) === 0) await remove(device, name);
    else await put(device, name, `value ${round}`, random.below(2) === 0 ? Buffer.alloc(3000, round) : undefined);
  }
  expect(device.figures()["recycledSegments"]).toBeGreaterThan(0);
  await expectRightDigests(device);
  const before = sumOf(device.digests.sums);
  {
    await using copy = crashed(fixture);
    const recovered = await copy.open();
    expect(recovered.figures()["areDigestsCertain"]).toBe(1);
    await expectRightDigests(recovered);
  }
  device = await fixture.reopen();
  expect(device.figures()["areDigestsCertain"]).toBe(1);
  expect(device.figures()["recoveredRecords"]).toBe(0);
  expect(sumOf(device.digests.sums)).toBe(before);
  await expectRightDigests(device);
});

test("equal contents have equal sums, whatever the order and the detours", async () => {
  await using left = new DeviceFixture();
  await using right = new DeviceFixture();
  const [one, other] = [await left.open(), await right.open()];
  for (let number = 0; number < 50; number++) await put(one, `key ${number}`, `value ${number}`);
  await put(other, "gone", "gone");
  for (let number = 49; number >= 0; number--) {
    await put(other, `key ${number}`, "earlier");
    await put(other, `key ${number}`, `value ${number}`);
  }
  expect(other.digests.sums).not.toEqual(one.digests.sums);
  await remove(other, "gone");
  expect(other.digests.sums).toEqual(one.digests.sums);
  expect(other.digests.counts).toEqual(one.digests.counts);
});

test("lost, damaged or old digests are counted anew while the device is written to", async () => {
  await using fixture = new DeviceFixture();
  let device = await fixture.open();
  for (let number = 0; number < 3000; number++) await put(device, `key ${number}`, `value ${number}`);
  await fixture.close();
  const file = join(fixture.path, "digests");
  const whole = readFileSync(file);
  const damaged = Buffer.from(whole);
  damaged[100]! ^= 1;
  for (const content of [undefined, damaged, whole.subarray(0, 20), Buffer.alloc(0)]) {
    await fixture.close();
    rmSync(`${file}.old`, { force: true });
    if (content === undefined) rmSync(file);
    else writeFileSync(file, content);
    device = await fixture.open();
    expect(device.figures()["areDigestsCertain"]).toBe(0);
    for (let number = 0; !device.digests.isCertain; number++) {
      await put(device, `key ${number % 3500}`, `newer ${number}`);
      await remove(device, `key ${(number * 7) % 3500}`);
    }
    await expectRightDigests(device);
  }
});

test("a device of format 1 opens with all it holds, and is of the present format from then on", async () => {
  await using fixture = new DeviceFixture();
  const archive = join(import.meta.dirname, "fixtures", "device-format-1.tar.gz");
  execFileSync("tar", ["-xzf", archive, "-C", join(fixture.path, "..")]);
  const parts = { ...smallParts, segmentBytes: 64 * 1024, checkpointBytes: 64 * 1024 };
  for (const time of ["first", "second"]) {
    const device = await fixture.open(parts);
    const names = await namesIn(device);
    expect(names.length, time).toBe(17);
    for (let number = 0; number < 20; number++) {
      const name = `key-${String(number).padStart(2, "0")}`;
      if (number % 5 === 3) expect(valueAt(device, name)).toBeUndefined();
      else expect(valueAt(device, name)).toBe(`${number % 5 === 0 ? "second " : ""}value ${number}`);
      if (number % 5 !== 3 && number % 2 === 0) expect(await bodyAt(device, name)).toBe(`body of ${number}`);
    }
    expect(await bodyAt(device, "large")).toBe("large".repeat(14_000));
    await expectRightDigests(device);
    await fixture.close();
  }
  expect(JSON.parse(readFileSync(join(fixture.path, "device.json"), "utf8"))).toEqual({ format: 2, ...identity });
  expect(existsSync(join(fixture.path, "digests"))).toBe(true);
});

test("under another scheme a device is counted from its entries", async () => {
  await using fixture = new DeviceFixture();
  const device = await fixture.open();
  for (let number = 0; number < 50; number++) await put(device, `key ${number}`, `value ${number}`);
  await fixture.close();
  const other = { ...digests, id: 2n, digestOf: (key: Uint8Array) => BigInt(key.length) };
  await using again = await openDevice({ path: fixture.path, identity, digests: other }, smallParts);
  expect(sumOf(again.digests.sums)).toBe(BigInt(10 * 5 + 40 * 6));
  await expectRightDigests(again);
});
