import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { systemClock } from "../../common/clock.ts";
import { RingsteadError } from "../../common/errors.ts";
import { hybridClock, TIMESTAMP_ZERO } from "../../common/hybrid-clock.ts";
import { silentLog } from "../../common/log.ts";
import { RpcClient } from "../../common/rpc/client.ts";
import { RpcServer } from "../../common/rpc/server.ts";
import { placementIdentity } from "../../ring/base-ring.ts";
import { createRing, type Ring } from "../../ring/ring.ts";
import { HeaderReader, METHOD_EPOCHS, type MovedPartition, packMoved, type Space } from "../../storage-node/wire.ts";
import { surveyOf } from "../daemons/move-survey.ts";
import { Ballots } from "./ballots.ts";
import { MoveIo } from "./move-io.ts";
import { Partitions } from "./partitions.ts";
import { RegisterIo } from "./register-io.ts";

const KEY = Buffer.alloc(32, 7);
const POWER = 12;
const PAGE = 1000;
const DEVICES = ["d1", "d2", "d3", "d4"];
const idOf = (device: string): string => `n/${device}`;

const ringOf = (...ids: readonly number[]): Ring =>
  createRing({
    version: 1,
    hashSeed: 1n,
    partitionPower: POWER,
    replicas: 3,
    devices: DEVICES.map((device, id) => ({ id, region: 1, zone: 1, node: "n", device, weight: 1 })),
    assignments: Uint16Array.from({ length: 3 * 2 ** POWER }, (_, slot) => ids[slot % 3] ?? 0),
  });

/** A node whose devices say what they are given to say of the ring of objects. */
class Teller implements AsyncDisposable {
  readonly #server: RpcServer;
  readonly moved = new Map<string, MovedPartition[]>();
  readonly identities = new Map<string, string>();
  /** Devices without votes. */
  readonly newcomers = new Set<string>();
  stamp = "first 1";
  asked = 0;
  isAway = false;

  constructor(path: string, identity: string) {
    this.#server = new RpcServer(
      KEY,
      (header, _body, reply) => {
        if (this.isAway) throw new RingsteadError("device-failed", "the device has failed");
        const reader = new HeaderReader(header);
        if (reader.count() !== METHOD_EPOCHS) throw new RingsteadError("bad-message", "unknown method");
        const device = reader.text();
        const isOfObjects = reader.space() === "object";
        reader.count();
        const from = reader.count();
        this.asked += 1;
        const own = [this.identities.get(device) ?? identity, this.newcomers.has(device) ? 0 : 1];
        if (reader.text() === this.stamp) return reply.ok([[], null, this.stamp, ...own]);
        const all = isOfObjects ? (this.moved.get(device) ?? []) : [];
        const page = all.filter(({ partition }) => partition >= from);
        const next = page[PAGE]?.partition ?? null;
        return reply.ok([page.slice(0, PAGE).map(packMoved), next, this.stamp, ...own]);
      },
      silentLog,
    );
    void this.#server.listen(path);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server[Symbol.asyncDispose]();
  }
}

const BASE = ringOf(0, 1, 2);
let folder: string;
let teller: Teller;
let rpc: RpcClient;
let partitions: Partitions;
let moves: MoveIo;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ringstead-move-io-"));
  teller = new Teller(join(folder, "n"), placementIdentity(BASE));
  rpc = new RpcClient(join(folder, "n"), KEY);
  partitions = new Partitions({ account: BASE, container: BASE, object: BASE }, () => rpc);
  moves = new MoveIo(new RegisterIo(new Ballots(hybridClock(systemClock), systemClock)), partitions);
});
afterEach(async () => {
  rpc[Symbol.dispose]();
  await teller[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

/** Partitions from 0 on whose first member was replaced by d4. */
const movedOf = (count: number, entries: number): MovedPartition[] =>
  Array.from({ length: count }, (_, partition) => ({
    partition,
    hasCaughtUp: true,
    isSealed: false,
    entries,
    configuration: {
      epoch: 2,
      old: ["d4", "d2", "d3"].map((device) => ({ id: idOf(device), since: device === "d4" ? 1 : 0 })),
      next: undefined,
      floor: TIMESTAMP_ZERO,
    },
  }));

const untilAnswered = async (): Promise<void> => {
  await expect.poll(async () => (await moves.follow()).length, { timeout: 5000 }).toBe(3 * DEVICES.length);
};

test("what all devices say of thousands of partitions is heard page by page, and once as long as nothing changes there", async () => {
  const count = 2500;
  for (const device of ["d2", "d4"]) teller.moved.set(device, movedOf(count, 9));
  teller.moved.set("d1", movedOf(count, 5));
  await untilAnswered();
  const survey = surveyOf(await moves.follow(), partitions);
  expect(survey.ever.object.size).toBe(count);
  expect([survey.ever.account.size, survey.sealed.size]).toEqual([0, 0]);
  // The first member has left, and the third has not heard of it.
  expect(survey.left).toHaveLength(count);
  expect(survey.left.every(({ entries, id }) => id === idOf("d1") && entries === 5)).toBe(true);
  expect(survey.unaware).toHaveLength(count);
  expect(survey.unaware.every(({ id }) => id === idOf("d3"))).toBe(true);
  expect(partitions.partition("object", 2499).configuration.old.map(({ id }) => id)).toContain(idOf("d4"));
  expect(partitions.partition("object", 2500).configuration.epoch).toBe(0);
  teller.asked = 0;
  await moves.follow();
  expect(teller.asked).toBe(3 * DEVICES.length);
});

test("of many partitions with the same members those are in memory once", async () => {
  for (const device of ["d2", "d4"]) teller.moved.set(device, movedOf(2000, 9));
  await untilAnswered();
  const [first, ...others] = Array.from({ length: 2000 }, (_, number) => partitions.partition("object", number));
  for (const { configuration } of others)
    for (const [index, member] of configuration.old.entries()) expect(member).toBe(first?.configuration.old[index]);
});

test("a device that does not answer is known as it was", async () => {
  teller.moved.set("d1", movedOf(3, 5));
  await untilAnswered();
  teller.isAway = true;
  const survey = surveyOf(await moves.follow(), partitions);
  expect(survey.left).toHaveLength(3);
});

test("a device that began with another ring is told of, until it has the same", async () => {
  await untilAnswered();
  expect(moves.otherBase).toBeUndefined();
  teller.identities.set("d3", placementIdentity(ringOf(3, 1, 2)));
  teller.stamp = "second 1";
  await moves.follow();
  const other: { readonly id: string; readonly space: Space } = { id: idOf("d3"), space: "object" };
  expect(moves.otherBase).toEqual(other);
  teller.identities.clear();
  teller.stamp = "third 1";
  await moves.follow();
  expect(moves.otherBase).toBeUndefined();
});

test("a device with another base is told of as soon as it votes, though nothing else has changed there", async () => {
  teller.identities.set("d3", placementIdentity(ringOf(3, 1, 2)));
  teller.newcomers.add("d3");
  await untilAnswered();
  expect(moves.otherBase).toBeUndefined();
  teller.newcomers.clear();
  await moves.follow();
  expect(moves.otherBase).toMatchObject({ id: idOf("d3") });
});
