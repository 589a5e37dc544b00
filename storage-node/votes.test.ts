import { expect, test } from "vitest";
import { type Ballot, ballotOf, NO_INCARNATION } from "../common/ballot.ts";
import type { Clock } from "../common/clock.ts";
import { RingsteadError } from "../common/errors.ts";
import { timestampAt } from "../common/hybrid-clock.ts";
import { DeviceReplica } from "./device-replica.ts";
import type { DeviceEngine } from "./engine/device-engine.ts";
import { MemoryDevice } from "./engine/memory-device.ts";
import { Votes } from "./votes.ts";
import type { Name } from "./wire.ts";

const START_MS = 1_700_000_000_000;
const NAME: Name = { space: "object", hash32: 0x80000000, path: "/a/c/o" };
const PLACE = { space: "object", partitionPower: 1, partition: 1 } as const;

const movingClock = (): Clock & { ms: number } => ({
  ms: START_MS,
  nowMs() {
    return this.ms;
  },
});

const emptyDevice = (): MemoryDevice => new MemoryDevice((done) => setImmediate(done));
const ballotAt = (ms: number): Ballot => ballotOf(NO_INCARNATION, timestampAt(ms), "00000001");

const open = async (
  engine: DeviceEngine,
  clock: Clock,
  isFounding = false,
): Promise<{ readonly votes: Votes; readonly replica: DeviceReplica }> => {
  const votes = await Votes.opened(engine, clock, isFounding);
  return { votes, replica: new DeviceReplica(engine, clock, [1n, 2n], votes) };
};

const codeOf = async (work: () => Promise<unknown>): Promise<string> => {
  try {
    await work();
    return "none";
  } catch (error) {
    if (error instanceof RingsteadError) return error.code;
    throw error;
  }
};

test("an emptied device answers nothing as a replica, neither that there is nothing nor a promise [M4]", async () => {
  const { replica, votes } = await open(emptyDevice(), movingClock());
  expect(votes.isNewcomer).toBe(true);
  const proposal = { bodyVersion: ballotAt(START_MS), isTombstone: false, bodyLength: 0, metadata: Buffer.alloc(0) };
  const version = ballotAt(START_MS);
  const row = { name: "o", version, isDeleted: false, objects: 1, bytes: 0, payload: Buffer.alloc(0) };
  const query = { marker: "", endMarker: "", prefix: "", isReverse: false, limit: 10, withDeleted: false };
  const asked = [
    () => replica.read(NAME),
    () => replica.prepare(NAME, version, []),
    () => replica.accept(NAME, version, version, { ...proposal, body: "none" }, { kind: "none" }, []),
    () => replica.row({ ...NAME, space: "account" }, NO_INCARNATION, row),
    () => replica.list({ ...NAME, space: "account" }, NO_INCARNATION, query),
  ];
  for (const ask of asked) expect(await codeOf(async () => ask())).toBe("device-joining");
});

test("it stays without a vote over restarts, and votes by partition until it votes everywhere", async () => {
  const engine = emptyDevice();
  const clock = movingClock();
  const first = await open(engine, clock);
  const { life } = first.votes;
  first.replica.join(PLACE);
  expect(await codeOf(async () => first.replica.read(NAME))).toBe("none");
  expect(await codeOf(async () => first.replica.read({ ...NAME, hash32: 0 }))).toBe("device-joining");
  const second = await open(engine, clock);
  expect(second.votes.life).toBe(life);
  expect(await codeOf(async () => second.replica.read(NAME))).toBe("device-joining");
  await second.replica.joinAll();
  const third = await open(engine, clock);
  expect(third.votes.isNewcomer).toBe(false);
  expect(await codeOf(async () => third.replica.read({ ...NAME, hash32: 0 }))).toBe("none");
});

test("what it may have promised and forgotten lies below its floor, after a restart too [M4, D2]", async () => {
  const engine = emptyDevice();
  const clock = movingClock();
  const { replica, votes } = await open(engine, clock);
  expect(votes.isSafe).toBe(false);
  clock.ms += 29_999;
  expect(votes.isSafe).toBe(false);
  clock.ms += 1;
  expect(votes.isSafe).toBe(true);
  replica.join(PLACE);
  const joinedMs = clock.ms;
  const forgotten = ballotAt(joinedMs - 1);
  expect((await replica.prepare(NAME, forgotten, [])).kind).toBe("refused");
  await replica.joinAll();
  const again = await open(engine, clock);
  expect((await again.replica.prepare(NAME, forgotten, [])).kind).toBe("refused");
  expect((await again.replica.prepare(NAME, ballotAt(joinedMs + 5000), [])).kind).toBe("promised");
});

test("devices of an installation that begins vote at once, and one whose recovery found a hole does not", async () => {
  const clock = movingClock();
  const unused = emptyDevice();
  expect((await open(unused, clock, true)).votes.isNewcomer).toBe(false);
  // Nobody has written anything, and no start is the first one any more.
  expect((await open(unused, clock)).votes.isNewcomer).toBe(false);
  const engine = emptyDevice();
  const { replica } = await open(engine, clock, true);
  await replica.prepare(NAME, ballotAt(START_MS), []);
  expect((await open(engine, clock)).votes.isNewcomer).toBe(false);
  const figures = { ...engine.figures(), quarantinedRanges: 1 };
  engine.figures = () => figures;
  const { votes } = await open(engine, clock);
  expect(votes.isNewcomer).toBe(true);
  // With the next hole what it was told of its life before counts for nothing.
  expect((await open(engine, clock)).votes.life).not.toBe(votes.life);
});

test("devices remember with whom they began, over restarts", async () => {
  const clock = movingClock();
  const [engine, other] = [emptyDevice(), emptyDevice()];
  const { replica, votes } = await open(engine, clock);
  const { life } = (await open(other, clock)).votes;
  expect(votes.isFounder(life)).toBe(false);
  votes.foundWith([life]);
  replica.join(PLACE);
  await replica.joinAll();
  const again = (await open(engine, clock)).votes;
  expect(again.isFounder(life)).toBe(true);
  // Emptied once more it is another life.
  expect(again.isFounder((await open(emptyDevice(), clock)).votes.life)).toBe(false);
});
