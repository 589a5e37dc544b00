import { expect, test } from "vitest";
import { type Ballot, ballotOf, NO_INCARNATION } from "../common/ballot.ts";
import { codeOf, RingsteadError } from "../common/errors.ts";
import { TIMESTAMP_ZERO, timestampAt } from "../common/hybrid-clock.ts";
import { DeviceReplica } from "./device-replica.ts";
import type { DeviceEngine } from "./engine/device-engine.ts";
import { MemoryDevice } from "./engine/memory-device.ts";
import { type FirstMembers, PartitionEpochs } from "./partition-epochs.ts";
import type { Configuration, Name, Register, Row } from "./wire.ts";

const NOW_MS = 1_700_000_000_000;
const SELF = "n/b";
const of = { partitionPower: 4, idsOf: () => ["n/a", SELF, "n/c"] };
const FIRST: FirstMembers = { account: of, container: of, object: of };
const ACCOUNT: Name = { space: "account", hash32: 0x3000_0001, path: "/a" };
const PLACE = { space: "account", partition: 3, partitionPower: 4 } as const;
const ROWS = 700;
const NO_QUERY = { marker: "", endMarker: "", prefix: "", isReverse: false, limit: 1000, withDeleted: false };

const since = (epoch: number, ...ids: readonly string[]) => ids.map((id) => ({ id, since: epoch }));
const AWAY: Configuration = { epoch: 2, old: since(0, "n/a", "n/c", "n/d"), next: undefined, floor: TIMESTAMP_ZERO };
const BACK: Configuration = { ...AWAY, epoch: 3, next: [...since(0, "n/a", "n/c"), { id: SELF, since: 3 }] };

const ballot = (aheadMs: number): Ballot => ballotOf(NO_INCARNATION, timestampAt(NOW_MS + aheadMs), "00000001");
const rowOf = (number: number, aheadMs: number, isDeleted = false): Row => ({
  name: `row ${String(number).padStart(4, "0")}`,
  version: ballot(aheadMs),
  isDeleted,
  objects: isDeleted ? 0 : 1,
  bytes: isDeleted ? 0 : 5,
  payload: new Uint8Array(),
});

const opened = async (engine: DeviceEngine): Promise<DeviceReplica> => {
  const epochs = await PartitionEpochs.opened(engine, SELF, FIRST);
  return new DeviceReplica(engine, { nowMs: () => NOW_MS }, [1n, 2n], undefined, epochs);
};

/** A member with live rows, and with deleted ones that only look for each other as long as the counters know of them. */
const filled = async (device: MemoryDevice): Promise<DeviceReplica> => {
  const replica = await opened(device);
  const rows = Array.from({ length: ROWS }, (_, number) => rowOf(number, 0, number % 2 === 1));
  await replica.installRows(ACCOUNT, rows);
  expect(replica.summary(ACCOUNT, NO_INCARNATION).rows).toBe(ROWS / 2);
  return replica;
};

/** The device loses its power after so many commits from now on. */
const dyingAfter = (device: MemoryDevice, commits: number): MemoryDevice => {
  const apply = device.apply.bind(device);
  let left = commits;
  device.apply = (mutations) => {
    if (left-- > 0) return apply(mutations);
    return Promise.reject(new RingsteadError("device-failed", "the power is gone"));
  };
  return device;
};

test("what was asked of others before a partition was cleared, or given back, is thrown away [E3]", async () => {
  const replica = await filled(new MemoryDevice((done) => void setImmediate(done)));
  const first = replica.deletions.removalsIn(PLACE);
  await replica.configure(PLACE, AWAY);
  await replica.release(PLACE, 2);
  const second = replica.deletions.removalsIn(PLACE);
  expect(second).toBeGreaterThan(first);
  await replica.configure(PLACE, BACK);
  expect(replica.deletions.removalsIn(PLACE)).toBeGreaterThan(second);
});

test("a device that comes back takes deletions at or below what it had forgotten before, which not all others may have", async () => {
  const replica = await filled(new MemoryDevice((done) => void setImmediate(done)));
  const name: Name = { ...ACCOUNT, path: "/deleted" };
  const deletion: Register = {
    version: ballot(1),
    ballot: ballot(1),
    bodyVersion: ballot(1),
    state: "confirmed",
    isTombstone: true,
    bodyLength: 0,
    metadata: new Uint8Array(),
  };
  await replica.deletions.adopt(PLACE, { registers: timestampAt(NOW_MS + 5), rows: timestampAt(NOW_MS + 5) });
  expect(replica.weighs(name, deletion)).toBe("skip");
  await replica.configure(PLACE, AWAY);
  await replica.configure(PLACE, BACK);
  expect(replica.weighs(name, deletion)).toBe("install");
  await replica.installRows(ACCOUNT, [rowOf(ROWS, 0, true)]);
  const held = await replica.deletions.page(PLACE, undefined, Number.POSITIVE_INFINITY);
  expect(held.doomed).toHaveLength(1);
  await replica.epochs.change(PLACE, { kind: "catch-up", epoch: 3 });
  await replica.configure(PLACE, { ...BACK, epoch: 4, old: BACK.next!, next: undefined });
  expect(replica.weighs(name, deletion)).toBe("skip");
});

const NO_ROWS = { rows: 0, objects: 0, bytes: 0, setHash: "0" };

test.each([0, 1, 2])(
  "a release that was cut off after %i commits leaves nothing to the partition when it comes back, neither rows nor counters",
  async (commits) => {
    let device = new MemoryDevice((done) => void setImmediate(done));
    let replica = await filled(device);
    await replica.configure(PLACE, AWAY);
    dyingAfter(device, commits);
    await expect(replica.release(PLACE, 2)).rejects.toThrow("power");
    device = device.afterCrash();
    replica = await opened(device);
    await replica.configure(PLACE, BACK);
    expect(replica.summary(ACCOUNT, NO_INCARNATION)).toEqual(NO_ROWS);
    expect(await replica.list(ACCOUNT, NO_INCARNATION, NO_QUERY, 3).catch(codeOf)).toBe("not-a-member");
    // What it pulls then is counted as anywhere else.
    const fresh = await opened(new MemoryDevice((done) => void setImmediate(done)));
    const pulled = [rowOf(1, 5), rowOf(2, 5), rowOf(3, 5, true)];
    for (const one of [replica, fresh]) await one.installRows(ACCOUNT, pulled);
    expect(replica.summary(ACCOUNT, NO_INCARNATION)).toEqual(fresh.summary(ACCOUNT, NO_INCARNATION));
    await replica.installRows(ACCOUNT, [rowOf(3, 4)]);
    expect(replica.summary(ACCOUNT, NO_INCARNATION)).toMatchObject({ rows: 2 });
  },
);

test("a partition is not entered before all of it is gone, and who dies in the middle is told again", async () => {
  let device = new MemoryDevice((done) => void setImmediate(done));
  let replica = await filled(device);
  await replica.configure(PLACE, AWAY);
  dyingAfter(device, 1);
  await expect(replica.configure(PLACE, BACK)).rejects.toThrow("power");
  device = device.afterCrash();
  replica = await opened(device);
  expect(replica.epochs.configurationOf(PLACE).epoch).toBe(2);
  expect(replica.epochs.isEntering).toBe(false);
  const told = await Promise.all([replica.configure(PLACE, BACK), replica.configure(PLACE, BACK)]);
  expect(told).toEqual([BACK, BACK]);
  expect(replica.epochs.isEntering).toBe(true);
  expect(replica.summary(ACCOUNT, NO_INCARNATION)).toEqual(NO_ROWS);
});

test("a member that has not heard that it left answers nobody while it clears, and nothing comes to it", async () => {
  const syncs: (() => void)[] = [];
  let isHeld = false;
  const device = new MemoryDevice((done) => void (isHeld ? syncs.push(done) : setImmediate(done)));
  const replica = await filled(device);
  isHeld = true;
  const configured = replica.configure(PLACE, BACK);
  const listed = () => replica.list(ACCOUNT, NO_INCARNATION, NO_QUERY, 0).then(() => "served", codeOf);
  expect(await listed()).toBe("device-joining");
  await replica.installRows(ACCOUNT, [rowOf(1, 9)]);
  expect(replica.epochs.configurationOf(PLACE).epoch).toBe(0);
  isHeld = false;
  for (const done of syncs) done();
  expect(await configured).toEqual(BACK);
  expect(replica.summary(ACCOUNT, NO_INCARNATION)).toEqual(NO_ROWS);
});

test("a member that forgot that it is one keeps what it has", async () => {
  const replica = await filled(new MemoryDevice((done) => void setImmediate(done)));
  const still: Configuration = {
    ...BACK,
    epoch: 4,
    old: [...since(0, "n/a", "n/c"), { id: SELF, since: 3 }],
    next: undefined,
  };
  await replica.configure(PLACE, still);
  expect(replica.summary(ACCOUNT, NO_INCARNATION).rows).toBe(ROWS / 2);
});
