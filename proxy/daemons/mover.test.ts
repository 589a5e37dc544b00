import { expect, test } from "vitest";
import { TIMESTAMP_ZERO } from "../../common/hybrid-clock.ts";
import { silentLog } from "../../common/log.ts";
import { seededRandom } from "../../common/random.ts";
import { addDevice, buildRing, createBuilder } from "../../ring/builder.ts";
import { rebalance } from "../../ring/rebalance.ts";
import { createRing, type Ring } from "../../ring/ring.ts";
import type { Configuration, Space } from "../../storage-node/wire.ts";
import type { MoveOutcome } from "../core/partition-move.ts";
import type { DeviceEpoch } from "../object-service/move-io.ts";
import type { LeaseAnswer } from "../object-service/mover-lease.ts";
import { Partition } from "../object-service/partition.ts";
import { Mover, type MoveProgress } from "./mover.ts";

const signal = new AbortController().signal;

/** The ring of three replicas over so many nodes, grown from that of four. */
const ringsOf = (...counts: readonly number[]): Ring[] => {
  const builder = createBuilder({ partitionPower: 5, replicas: 3, minPartHours: 0, seed: 1n });
  let nodes = 0;
  return counts.map((count, step) => {
    for (; nodes < count; nodes++)
      addDevice(builder, { region: 1, zone: 1, node: `n${nodes}`, device: "d1", weight: 100 });
    rebalance(builder, { random: seededRandom(BigInt(step + 1)), nowMs: 0 });
    return createRing(buildRing(builder));
  });
};

const idsOf = (ring: Ring, partition: number): string[] => ring.primaries(partition).map(({ node }) => `${node}/d1`);

/** Partitions that move at once, or copy first; what devices were told to give back. */
class World {
  readonly base: Ring;
  target: Ring;
  changes = 0;
  refusal: string | undefined;
  lease: LeaseAnswer = { kind: "taken" };
  isAway = false;
  copies = 0;
  mostAtOnce = 0;
  readonly moved: number[] = [];
  readonly released: string[] = [];
  leftovers: DeviceEpoch[] = [];
  readonly told: MoveProgress[] = [];
  readonly #partitions = new Map<string, Partition>();
  readonly #copying = new Set<Partition>();

  constructor(base: Ring, target: Ring) {
    this.base = base;
    this.target = target;
  }

  partition(space: Space, number: number): Partition {
    const key = `${space} ${number}`;
    let partition = this.#partitions.get(key);
    if (partition === undefined) {
      const old = idsOf(this.base, number).map((id) => ({ id, since: 0 }));
      const place = { space, partition: number, partitionPower: this.base.partitionPower };
      const first = { epoch: 0, old, next: undefined, floor: TIMESTAMP_ZERO };
      partition = new Partition(place, first, () => ({ client: { rpc: {}, device: "d1" } }) as never);
      this.#partitions.set(key, partition);
    }
    return partition;
  }

  readonly mover = new Mover({
    targets: {
      changes: 0,
      look: () => {},
      ringOf: () => this.target,
      refusalOf: () => this.refusal,
    },
    partitions: {
      ringOf: () => this.base,
      partition: (space, number) => this.partition(space, number),
      replica: () => undefined,
    },
    moves: {
      move: async (partition, target): Promise<MoveOutcome> => {
        if (this.isAway) return "unavailable";
        if (this.copies > 0 && !this.#copying.has(partition)) {
          this.copies -= 1;
          this.#copying.add(partition);
          return "copying";
        }
        const { configuration } = partition.members;
        const next: Configuration = {
          ...configuration,
          epoch: configuration.epoch + 2,
          old: target.map((id) => ({ id, since: 1 })),
        };
        partition.learn(next);
        this.moved.push(partition.place.partition);
        this.mostAtOnce = Math.max(this.mostAtOnce, this.mover.progress().rings[partition.place.space].moving);
        return "done";
      },
      release: async ({ place }, id) => {
        this.released.push(`${place.space} ${place.partition} ${id}`);
        this.leftovers = this.leftovers.filter((one) => one.id !== id || one.partition !== place.partition);
        return true;
      },
      follow: async () => this.leftovers,
    },
    lease: { take: async () => this.lease, give: async () => {} },
    log: silentLog,
    onProgress: (progress) => void this.told.push(progress),
  });
}

test("every partition whose members differ from the ring is moved, a bounded number at once, and who left gives back what it held", async () => {
  const [base, target] = ringsOf(4, 5) as [Ring, Ring];
  const world = new World(base, target);
  await world.mover.work(signal);
  const differing = Array.from({ length: 32 }, (_, number) => number).filter(
    (number) => !idsOf(base, number).every((id) => idsOf(target, number).includes(id)),
  );
  expect(differing.length).toBeGreaterThan(5);
  expect(world.moved.toSorted((a, b) => a - b)).toEqual(
    [...differing, ...differing, ...differing].toSorted((a, b) => a - b),
  );
  expect(world.mostAtOnce).toBeLessThanOrEqual(32);
  const leaving = differing.flatMap((number) =>
    idsOf(base, number).filter((id) => !idsOf(target, number).includes(id)),
  );
  expect(world.released).toHaveLength(3 * leaving.length);
  expect(world.told.at(-1)?.rings.object).toMatchObject({ toMove: 0, moving: 0, done: differing.length });
});

test("a partition whose newcomer copies is looked at again, and is on its way until then", async () => {
  const [base, target] = ringsOf(4, 5) as [Ring, Ring];
  const world = new World(base, target);
  world.copies = 1;
  await world.mover.work(signal);
  expect(world.mover.progress()).toMatchObject({ isMover: true, rings: { account: { toMove: 1, moving: 1 } } });
  await new Promise((resolve) => setTimeout(resolve, 250));
  await world.mover.work(signal);
  expect(world.mover.progress().rings.account).toMatchObject({ toMove: 0, moving: 0 });
});

test("without the lease nothing is moved, and what is to move is known", async () => {
  const [base, target] = ringsOf(4, 5) as [Ring, Ring];
  const world = new World(base, target);
  world.lease = { kind: "held" };
  await world.mover.work(signal);
  expect(world.moved).toEqual([]);
  expect(world.mover.progress()).toMatchObject({ isMover: false });
  expect(world.mover.progress().rings.object.toMove).toBeGreaterThan(5);
});

test("a proxy with an older ring than one that data was moved by moves nothing back, and says so", async () => {
  const [base, target] = ringsOf(4, 5) as [Ring, Ring];
  const world = new World(base, target);
  world.lease = { kind: "outdated", ring: "container", version: 99 };
  await world.mover.work(signal);
  expect(world.moved).toEqual([]);
  expect(world.mover.progress().rings.container.refusal).toContain("data was moved by version 99 already");
  expect(world.mover.progress().rings.object.refusal).toBeUndefined();
});

test("a partition that too few devices answer for stays to be moved", async () => {
  const [base, target] = ringsOf(4, 5) as [Ring, Ring];
  const world = new World(base, target);
  world.isAway = true;
  await world.mover.work(signal);
  const { toMove } = world.mover.progress().rings.object;
  expect(toMove).toBeGreaterThan(5);
  expect(world.released).toEqual([]);
});

test("what a device holds of a partition that it left, and was away when it was told, is given back later", async () => {
  const [base] = ringsOf(4) as [Ring];
  const world = new World(base, base);
  const { configuration } = world.partition("object", 3).members;
  const stranger = ["n0/d1", "n1/d1", "n2/d1", "n3/d1"].find((id) => !configuration.old.some((one) => one.id === id))!;
  const known = { space: "object", partition: 3, hasCaughtUp: true, isSealed: false, configuration } as const;
  world.leftovers = [
    { ...known, id: stranger, entries: 7 },
    { ...known, id: configuration.old[0]!.id, entries: 9 },
  ];
  await world.mover.work(signal);
  expect(world.released).toEqual([`object 3 ${stranger}`]);
  expect(world.mover.progress().rings.object.entriesToRelease).toBe(0);
});
