import { expect, test } from "vitest";
import { type Ballot, NO_INCARNATION, ballotOf } from "../common/ballot.ts";
import { codeOf, RingsteadError } from "../common/errors.ts";
import { type HybridTimestamp, TIMESTAMP_ZERO, timestampAt } from "../common/hybrid-clock.ts";
import { DeviceReplica } from "./device-replica.ts";
import { MemoryDevice } from "./engine/memory-device.ts";
import { type FirstMembers, PartitionEpochs } from "./partition-epochs.ts";
import { EPOCH_KEYS } from "./store/keys.ts";
import {
  type Configuration,
  configurationName,
  HeaderReader,
  type Name,
  type Proposal,
  unpackConfiguration,
} from "./wire.ts";

const NOW_MS = 1_700_000_000_000;
const SELF = "n/b";
const of = { partitionPower: 4, idsOf: () => ["n/a", SELF, "n/c"] };
const FIRST: FirstMembers = { account: of, container: of, object: of };
const PLACE = { space: "object", partition: 3, partitionPower: 4 } as const;
const NAME = { space: "object", hash32: 0x3000_0001, path: "/a/c/o" } as const;
const ELSEWHERE = { ...NAME, hash32: 0x4000_0001 };
const members = (...ids: readonly string[]) => ids.map((id) => ({ id, since: id === "n/d" ? 1 : 0 }));
const JOINT: Configuration = {
  epoch: 1,
  old: members("n/a", SELF, "n/c"),
  next: members("n/d", SELF, "n/c"),
  floor: TIMESTAMP_ZERO,
};
const MOVED: Configuration = {
  epoch: 2,
  old: members("n/d", SELF, "n/c"),
  next: undefined,
  floor: timestampAt(NOW_MS + 1),
};
const RECORD: Proposal = {
  bodyVersion: "" as Ballot,
  isTombstone: false,
  bodyLength: 0,
  metadata: new Uint8Array(),
  body: "none",
};

const ballot = (aheadMs: number): Ballot => ballotOf(NO_INCARNATION, timestampAt(NOW_MS + aheadMs), "00000001");

const opened = async (device: MemoryDevice): Promise<DeviceReplica> =>
  new DeviceReplica(
    device,
    { nowMs: () => NOW_MS },
    [1n, 2n],
    undefined,
    await PartitionEpochs.opened(device, SELF, FIRST),
  );

const accept = (replica: DeviceReplica, version: Ballot, epoch: number, name: Name = NAME) =>
  replica.accept(name, version, version, { ...RECORD, bodyVersion: version }, { kind: "none" }, [version], epoch);

const refusal = async (work: Promise<unknown>): Promise<RingsteadError> => {
  const error: unknown = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof RingsteadError)) throw new Error("nothing was refused");
  return error;
};

test("an epoch counts from the moment on at which it is durable, and after a restart", async () => {
  const syncs: (() => void)[] = [];
  const device = new MemoryDevice((done) => syncs.push(done));
  const replica = await opened(device);
  const configured = replica.configure(PLACE, JOINT);
  await new Promise(setImmediate);
  expect(replica.epochs.configurationOf(PLACE).epoch).toBe(0);
  for (const done of syncs.splice(0)) done();
  expect(await configured).toEqual(JOINT);
  const again = await opened(device.afterCrash());
  expect(again.epochs.configurationOf(PLACE)).toEqual(JOINT);
  expect(again.epochs.of("object", ELSEWHERE.hash32)).toBeUndefined();
});

test("who asks in an epoch that is over is told the configuration, and who asks in one to come is asked for it", async () => {
  const replica = await opened(new MemoryDevice(queueMicrotask));
  expect(codeOf(await refusal(accept(replica, ballot(0), 1)))).toBe("epoch-ahead");
  await replica.configure(PLACE, JOINT);
  expect((await accept(replica, ballot(0), 1)).kind).toBe("accepted");
  expect((await accept(replica, ballot(0), 0, ELSEWHERE)).kind).toBe("accepted");
  const behind = await refusal(accept(replica, ballot(1), 0));
  expect(behind.code).toBe("epoch-behind");
  const said = behind.fields["configuration"] as readonly unknown[];
  expect(unpackConfiguration(new HeaderReader(said))).toEqual(JOINT);
});

test("a sealed replica tells the highest ballot that it took or promised, and is sealed after a restart [M3]", async () => {
  const device = new MemoryDevice(queueMicrotask);
  const replica = await opened(device);
  await replica.configure(PLACE, JOINT);
  await accept(replica, ballot(5), 1);
  await replica.prepare(NAME, ballot(7), [], 1);
  expect(codeOf(await refusal(replica.seal(PLACE, 0)))).toBe("epoch-behind");
  expect(await replica.seal(PLACE, 1)).toBe(timestampAt(NOW_MS + 7));
  for (const one of [replica, await opened(device.afterCrash())]) {
    expect(codeOf(await refusal(accept(one, ballot(9), 1)))).toBe("epoch-sealed");
    expect(codeOf(await refusal(Promise.resolve().then(() => one.read(NAME, 1))))).toBe("epoch-sealed");
  }
});

test("a repetition at or below the floor is refused, and what is above it is taken [M5]", async () => {
  const replica = await opened(new MemoryDevice(queueMicrotask));
  await replica.configure(PLACE, JOINT);
  expect((await accept(replica, ballot(0), 1)).kind).toBe("accepted");
  expect((await accept(replica, ballot(0), 1)).kind).toBe("accepted");
  await replica.configure(PLACE, MOVED);
  const repeated = await accept(replica, ballot(0), 2);
  expect(repeated).toMatchObject({ kind: "refused", floor: MOVED.floor, fates: ["accepted"] });
  expect((await accept(replica, ballot(2), 2)).kind).toBe("accepted");
});

test("an entry of another partition power, or one that cannot be read, is said with words", async () => {
  const replica = await opened(new MemoryDevice(queueMicrotask));
  expect(codeOf(await refusal(replica.configure({ ...PLACE, partitionPower: 5 }, JOINT)))).toBe("epoch-other-power");
  const damaged = { key: Buffer.concat([EPOCH_KEYS.gte, Buffer.of(9)]), value: new Uint8Array() };
  const recorded = Promise.resolve().then(() => PartitionEpochs.recorded(replica.engine, SELF, FIRST, [damaged]));
  expect(codeOf(await refusal(recorded))).toBe("epoch-damaged");
});

test("what is left where a partition was moved away is for nobody to finish", async () => {
  const replica = await opened(new MemoryDevice(queueMicrotask));
  await replica.configure(PLACE, JOINT);
  await accept(replica, ballot(0), 1);
  expect(replica.lately(NOW_MS + 1).registers).toHaveLength(1);
  const away = { ...MOVED, old: members("n/a", "n/c", "n/d"), floor: "0" as HybridTimestamp };
  await replica.configure(PLACE, away);
  expect(replica.lately(NOW_MS + 1).registers).toEqual([]);
  expect((await replica.unsettled(new Uint8Array(), NOW_MS + 1)).registers).toEqual([]);
});

test("a configuration that nobody confirmed is reported to be finished, like any other register [B7]", async () => {
  const device = new MemoryDevice(queueMicrotask);
  const replica = await opened(device);
  const name = configurationName("object", 0x3000_0000);
  expect((await accept(replica, ballot(0), 0, name)).kind).toBe("accepted");
  expect(replica.lately(NOW_MS + 1).registers.map((one) => one.name)).toEqual([name]);
  // And after a restart.
  const again = await opened(device.afterCrash());
  expect((await again.unsettled(new Uint8Array(), NOW_MS + 1)).registers.map((one) => one.name)).toEqual([name]);
  again.confirm(name, ballot(0), false);
  expect((await again.unsettled(new Uint8Array(), NOW_MS + 1)).registers).toEqual([]);
});

const ROW = { name: "r", version: ballot(0), isDeleted: false, objects: 1, bytes: 5, payload: new Uint8Array() };

/** A container with a row, and an object, in the partition; an object elsewhere. */
const filled = async (device: MemoryDevice): Promise<DeviceReplica> => {
  const replica = await opened(device);
  for (const name of [NAME, ELSEWHERE]) expect((await accept(replica, ballot(0), 0, name)).kind).toBe("accepted");
  const account: Name = { space: "account", hash32: NAME.hash32, path: "/a" };
  expect((await replica.row(account, NO_INCARNATION, ROW)).kind).toBe("stored");
  return replica;
};

test("what a device holds of a partition goes once it is no member of it any more, and nothing else does", async () => {
  const device = new MemoryDevice((done) => void setImmediate(done));
  const replica = await filled(device);
  expect((await refusal(replica.release(PLACE, 0))).code).toBe("still-a-member");
  const without: Configuration = { ...MOVED, old: members("n/d", "n/a", "n/c") };
  await replica.configure(PLACE, without);
  expect((await refusal(replica.release(PLACE, 4))).code).toBe("still-a-member");
  expect(await replica.release(PLACE, 2)).toBe(1);
  const again = await opened(device.afterCrash());
  expect([await again.held(NAME), (await again.held(ELSEWHERE))?.register.version]).toEqual([undefined, ballot(0)]);
  expect(again.epochs.configurationOf(PLACE)).toEqual(without);
  // A second time, as after a crash in the middle.
  expect(await again.release(PLACE, 2)).toBe(0);
});

test("rows of a partition that was given back are counted from nothing when it comes again", async () => {
  const device = new MemoryDevice((done) => void setImmediate(done));
  const replica = await filled(device);
  const place = { ...PLACE, space: "account" } as const;
  const account: Name = { space: "account", hash32: NAME.hash32, path: "/a" };
  expect(replica.summary(account, NO_INCARNATION).rows).toBe(1);
  await replica.configure(place, { ...MOVED, old: members("n/d", "n/a", "n/c") });
  expect(await replica.release(place, 2)).toBeGreaterThan(0);
  expect(replica.summary(account, NO_INCARNATION)).toMatchObject({ rows: 0, objects: 0, bytes: 0 });
  // The answer to a pull that was asked for before.
  await replica.installRows(account, [ROW]);
  expect(replica.summary(account, NO_INCARNATION).rows).toBe(0);
  const next = [...members("n/d", "n/a"), { id: SELF, since: 3 }];
  await replica.configure(place, { ...MOVED, epoch: 3, old: members("n/d", "n/a", "n/c"), next });
  await replica.installRows(account, [ROW]);
  expect(replica.summary(account, NO_INCARNATION)).toMatchObject({ rows: 1, objects: 1, bytes: 5 });
});

test("a device knows which partitions it enters until it has caught up, also after a restart", async () => {
  const device = new MemoryDevice((done) => void setImmediate(done));
  const replica = await opened(device);
  expect(replica.epochs.isEntering).toBe(false);
  const entering: Configuration = { ...JOINT, old: members("n/a", "n/x", "n/c"), next: [{ id: SELF, since: 1 }] };
  await replica.configure(PLACE, entering);
  const again = await opened(device.afterCrash());
  expect([again.epochs.isEntering, [...again.epochs.entering("object")]]).toEqual([true, [PLACE.partition]]);
  await again.epochs.change(PLACE, { kind: "catch-up", epoch: 1 });
  expect(again.epochs.isEntering).toBe(false);
});

test("moved partitions are told in pages, in order", async () => {
  const replica = await opened(new MemoryDevice((done) => void setImmediate(done)));
  for (const partition of [9, 3, 12]) await replica.configure({ ...PLACE, partition }, JOINT);
  const told = replica.epochs.movedFrom("object", 4, 4, 10).map(([partition]) => partition);
  expect(told).toEqual([9, 12]);
  expect(replica.epochs.movedFrom("object", 4, 0, 2).map(([partition]) => partition)).toEqual([3, 9]);
  expect(() => replica.epochs.movedFrom("object", 5, 0, 2)).toThrow("2^4 partitions");
});

test("a device that takes itself for a member tells from others that it is none", async () => {
  const replica = await opened(new MemoryDevice((done) => void setImmediate(done)));
  expect([replica.epochs.isStranger(PLACE, "n/a"), replica.epochs.isStranger(PLACE, "n/z")]).toEqual([false, true]);
  await replica.configure(PLACE, JOINT);
  expect(replica.epochs.isStranger(PLACE, "n/d")).toBe(false);
});

test("a device that never kept a partition answers nobody in epoch 0: who asks has another ring of the beginning", async () => {
  const others = {
    partitionPower: 4,
    idsOf: (partition: number) => (partition === 3 ? ["n/a", "n/x", "n/c"] : [SELF]),
  };
  const device = new MemoryDevice(queueMicrotask);
  const epochs = await PartitionEpochs.opened(device, SELF, { account: others, container: others, object: others });
  const replica = new DeviceReplica(device, { nowMs: () => NOW_MS }, [1n, 2n], undefined, epochs);
  expect(codeOf(await refusal(accept(replica, ballot(0), 0)))).toBe("not-a-member");
  expect((await accept(replica, ballot(0), 0, ELSEWHERE)).kind).toBe("accepted");
});
