import { expect, test } from "vitest";
import { type Random, seededRandom } from "../../common/random.ts";
import { SimulatedDisk } from "../../common/simulation/disk.ts";
import { chosenSeeds } from "../../common/simulation/seeds.ts";
import type { DamagedRange, DeviceEngine, NewBody } from "./device-engine.ts";
import { digests, expectRightDigests, identity } from "./engine-fixture.ts";
import { SEGMENT_DATA_START } from "./format.ts";
import { type IndexPlatter, emptyIndexPlatter, openMemoryIndex } from "./memory-index.ts";
import { openDevice } from "./open-device.ts";

const SEGMENT_BYTES = 48 * 1024;
const KEYS = 24;
const COMMITS = 160;
const ROUNDS = 6;

type Content = { readonly value: Buffer; readonly body: Buffer | undefined };
type Damage = { found: number; mended: number; fromLog: number; fromPeers: number };

const open = (disk: SimulatedDisk, platter: IndexPlatter): Promise<DeviceEngine> =>
  openDevice(
    { path: "/device", identity, digests },
    {
      disk,
      openIndex: openMemoryIndex(platter),
      lock: async () => ({ [Symbol.asyncDispose]: async () => {} }),
      segmentBytes: SEGMENT_BYTES,
      checkpointBytes: SEGMENT_BYTES,
      reservedBytes: 0,
    },
  );

const keyAt = (index: number): Buffer => Buffer.from(`key ${String(index).padStart(2, "0")}`);

const bytesOf = (random: Random, length: number): Buffer =>
  Buffer.from(Array.from({ length }, () => random.below(256)));

const staged = async (device: DeviceEngine, bytes: Buffer): Promise<NewBody> => {
  const body = await device.stage();
  await body.write(bytes);
  return { kind: "staged", file: body.file, length: await body.seal() };
};

const put = async (device: DeviceEngine, key: Buffer, { value, body }: Content): Promise<void> => {
  const isLarge = body !== undefined && body.length > 4000;
  const small: NewBody = body === undefined ? { kind: "none" } : { kind: "bytes", bytes: body };
  await device.apply([{ kind: "put", key, value, body: isLarge ? await staged(device, body) : small }]);
};

/** Random commits; what every key has after them. */
const live = async (device: DeviceEngine, random: Random, contents: Map<string, Content>): Promise<void> => {
  for (let commit = 0; commit < COMMITS; commit++) {
    const key = keyAt(random.below(KEYS));
    const name = key.toString();
    const known = contents.get(name);
    const value = bytesOf(random, random.below(4) === 0 ? 300 + random.below(200) : 1 + random.below(60));
    const choice = random.below(10);
    if (choice === 0) {
      await device.apply([{ kind: "delete", key }]);
      contents.delete(name);
    } else if (choice < 3 && known !== undefined) {
      await device.apply([{ kind: "put", key, value, body: { kind: "keep" } }]);
      contents.set(name, { value, body: known.body });
    } else {
      const body = choice < 4 ? undefined : bytesOf(random, choice < 9 ? 1 + random.below(900) : 5000);
      await put(device, key, { value, body });
      contents.set(name, { value, body });
    }
  }
};

/** Flips bits of the log and of large bodies, and of the index where nobody has it open. */
const rot = async (disk: SimulatedDisk, platter: IndexPlatter | undefined, random: Random): Promise<void> => {
  for (let count = 1 + random.below(6); count > 0; count--) {
    const folder = random.below(4) === 0 ? "/device/large" : "/device/log";
    const names = await disk.list(folder);
    const name = names[random.below(names.length)];
    if (name === undefined) continue;
    const file = await disk.open(`${folder}/${name}`, "existing");
    const first = folder === "/device/log" ? SEGMENT_DATA_START : 0;
    const offset = first + random.below((await file.size()) - first);
    const length = random.below(5) === 0 ? 3000 : 1;
    const bytes = Buffer.alloc(length);
    const read = await file.read([bytes], offset);
    for (let at = 0; at < read; at++) bytes[at] = (bytes[at] ?? 0) ^ (1 << random.below(8));
    await file.write(bytes.subarray(0, read), offset);
    await file.close();
  }
  const values = [...(platter?.entries.values() ?? [])];
  for (let count = random.below(3); count > 0 && values.length > 0; count--) {
    const value = values[random.below(values.length)];
    if (value !== undefined) value[random.below(value.length)] = random.below(256);
  }
};

/** A round; what is lost comes from `contents`, as from another replica. */
const scrubAndHeal = async (
  device: DeviceEngine,
  contents: ReadonlyMap<string, Content>,
  damage: Damage,
): Promise<number> => {
  const { scrub } = device;
  const freely = async (): Promise<void> => {};
  const ranges: DamagedRange[] = [];
  for (const { number } of scrub.segments()) ranges.push(...(await scrub.checkSegment(number, freely)));
  await scrub.settle();
  const { damaged } = await scrub.checkEntries(new Uint8Array(0), ranges, freely);
  damage.found += damaged.length;
  const places: Uint8Array[] = [];
  const lost: Uint8Array[] = [];
  for (const { key, damage: kind } of damaged) {
    const mended = await scrub.mend(key, "simulation", kind !== "body");
    if (mended.kind === "place-lost") places.push(key);
    else if (mended.kind === "value-lost" || mended.kind === "body-lost") lost.push(key);
    else if (mended.kind === "mended") damage.mended++;
  }
  if (places.length > 0) {
    const unknown = await scrub.mendFromLog(places);
    damage.fromLog += places.length - unknown.length;
    lost.push(...unknown);
    // A body that is damaged too could not be seen before.
    for (const key of places) {
      const { kind } = await scrub.mend(key, "simulation", false);
      if (kind === "body-lost") lost.push(key);
    }
  }
  damage.fromPeers += lost.length;
  for (const key of lost) {
    const content = contents.get(Buffer.from(key).toString());
    if (content === undefined) await device.apply([{ kind: "delete", key }]);
    else await put(device, Buffer.from(key), content);
  }
  return damaged.length;
};

const expectContents = async (device: DeviceEngine, contents: ReadonlyMap<string, Content>): Promise<void> => {
  for (let index = 0; index < KEYS; index++) {
    const key = keyAt(index);
    const entry = device.get(key);
    const content = contents.get(key.toString());
    expect(entry === undefined ? undefined : Buffer.from(entry.value).toString("hex")).toBe(
      content?.value.toString("hex"),
    );
    if (entry === undefined || content?.body === undefined || entry.body.kind === "none") continue;
    const body = await device.readBody(entry.body, 0, entry.body.length);
    expect(Buffer.from(body).equals(content.body), `the body of ${key.toString()}`).toBe(true);
  }
  const scanned = await device.scan({ gte: Buffer.of(1), lt: Buffer.of(255), limit: 1000 });
  expect(scanned.map(({ key }) => Buffer.from(key).toString())).toEqual([...contents.keys()].toSorted());
};

/** A device that lives, rots and is scrubbed, again and again. */
const run = async (seed: bigint): Promise<Damage> => {
  const random = seededRandom(seed);
  const disk = new SimulatedDisk();
  const platter = emptyIndexPlatter();
  const contents = new Map<string, Content>();
  const damage: Damage = { found: 0, mended: 0, fromLog: 0, fromPeers: 0 };
  let device = await open(disk, platter);
  for (let round = 0; round < ROUNDS; round++) {
    await live(device, random, contents);
    await device[Symbol.asyncDispose]();
    // Where both rot a hole may hide what the index lost, and only another replica knows.
    await rot(disk, random.below(2) === 0 ? platter : undefined, random);
    device = await open(disk, platter);
    await scrubAndHeal(device, contents, damage);
    expect(await scrubAndHeal(device, contents, damage), "a second round finds nothing").toBe(0);
    await expectContents(device, contents);
    expect(await device.scrub.recount()).not.toBe(undefined);
    await expectRightDigests(device);
  }
  await device[Symbol.asyncDispose]();
  return damage;
};

test("whatever rots, a scrub finds it, what is lost is told, and after its healing everything is as it was", async () => {
  const sum: Damage = { found: 0, mended: 0, fromLog: 0, fromPeers: 0 };
  const { first, count } = chosenSeeds(16);
  for (let seed = first; seed < first + BigInt(count); seed++) {
    const damage = await run(seed).catch((error: unknown) => {
      throw new Error(`SEED=${seed} ./scripts/test simulation`, { cause: error });
    });
    for (const key of ["found", "mended", "fromLog", "fromPeers"] as const) sum[key] += damage[key];
  }
  if (count > 1) for (const occurred of Object.values(sum)) expect(occurred).toBeGreaterThan(0);
});
