import { type Random, seededRandom } from "../../../common/random.ts";
import { EventQueue, type NetworkFaults, SimulatedNetwork } from "../../../common/simulation/event-queue.ts";
import { type Operation, problemOf } from "./history.ts";
import { ContainersLife, RECLAIM_AGE_MS } from "./life.ts";
import { shardContainers } from "./shard-life.ts";
import { moveOnce } from "./simulated-mover.ts";
import type { SimulatedProxy } from "./simulated-proxy.ts";
import { idOf, type MakeReplica, FEW_NAMES, noMoves, SimulatedReplica, type World } from "./world.ts";
import { BlindBallots, type Mutation } from "./planted-mistakes.ts";

const START_MS = 1_700_000_000_000;
const TIMEOUT_MS = 60;
/** How much is done in a life, how often something fails, and how much longer than the other it takes. */
const SHORT = { operations: 13, faults: 4, spreadFactor: 1 };
const LONG = { operations: 26, faults: 10, spreadFactor: 2 };
/** Where listings are split: so many more operations begin at steps of that. */
const SHARDED = { operations: 11, faults: 8, spreadFactor: 2 };
const AT_STEPS = 14;
const REPAIR_EVERY_MS = 60;
/** A network on a good day, and on a bad one. */
const FAULTS: readonly NetworkFaults[] = [
  { lossChance: 0.02, repeatChance: 0.05, longDelayChance: 0.06 },
  { lossChance: 0.06, repeatChance: 0.1, longDelayChance: 0.2 },
];
const NO_FAULTS: NetworkFaults = { lossChance: 0, repeatChance: 0, longDelayChance: 0 };
/** All that is done in a life lies in one of these: crowded, or with faults in between. */
const SPREADS_MS = [60, 260] as const;
const REPLICA_COUNTS = [3, 3, 3, 4, 5];
/** Members of each partition where they move among four to six replicas; four of them only among more. */
const MOVED_COUNTS = [3, 3, 3, 2, 4];
const KINDS: readonly Operation["kind"][] = [
  ...(["create", "create", "drop", "drop", "drop", "look", "list", "list"] as const),
  ...(["put", "put", "put", "create-object", "post", "delete", "delete", "get", "get", "get"] as const),
];

/** What clients do while a listing is split: whoever has not heard of it yet, mostly. */
const KINDS_AT_STEPS: readonly Operation["kind"][] = [
  ...(["put", "put", "put", "put", "create-object", "post"] as const),
  ...(["delete", "delete", "list", "list", "drop", "create"] as const),
];

export const oneOf = <T>(random: Random, choices: readonly T[]): T => {
  const index = random.below(choices.length);
  const chosen = choices[index];
  if (chosen === undefined) throw new Error("there is nothing to choose from");
  return chosen;
};

export const someOf = (random: Random, count: number, wanted: number): readonly string[] => {
  const left = Array.from({ length: count }, (_, index) => idOf(index));
  return Array.from({ length: wanted }, () => left.splice(random.below(left.length), 1)[0] ?? "");
};

const OF_CONTAINER: ReadonlySet<Operation["kind"]> = new Set(["create", "drop", "look", "list"]);

const MOVER_ATTEMPTS = 40;
const SPACES = ["account", "container", "object"] as const;

/**
 * Movers start every now and then, each for one partition, with the target that counts then: some of them beside another one, some with another
 * target. Most of them die on the way.
 */
export const movePartitions = (
  life: ContainersLife,
  spreadMs: number,
  someMembers: () => readonly string[],
  starts = 9,
): void => {
  const { world } = life;
  const { moves, queue, random } = world;
  if (moves === undefined) throw new Error("nothing moves in this world");
  const move = async (proxy: SimulatedProxy, space: (typeof SPACES)[number]): Promise<void> => {
    // One in five goes on with a target that is another one by now.
    const isStubborn = random.below(5) === 0;
    let target = moves.targets.get(space) ?? [];
    for (let attempt = 0; attempt < MOVER_ATTEMPTS && !proxy.isDead; attempt++) {
      if (!isStubborn) target = moves.targets.get(space) ?? [];
      if ((await moveOnce(world, proxy, space, target)) === "done") return;
      await new Promise<void>((resolve) => queue.after(3 + random.unit() * 10, resolve));
    }
  };
  for (let start = 0; start < starts; start++) {
    queue.after(random.unit() * 1.2 * spreadMs, () => {
      const space = oneOf(random, SPACES);
      if (!moves.targets.has(space) || random.unit() < 0.6) moves.targets.set(space, someMembers());
      const proxy = life.newProxy();
      if (random.unit() < 0.6) queue.after(random.unit() * 80, () => (proxy.isDead = true));
      void move(proxy, space);
    });
  }
};

export type Run = { readonly life: ContainersLife; readonly problem: string | undefined };

/**
 * One seeded life of one container, two objects, three to five replicas and three proxies under every fault that the protocol is made for:
 * messages lost, late, repeated, links cut, replicas that lose power and come back, proxies that die in the middle, clocks that differ,
 * memories of containers that are out of date. The scripts are those that production runs; only the network is another. Gives what is wrong
 * with it, if anything.
 */
export const run = async (
  seed: bigint,
  makeReplica: MakeReplica,
  mutation?: Mutation,
  disks: "kept" | "lost" = "kept",
  partitions: "stay" | "move" = "stay",
  listing: "whole" | "sharded" = "whole",
): Promise<Run> => {
  const random = seededRandom(seed);
  const queue = new EventQueue(START_MS);
  const network = new SimulatedNetwork(queue, random, oneOf(random, FAULTS));
  const cuts = new Set<string>();
  const isMoving = partitions === "move";
  const isSharded = listing === "sharded";
  const replicaCount = isMoving ? 4 + random.below(3) : oneOf(random, REPLICA_COUNTS);
  const memberCount = isMoving ? oneOf(random, MOVED_COUNTS.slice(0, replicaCount > 4 ? 5 : 4)) : replicaCount;
  const someMembers = (): readonly string[] => someOf(random, replicaCount, memberCount);
  const moving = isMoving
    ? {
        firstMembers: { account: someMembers(), container: someMembers(), object: someMembers() },
        moves: noMoves(),
      }
    : {};
  const world: World = {
    ...moving,
    ...(isSharded ? { shards: { ids: new Map() } } : {}),
    queue,
    names: FEW_NAMES,
    random,
    replicas: [],
    mutation,
    blind: mutation === "ballots compare without the incarnation [B6]" ? new BlindBallots() : undefined,
    carry: ({ from, to }, deliver) =>
      network.send(() => {
        if (!cuts.has(`${from} ${to}`)) deliver();
      }),
    timeoutMs: TIMEOUT_MS,
    memoryChance: isSharded ? 0.9 : 0.7,
  };
  for (let index = 0; index < replicaCount; index++)
    world.replicas.push(new SimulatedReplica(world, index, makeReplica));
  const { operations, faults, spreadFactor } = isSharded ? SHARDED : disks === "lost" ? LONG : SHORT;
  const spreadMs = spreadFactor * oneOf(random, SPREADS_MS);
  const life = new ContainersLife(world, problemOf);
  const proxies = [life.newProxy(), life.newProxy(), life.newProxy()];

  const operate = (index: number, kind: Operation["kind"], name: string): void => {
    const chosen = oneOf(random, proxies);
    const proxy = chosen.isDead ? life.newProxy() : chosen;
    proxies[proxies.indexOf(chosen)] = proxy;
    if (random.unit() < 0.12) queue.after(random.unit() * 15, () => (proxy.isDead = true));
    void life.operate(proxy, index, kind, name);
  };

  queue.after(0, () => operate(0, "create", ""));
  const nameFor = (kind: Operation["kind"]): string => (OF_CONTAINER.has(kind) ? "" : oneOf(random, FEW_NAMES));
  for (let index = 1; index < operations; index++) {
    const kind = oneOf(random, KINDS);
    const name = nameFor(kind);
    queue.after(5 + random.unit() * spreadMs, () => operate(index, kind, name));
  }
  for (let fault = 0; fault < faults; fault++) {
    const atMs = random.unit() * spreadMs;
    const endMs = atMs + 1 + random.unit() * 60;
    const replica = oneOf(random, world.replicas);
    const choice = random.unit();
    if (choice < 0.4) {
      queue.after(atMs, () => replica.crash());
      queue.after(endMs, () => replica.restart());
    } else if (choice < 0.7) {
      const proxy = (1 + random.below(3)).toString(16).padStart(8, "0");
      const from = disks === "lost" && random.below(2) === 0 ? `replica ${random.below(replicaCount)}` : proxy;
      const link = `${from} ${replica.index}`;
      queue.after(atMs, () => cuts.add(link));
      queue.after(endMs, () => cuts.delete(link));
    }
  }
  if (disks === "lost") loseDisks(world, spreadMs, memberCount);
  if (isMoving) movePartitions(life, spreadMs, someMembers);
  if (isSharded) {
    let index = operations;
    shardContainers(life, spreadMs, {
      operate: () => {
        const kind = oneOf(random, KINDS_AT_STEPS);
        if (index < operations + AT_STEPS) operate(index++, kind, nameFor(kind));
      },
      crash: () => {
        const replica = oneOf(random, world.replicas);
        replica.crash();
        queue.after(1 + random.unit() * 40, () => replica.restart());
      },
    });
  }
  await life.drain();
  network.faults = NO_FAULTS;
  cuts.clear();
  return { life, problem: await life.conclude() };
};

/** As many replicas as a quorum can do without lose their disk, one after the other; all repair themselves every now and then. */
const loseDisks = ({ queue, random, replicas }: World, spreadMs: number, memberCount: number): void => {
  const spare = memberCount - (Math.floor(memberCount / 2) + 1);
  const first = random.below(replicas.length);
  const count = spare === 0 ? 0 : 1 + random.below(spare);
  for (let lost = 0; lost < count; lost++) {
    const replica = replicas[(first + lost) % replicas.length];
    // Early enough that it votes again before all is over.
    const atMs = 5 + (random.unit() * spreadMs) / 2;
    queue.after(atMs, () => replica?.lose());
    queue.after(atMs + random.unit() * 30, () => replica?.restart());
  }
  for (const replica of replicas) {
    for (let atMs = random.unit() * REPAIR_EVERY_MS; atMs < 3 * spreadMs; atMs += random.unit() * REPAIR_EVERY_MS)
      queue.after(atMs, () => {
        void replica.repair();
        void replica.reclaim(queue.nowMs() - RECLAIM_AGE_MS);
      });
  }
};
