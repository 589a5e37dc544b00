import { expect, test } from "vitest";
import { type Ballot, ballotOf, type Incarnation } from "../common/ballot.ts";
import { RingsteadError } from "../common/errors.ts";
import type { HybridTimestamp } from "../common/hybrid-clock.ts";
import { decideTake, isLifeForgotten, isRowSettled } from "./core/hand-off.ts";
import { DeviceReplica } from "./device-replica.ts";
import type { NewBody } from "./engine/device-engine.ts";
import { MemoryDevice } from "./engine/memory-device.ts";
import type { ServedDevice } from "./dispatch.ts";
import { keep, take } from "./hand-off-operations.ts";
import { ReclaimMarks } from "./reclaim-marks.ts";
import { KEPT_KEYS, keptPlaceOf, keptRegisterKey, keptRowKey } from "./store/kept-keys.ts";
import { spaceOfKey, spaceOfReplicated } from "./store/key-space.ts";
import {
  encodeContainerRecord,
  HeaderReader,
  type ListQuery,
  type Name,
  packRegister,
  type Register,
  type Row,
  spaceCode,
} from "./wire.ts";

const LIFE = "1".repeat(24) as Incarnation;
const NOW_MS = 1_700_000_000_000;
const clock = { nowMs: () => NOW_MS };
const stamp = (time: number): HybridTimestamp =>
  ((NOW_MS + time) * 65_536).toString(16).padStart(16, "0") as HybridTimestamp;
const ballot = (time: number): Ballot => ballotOf(LIFE, stamp(time), "00000001");
const before = "0".repeat(16) as HybridTimestamp;
const OBJECT: Name = { space: "object", hash32: 7, path: "/a/c/o" };
const CONTAINER: Name = { space: "container", hash32: 3, path: "/a/c" };
const BYTES = Buffer.from("body");
const NONE = { kind: "none" } as const;

const registerOf = (time: number, change: Partial<Register> = {}): Register => ({
  version: ballot(time),
  ballot: ballot(time),
  state: "accepted",
  bodyVersion: ballot(time),
  isTombstone: false,
  bodyLength: BYTES.length,
  metadata: Buffer.from(`m${time}`),
  ...change,
});

const rowOf = (name: string, time: number, isDeleted = false): Row => ({
  name,
  version: ballot(time),
  isDeleted,
  objects: 1,
  bytes: 4,
  payload: new Uint8Array([1]),
});

const QUERY: ListQuery = { marker: "", endMarker: "", prefix: "", isReverse: false, limit: 10, withDeleted: true };

const onDevice = (device = new MemoryDevice((done) => queueMicrotask(done))) => ({
  device,
  replica: new DeviceReplica(device, clock, [1n, 2n]),
});

test("a lower ballot than what is kept is refused, with the one that is kept, and the same again is had [H2]", async () => {
  const { replica } = onDevice();
  const body = { kind: "bytes", bytes: BYTES } as const;
  expect(await replica.handOffs.keep(OBJECT, registerOf(2), body)).toEqual({ ballot: ballot(2), isStored: true });
  expect(await replica.handOffs.keep(OBJECT, registerOf(1), body)).toEqual({ ballot: ballot(2), isStored: false });
  expect(await replica.handOffs.keep(OBJECT, registerOf(2), body)).toEqual({ ballot: ballot(2), isStored: false });
});

test("a new version of a body that lies there needs it not again, and one of a body that does not is refused", async () => {
  const { device, replica } = onDevice();
  await expect(replica.handOffs.keep(OBJECT, registerOf(1), undefined)).rejects.toMatchObject({ code: "body-gone" });
  await replica.handOffs.keep(OBJECT, registerOf(1), { kind: "bytes", bytes: BYTES });
  const again = registerOf(2, { bodyVersion: ballot(1) });
  expect(await replica.handOffs.keep(OBJECT, again, undefined)).toEqual({ ballot: ballot(2), isStored: true });
  const found = await replica.handOffs.find(OBJECT);
  expect(Buffer.from(await device.readBody(found!.body, 0, BYTES.length))).toEqual(BYTES);
  await expect(replica.handOffs.keep(OBJECT, registerOf(3), undefined)).rejects.toMatchObject({ code: "body-gone" });
});

test("a device that is to get full keeps nothing more for others, and what it keeps stays", async () => {
  const { device, replica } = onDevice();
  await replica.handOffs.keep(OBJECT, registerOf(1), { kind: "bytes", bytes: BYTES });
  device.requireRoom = () => {
    throw new RingsteadError("device-full", "the device is full");
  };
  const full = { code: "device-full" };
  await expect(replica.handOffs.keep(OBJECT, registerOf(2), { kind: "bytes", bytes: BYTES })).rejects.toMatchObject(
    full,
  );
  await expect(replica.handOffs.keepRow(CONTAINER, LIFE, rowOf("o", 1))).rejects.toMatchObject(full);
  expect([replica.handOffs.left, (await replica.handOffs.find(OBJECT))?.register.version]).toEqual([1, ballot(1)]);
});

/** A device whose staged bodies are remembered by what became of them. */
const staging = () => {
  const ends: string[] = [];
  const { replica } = onDevice();
  const staged = {
    sealed: (id: number) => `file ${id}`,
    committed: (id: number) => void ends.push(`committed ${id}`),
    abandon: async (id: number) => void ends.push(`abandoned ${id}`),
  };
  return { ends, device: { replica, staging: staged } as unknown as ServedDevice };
};

test("a staged body that is not needed is abandoned, not forgotten", async () => {
  const { device, ends } = staging();
  const header = (register: Register, stagedId: number) => [
    spaceCode(OBJECT.space),
    OBJECT.hash32,
    OBJECT.path,
    packRegister(register),
    2,
    stagedId,
  ];
  const message = (register: Register, stagedId: number) => new HeaderReader(header(register, stagedId));
  await device.replica.take(OBJECT, registerOf(2), { kind: "bytes", bytes: BYTES });
  expect(await take(message(registerOf(2), 7), Buffer.alloc(0))(device)).toEqual({ header: [0] });
  await device.replica.handOffs.keep(OBJECT, registerOf(2), { kind: "bytes", bytes: BYTES });
  expect(await keep(message(registerOf(2), 8), Buffer.alloc(0))(device)).toEqual({ header: [ballot(2)] });
  // Refused: its writer names it again, under a ballot above that.
  expect(await keep(message(registerOf(1), 9), Buffer.alloc(0))(device)).toEqual({ header: [ballot(2)] });
  expect(ends).toEqual(["abandoned 7", "abandoned 8"]);
});

test("a copy is kept until nobody can finish an earlier version over it any more", async () => {
  const { replica } = onDevice();
  const earlier = {
    bodyVersion: ballot(1),
    isTombstone: false,
    bodyLength: 0,
    metadata: Buffer.from("m1"),
    body: "none",
  } as const;
  await replica.accept(OBJECT, ballot(1), ballot(1), earlier, NONE, [ballot(1)]);
  await replica.prepare(OBJECT, ballot(5), [ballot(1)]);
  const later = registerOf(2, { bodyLength: 0 });
  const offer = async () => (await replica.take(OBJECT, later, NONE)).answer;
  expect([await offer(), await offer()]).toEqual(["unsettled", "unsettled"]);
  expect((await replica.accept(OBJECT, ballot(1), ballot(5), earlier, NONE, [ballot(1)])).kind).toBe("accepted");
  expect(await offer()).toBe("settled");
  expect((await replica.read(OBJECT))?.register.version).toBe(ballot(2));
});

test("a kept row of a container whose deletion was forgotten is over, not one of a container that is yet to be heard of [H7]", () => {
  const start = LIFE.slice(0, 16) as HybridTimestamp;
  const record = { status: "open", incarnation: LIFE, headers: {} } as const;
  expect(isLifeForgotten(undefined, LIFE, start)).toBe(true);
  expect(isLifeForgotten(undefined, LIFE, before)).toBe(false);
  expect(isLifeForgotten({ record, isTombstone: false, isConfirmed: true }, LIFE, start)).toBe(false);
});

test("a voter that forgot the deletion of a container says that a kept row of it is over, and to a writer nothing", async () => {
  const device = new MemoryDevice((done) => queueMicrotask(done));
  const marks = new ReclaimMarks();
  const start = LIFE.slice(0, 16) as HybridTimestamp;
  marks.raise({ space: "container", partition: 0, partitionPower: 4 }, { registers: start, rows: before });
  const replica = new DeviceReplica(device, clock, [1n, 2n], undefined, undefined, marks);
  const kindOf = async (isKept: boolean) => (await replica.row(CONTAINER, LIFE, rowOf("o", 1), 0, false, isKept)).kind;
  expect([await kindOf(true), await kindOf(false)]).toEqual(["moved", "behind"]);
});

test("what is kept is the highest ballot of a name, and is there after a loss of power", async () => {
  const { device, replica } = onDevice();
  await replica.handOffs.keep(OBJECT, registerOf(2), { kind: "bytes", bytes: BYTES });
  await replica.handOffs.keep(OBJECT, registerOf(1, { bodyLength: 0 }), NONE);
  await replica.handOffs.keepRow(CONTAINER, LIFE, rowOf("o", 2, true));
  await replica.handOffs.keepRow(CONTAINER, LIFE, rowOf("o", 1));
  expect(replica.handOffs.left).toBe(2);
  const after = onDevice(device.afterCrash()).replica;
  await after.handOffs.count();
  expect(after.handOffs.left).toBe(2);
  expect((await after.handOffs.find(OBJECT))?.register.version).toBe(ballot(2));
  expect(
    (await after.handOffs.rows(CONTAINER, LIFE, QUERY)).map(({ isDeleted, version }) => [isDeleted, version]),
  ).toEqual([[true, ballot(2)]]);
});

test("a hand-off never answers as a member with what it keeps [H1]", async () => {
  const { replica } = onDevice();
  await replica.handOffs.keep(OBJECT, registerOf(2), { kind: "bytes", bytes: BYTES });
  await replica.handOffs.keepRow(CONTAINER, LIFE, rowOf("o", 2));
  expect(await replica.read(OBJECT)).toBeUndefined();
  expect(await replica.prepare(OBJECT, ballot(1), [ballot(2)])).toMatchObject({
    kind: "promised",
    register: undefined,
    fates: ["never"],
  });
  expect(replica.summary(CONTAINER, LIFE).rows).toBe(0);
  expect((await replica.unsettled(new Uint8Array(0), NOW_MS + 1000)).registers).toEqual([]);
  for (const key of [keptRegisterKey(OBJECT), keptRowKey(CONTAINER, LIFE, "o")])
    expect([spaceOfKey(key), spaceOfReplicated(key)]).toEqual([undefined, undefined]);
});

test("only what was sent on is dropped, not a later version that came meanwhile", async () => {
  const { replica } = onDevice();
  await replica.handOffs.keep(OBJECT, registerOf(1), { kind: "bytes", bytes: BYTES });
  const [entry] = await replica.handOffs.page(undefined, 10);
  await replica.handOffs.keep(OBJECT, registerOf(2), { kind: "bytes", bytes: BYTES });
  await replica.handOffs.drop(entry!.key, entry!.value);
  expect([replica.handOffs.left, (await replica.handOffs.find(OBJECT))?.register.version]).toEqual([1, ballot(2)]);
  const [later] = await replica.handOffs.page(undefined, 10);
  await replica.handOffs.drop(later!.key, later!.value);
  expect([replica.handOffs.left, await replica.handOffs.find(OBJECT)]).toEqual([0, undefined]);
});

test("kept rows are listed in pages, in both directions", async () => {
  const { replica } = onDevice();
  for (const name of ["a", "b/1", "b/2", "c"]) await replica.handOffs.keepRow(CONTAINER, LIFE, rowOf(name, 1));
  await replica.handOffs.keepRow({ ...CONTAINER, path: "/a/c2" }, LIFE, rowOf("z", 1));
  const names = async (change: Partial<ListQuery>): Promise<readonly string[]> =>
    (await replica.handOffs.rows(CONTAINER, LIFE, { ...QUERY, ...change })).map(({ name }) => name);
  expect(await names({})).toEqual(["a", "b/1", "b/2", "c"]);
  expect(await names({ marker: "a", limit: 2 })).toEqual(["b/1", "b/2"]);
  expect(await names({ prefix: "b/" })).toEqual(["b/1", "b/2"]);
  expect(await names({ isReverse: true, marker: "c", endMarker: "a" })).toEqual(["b/2", "b/1"]);
  expect(await names({ marker: "c", prefix: "b/" })).toEqual([]);
});

test("a member takes a copy whatever it promised, with its body, and somebody is to finish it", async () => {
  const { replica } = onDevice();
  expect((await replica.prepare(OBJECT, ballot(5), [])).kind).toBe("promised");
  const offer = async (time: number, body?: NewBody) => (await replica.take(OBJECT, registerOf(time), body)).answer;
  expect(await offer(2)).toBe("wanted");
  expect(await offer(2, { kind: "bytes", bytes: BYTES })).toBe("unsettled");
  const stored = await replica.read(OBJECT);
  expect([stored?.register.version, stored?.register.state, stored?.body.kind]).toEqual([ballot(2), "accepted", "log"]);
  expect(replica.lately(NOW_MS + 60_000).registers.map(({ register }) => register.version)).toEqual([ballot(2)]);
  expect(await offer(1)).toBe("unsettled");
  expect((await replica.read(OBJECT))?.register.version).toBe(ballot(2));
});

test("a copy from before deletions that were forgotten brings nothing back [H7]", () => {
  const copy = registerOf(2);
  expect(decideTake(undefined, stamp(1), copy)).toBe("take");
  expect(decideTake(undefined, stamp(2), copy)).toBe("forgotten");
  expect(decideTake(registerOf(1), stamp(2), copy)).toBe("take");
  expect(decideTake({ ...copy, ballot: ballot(9) }, stamp(0), copy)).toBe("has");
  expect(decideTake(registerOf(1, { ballot: ballot(9) }), stamp(0), copy)).toBe("take");
  expect(decideTake(registerOf(3), stamp(0), copy)).toBe("has");
});

test("a kept row stays where a member has yet to hear of the container", async () => {
  const { replica } = onDevice();
  const behind = await replica.row(CONTAINER, LIFE, rowOf("o", 1));
  expect([behind.kind, isRowSettled(behind.kind)]).toEqual(["behind", false]);
  const metadata = encodeContainerRecord({ status: "open", incarnation: LIFE, headers: {} });
  await replica.accept(
    CONTAINER,
    ballot(1),
    ballot(1),
    { bodyVersion: ballot(1), isTombstone: false, bodyLength: 0, metadata, body: "none" },
    NONE,
    [ballot(1)],
  );
  const stored = await replica.row(CONTAINER, LIFE, rowOf("o", 1));
  expect([stored.kind, isRowSettled(stored.kind)]).toEqual(["stored", true]);
});

test("keys of kept entries have the bytes of FORMAT.md, and tell what they are of", () => {
  const name = { space: "container", hash32: 0xdeadbeef, path: "/a/c" } as const;
  expect(keptRegisterKey(name).toString("hex")).toBe("000000002168" + "01" + "deadbeef" + "6f" + "2f612f63");
  const row = keptRowKey(name, LIFE, "o\0p");
  expect(row.toString("hex")).toBe(`00000000216801deadbeef722f612f6300${"31".repeat(24)}006f0070`);
  expect(keptPlaceOf(row)).toEqual({ kind: "row", name, incarnation: LIFE, rowName: "o\0p" });
  expect(keptPlaceOf(keptRegisterKey(name))).toEqual({ kind: "register", name });
  expect(() => keptPlaceOf(Buffer.concat([KEPT_KEYS.gte, Buffer.alloc(8)]))).toThrow("cannot be decoded");
  expect(Buffer.compare(KEPT_KEYS.gte, row) < 0 && Buffer.compare(row, KEPT_KEYS.lt) < 0).toBe(true);
});
