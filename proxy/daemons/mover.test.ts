import { afterEach, expect, test, vi } from "vitest";
import { RingsteadError } from "../../common/errors.ts";
import { TIMESTAMP_ZERO } from "../../common/hybrid-clock.ts";
import { silentLog } from "../../common/log.ts";
import { seededRandom } from "../../common/random.ts";
import { addDevice, buildRing, createBuilder } from "../../ring/builder.ts";
import { rebalance } from "../../ring/rebalance.ts";
import { createRing, type Ring } from "../../ring/ring.ts";
import type { Configuration, MovedPartition, Space } from "../../storage-node/wire.ts";
import type { MoveOutcome } from "../core/partition-move.ts";
import { DeviceEpochs } from "../object-service/device-epochs.ts";
import type { LeaseAnswer } from "../object-service/mover-lease.ts";
import { Partition } from "../object-service/partition.ts";
import { Mover, type MoveProgress } from "./mover.ts";

const signal = new AbortController().signal;

afterEach(() => vi.restoreAllMocks());

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

/** What a device says of one partition. */
type Told = MovedPartition & { readonly id: string; readonly space: Space };

const idsOf = (ring: Ring, partition: number): string[] => ring.primaries(partition).map(({ node }) => `${node}/d1`);

/** Partitions that move at once, or copy first; what devices were told to give back. */
class World {
  readonly base: Ring;
  target: Ring;
  changes = 0;
  refusal: string | undefined;
  lease: LeaseAnswer | RingsteadError = { kind: "taken" };
  isAway = false;
  copies = 0;
  mostAtOnce = 0;
  readonly moved: number[] = [];
  /** Where each partition was asked to go, in order. */
  readonly asked: { readonly partition: Partition; readonly target: readonly string[] }[] = [];
  readonly released: string[] = [];
  readonly informed: string[] = [];
  leftovers: Told[] = [];
  readonly told: MoveProgress[] = [];
  readonly #partitions = new Map<string, Partition>();
  readonly #copying = new Set<Partition>();

  constructor(base: Ring, target: Ring) {
    this.base = base;
    this.target = target;
  }

  /** Those that copied are asked to copy once more. */
  copyAgain(): void {
    this.#copying.clear();
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
        this.asked.push({ partition, target });
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
      inform: async ({ place }, id) => {
        this.informed.push(`${place.space} ${place.partition} ${id}`);
        return true;
      },
      follow: async () => this.leftovers.map((one) => new DeviceEpochs(one.id, one.space, [one])),
      otherBase: undefined,
    },
    lease: {
      take: async () => {
        if (this.lease instanceof RingsteadError) throw this.lease;
        return this.lease;
      },
      give: async () => {},
    },
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

/** A partition that goes from its first members to those of the ring, and has begun to. */
const jointOf = (world: World, number: number): Configuration => {
  const { old } = world.partition("account", number).members.configuration;
  const kept = old.filter(({ id }) => idsOf(world.target, number).includes(id));
  const entering = idsOf(world.target, number).filter((id) => !old.some((member) => member.id === id));
  const next = [...kept, ...entering.map((id) => ({ id, since: 1 }))];
  return { epoch: 1, old, next, floor: TIMESTAMP_ZERO };
};

const movingNumber = ({ base, target }: World): number =>
  Array.from({ length: 32 }, (_, number) => number).find(
    (number) => !idsOf(base, number).every((id) => idsOf(target, number).includes(id)),
  )!;

test("a member that lost its disk, and does not know that it is one, is told", async () => {
  const [base] = ringsOf(4) as [Ring];
  const world = new World(base, base);
  const configuration = { ...world.partition("object", 3).members.configuration, epoch: 2 };
  world.partition("object", 3).learn(configuration);
  const [first, second, third] = configuration.old.map(({ id }) => id);
  const known = {
    space: "object",
    partition: 3,
    hasCaughtUp: true,
    isSealed: false,
    configuration,
    entries: 0,
  } as const;
  world.leftovers = [
    { ...known, id: first! },
    { ...known, id: second! },
  ];
  await world.mover.work(signal);
  expect(world.informed).toEqual([`object 3 ${third}`]);
});

test("what has begun is brought on without the lease where that cannot be read: its own partition may be sealed", async () => {
  const [base, target] = ringsOf(4, 5) as [Ring, Ring];
  const world = new World(base, target);
  const number = movingNumber(world);
  world.partition("account", number).learn(jointOf(world, number));
  world.lease = new RingsteadError("quorum-unavailable", "the lease's partition is sealed");
  await expect(world.mover.work(signal)).rejects.toThrow("sealed");
  expect(world.asked.map(({ partition }) => partition)).toEqual([world.partition("account", number)]);
});

/** A partition that is on its way, which all its old members say is sealed. */
const sealedIn = (world: World): { readonly partition: Partition; readonly isGivenUp: () => boolean } => {
  const number = movingNumber(world);
  const configuration = jointOf(world, number);
  const partition = world.partition("account", number);
  partition.learn(configuration);
  world.copies = Number.POSITIVE_INFINITY;
  world.leftovers = configuration.old.map(({ id }) => ({
    space: "account",
    partition: number,
    id,
    hasCaughtUp: true,
    isSealed: true,
    configuration,
    entries: 0,
  }));
  const old = configuration.old.map(({ id }) => id).join();
  const isGivenUp = (): boolean => world.asked.some((one) => one.partition === partition && one.target.join() === old);
  return { partition, isGivenUp };
};

test("a sealed partition whose newcomer went goes on with the members that it had", async () => {
  let nowMs = 1000;
  vi.spyOn(performance, "now").mockImplementation(() => nowMs);
  const [base, target] = ringsOf(4, 5) as [Ring, Ring];
  const world = new World(base, target);
  const { isGivenUp } = sealedIn(world);
  await world.mover.work(signal);
  expect(isGivenUp()).toBe(false);
  world.copyAgain();
  nowMs += 6000;
  await world.mover.work(signal);
  expect(isGivenUp()).toBe(true);
});

test("a newcomer that has copied for long when its partition is sealed is waited for as long as any other", async () => {
  let nowMs = 1000;
  vi.spyOn(performance, "now").mockImplementation(() => nowMs);
  const [base, target] = ringsOf(4, 5) as [Ring, Ring];
  const world = new World(base, target);
  const { isGivenUp } = sealedIn(world);
  const sealed = world.leftovers;
  world.leftovers = sealed.map((one) => ({ ...one, isSealed: false }));
  await world.mover.work(signal);
  world.copyAgain();
  nowMs += 60_000;
  world.leftovers = sealed;
  // It asks all devices again, and hears of the sealing.
  await world.mover.work(signal);
  expect(isGivenUp()).toBe(false);
  world.copyAgain();
  nowMs += 6000;
  await world.mover.work(signal);
  expect(isGivenUp()).toBe(true);
});

test("a partition that was sealed in an earlier epoch is not given up in a later one", async () => {
  let nowMs = 1000;
  vi.spyOn(performance, "now").mockImplementation(() => nowMs);
  const [base, target] = ringsOf(4, 5) as [Ring, Ring];
  const world = new World(base, target);
  const { partition, isGivenUp } = sealedIn(world);
  await world.mover.work(signal);
  partition.learn({ ...partition.members.configuration, epoch: 3 });
  for (let look = 0; look < 4; look++) {
    world.copyAgain();
    nowMs += 6000;
    await world.mover.work(signal);
  }
  expect(isGivenUp()).toBe(false);
});

test("a device takes a bounded number of partitions at once", async () => {
  const [base, target] = ringsOf(4, 5) as [Ring, Ring];
  const world = new World(base, target);
  world.copies = Number.POSITIVE_INFINITY;
  await world.mover.work(signal);
  const { account, container, object } = world.mover.progress().rings;
  expect(account.toMove + container.toMove + object.toMove).toBeGreaterThan(32);
  expect(account.moving + container.moving + object.moving).toBe(32);
});
