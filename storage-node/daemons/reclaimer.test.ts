import { expect, test } from "vitest";
import { type Ballot, ballotOf, NO_INCARNATION } from "../../common/ballot.ts";
import { codeOf, RingsteadError } from "../../common/errors.ts";
import { TIMESTAMP_ZERO, timestampAt } from "../../common/hybrid-clock.ts";
import { DeviceReplica } from "../device-replica.ts";
import type { DeviceEngine } from "../engine/device-engine.ts";
import { MemoryDevice } from "../engine/memory-device.ts";
import { PartitionEpochs } from "../partition-epochs.ts";
import { ReclaimMarks } from "../reclaim-marks.ts";
import { LocalSource } from "../repair/local-source.ts";
import { UNPACED } from "../repair/partition-repair.ts";
import type { RepairSource } from "../repair/repair-peer.ts";
import { entryDigests } from "../store/entry-digest.ts";
import { Votes } from "../votes.ts";
import type { Configuration, Name, Proposal, Row } from "../wire.ts";
import { Reclaimer } from "./reclaimer.ts";

const DAY_MS = 86_400_000;
const START_MS = 1_700_000_000_000;
const POWER = 4;
const IDS = ["a/d1", "b/d1", "c/d1"];
const NAME: Name = { space: "object", hash32: 0x3000_0001, path: "/a/c/o" };
const ACCOUNT: Name = { space: "account", hash32: 0x3000_0001, path: "/a" };
const PLACE = { space: "object", partition: 3, partitionPower: POWER } as const;
const signal = new AbortController().signal;

let nowMs = START_MS;
const clock = { nowMs: () => nowMs };
const ballot = (aheadMs: number): Ballot => ballotOf(NO_INCARNATION, timestampAt(START_MS + aheadMs), "00000001");
const emptyDevice = (): MemoryDevice =>
  new MemoryDevice((done) => void setImmediate(done), undefined, entryDigests(Buffer.alloc(32)));

const opened = async (engine: DeviceEngine, id: string): Promise<DeviceReplica> => {
  const of = { partitionPower: POWER, idsOf: () => IDS };
  const epochs = await PartitionEpochs.opened(engine, id, { account: of, container: of, object: of });
  const votes = await Votes.opened(engine, clock, true);
  return new DeviceReplica(engine, clock, [1n, 2n], votes, epochs, await ReclaimMarks.opened(engine));
};

const deletion: Proposal = {
  bodyVersion: ballot(0),
  isTombstone: true,
  bodyLength: 0,
  metadata: new Uint8Array(),
  body: "none",
};

const acceptAt = (replica: DeviceReplica, at: Ballot, proposal: Partial<Proposal> = {}) =>
  replica.accept(NAME, at, at, { ...deletion, bodyVersion: at, ...proposal }, { kind: "none" }, [at]);

const rowOf = (isDeleted: boolean, aheadMs: number): Row => ({
  name: "c",
  version: ballot(aheadMs),
  isDeleted,
  objects: isDeleted ? 0 : 1,
  bytes: 0,
  payload: new Uint8Array(),
});

type Cluster = { readonly engines: MemoryDevice[]; readonly replicas: DeviceReplica[]; readonly away: Set<string> };

/** Three replicas with a deleted object and a deleted row of the same age. */
const cluster = async (): Promise<Cluster> => {
  nowMs = START_MS;
  const engines = IDS.map(emptyDevice);
  const replicas = await Promise.all(engines.map((engine, index) => opened(engine, IDS[index]!)));
  nowMs = START_MS + 1000;
  for (const replica of replicas) {
    expect((await acceptAt(replica, ballot(500))).kind).toBe("accepted");
    replica.confirm(NAME, ballot(500), false);
    await replica.row(ACCOUNT, NO_INCARNATION, rowOf(false, 400));
    await replica.row(ACCOUNT, NO_INCARNATION, rowOf(true, 500));
  }
  return { engines, replicas, away: new Set() };
};

const reclaimerOf = ({ away, replicas }: Cluster, index: number): Reclaimer =>
  new Reclaimer({
    device: "d1",
    replica: replicas[index]!,
    powers: { account: POWER, container: POWER, object: POWER },
    reclaimDays: 7,
    peerOf: (id): Pick<RepairSource, "confirmReclaims"> => {
      if (!away.has(id)) return new LocalSource(replicas[IDS.indexOf(id)]!);
      return { confirmReclaims: () => Promise.reject(new RingsteadError("rpc-timeout", "nobody is there")) };
    },
    pace: UNPACED,
    clock,
  });

const entriesOf = async (replica: DeviceReplica): Promise<number> => {
  const pages = [PLACE, { ...PLACE, space: "account" as const }].map((place) =>
    replica.deletions.page(place, undefined, Number.POSITIVE_INFINITY),
  );
  return (await Promise.all(pages)).reduce((sum, { doomed }) => sum + doomed.length, 0);
};

test("deletions stay for the reclaim age, and then go from one device after the other, which tell each other [E2, E5]", async () => {
  const it = await cluster();
  const reclaimers = IDS.map((_, index) => reclaimerOf(it, index));
  nowMs = START_MS + 7 * DAY_MS - 1000;
  await reclaimers[0]!.work(signal);
  expect(await Promise.all(it.replicas.map(entriesOf))).toEqual([2, 2, 2]);
  nowMs += DAY_MS;
  await reclaimers[0]!.work(signal);
  expect(reclaimers[0]!.figures).toEqual({ reclaimedEntries: 2, unreclaimedEntries: 0, reclaimRounds: 2 });
  expect(await Promise.all(it.replicas.map(entriesOf))).toEqual([0, 2, 2]);
  // Their own rounds are not due yet.
  for (const reclaimer of [reclaimerOf(it, 1), reclaimerOf(it, 2)]) await reclaimer.work(signal);
  expect(await Promise.all(it.replicas.map(entriesOf))).toEqual([0, 0, 0]);
  for (const replica of it.replicas) expect(await replica.held(NAME)).toBeUndefined();
});

test("a deletion stays while a member is away, or has not got it, or does not vote [E2, E4]", async () => {
  const it = await cluster();
  nowMs = START_MS + 30 * DAY_MS;
  it.away.add("c/d1");
  const reclaimer = reclaimerOf(it, 0);
  await reclaimer.round(nowMs - 7 * DAY_MS, signal);
  expect(reclaimer.figures).toMatchObject({ reclaimedEntries: 0, unreclaimedEntries: 2 });
  it.away.clear();
  it.replicas[2] = await opened(emptyDevice(), "c/d1");
  await reclaimer.round(nowMs - 7 * DAY_MS, signal);
  expect(reclaimer.figures).toMatchObject({ reclaimedEntries: 0, unreclaimedEntries: 2 });
});

test("while members change nothing is forgotten", async () => {
  const it = await cluster();
  nowMs = START_MS + 30 * DAY_MS;
  const old = IDS.map((id) => ({ id, since: 0 }));
  const joint: Configuration = {
    epoch: 1,
    old,
    next: [...old.slice(1), { id: "d/d1", since: 1 }],
    floor: TIMESTAMP_ZERO,
  };
  for (const replica of it.replicas) await replica.configure(PLACE, joint);
  const reclaimer = reclaimerOf(it, 0);
  await reclaimer.round(nowMs - 7 * DAY_MS, signal);
  // The row's partition of accounts is not on its way.
  expect(reclaimer.figures.reclaimedEntries).toBe(1);
  expect((await it.replicas[0]!.held(NAME))?.register.isTombstone).toBe(true);
});

test("what is as old as a forgotten deletion is refused, also after a restart; what is later is taken", async () => {
  const it = await cluster();
  nowMs = START_MS + 30 * DAY_MS;
  await reclaimerOf(it, 0).round(nowMs - 7 * DAY_MS, signal);
  const again = await opened(it.engines[0]!.afterCrash(), "a/d1");
  for (const replica of [it.replicas[0]!, again]) {
    const refused = await acceptAt(replica, ballot(400), { isTombstone: false });
    expect(refused).toMatchObject({ kind: "refused", fates: ["unknown"] });
    expect((await replica.prepare(NAME, ballot(500), [])).kind).toBe("refused");
    expect(await replica.row(ACCOUNT, NO_INCARNATION, rowOf(false, 400))).toEqual({ kind: "old" });
    expect(await replica.row(ACCOUNT, NO_INCARNATION, rowOf(true, 400))).toEqual({ kind: "stored" });
    expect(replica.summary(ACCOUNT, NO_INCARNATION)).toMatchObject({ rows: 0, setHash: "0" });
  }
  expect(await again.row(ACCOUNT, NO_INCARNATION, rowOf(false, 600))).toEqual({ kind: "stored" });
  expect((await acceptAt(again, ballot(10 * DAY_MS))).kind).toBe("accepted");
});

test("a deletion that came back from a replica that has yet to forget it is not kept again", async () => {
  const it = await cluster();
  nowMs = START_MS + 30 * DAY_MS;
  await reclaimerOf(it, 0).round(nowMs - 7 * DAY_MS, signal);
  const stored = await it.replicas[1]!.held(NAME);
  expect(stored?.register.isTombstone).toBe(true);
  expect(it.replicas[0]!.weighs(NAME, stored!.register)).toBe("skip");
  await it.replicas[0]!.installRows(ACCOUNT, [rowOf(true, 500)]);
  expect(await entriesOf(it.replicas[0]!)).toBe(0);
  // What is live there is no deletion that all of them had.
  await it.replicas[0]!.installRows(ACCOUNT, [{ ...rowOf(false, 300), name: "other" }]);
  expect(it.replicas[0]!.summary(ACCOUNT, NO_INCARNATION).rows).toBe(1);
});

test("a device without room forgets nothing, and refuses no more than before", async () => {
  const it = await cluster();
  nowMs = START_MS + 30 * DAY_MS;
  const apply = it.engines[0]!.apply.bind(it.engines[0]!);
  it.engines[0]!.apply = () => Promise.reject(new RingsteadError("device-full", "no room"));
  const reclaimer = reclaimerOf(it, 0);
  await reclaimer.round(nowMs - 7 * DAY_MS, signal);
  expect(reclaimer.figures).toMatchObject({ reclaimedEntries: 0, unreclaimedEntries: 2 });
  expect(reclaimer.status()["lastError"]).toContain("device-full");
  it.engines[0]!.apply = apply;
  const asked = [{ key: Buffer.from([0x30, 0, 0, 2, 0x6f, 0x78]), ballot: ballot(400) }];
  expect(await it.replicas[0]!.deletions.confirm(PLACE, 0, asked)).toEqual(["kept"]);
});

test("who votes in another epoch confirms nothing", async () => {
  const it = await cluster();
  const refused = it.replicas[0]!.deletions.confirm(PLACE, 2, []).then(() => "confirmed", codeOf);
  expect(await refused).toBe("epoch-ahead");
});
