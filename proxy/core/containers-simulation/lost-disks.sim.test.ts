import { expect, test } from "vitest";
import type { Clock } from "../../../common/clock.ts";
import { RingsteadError } from "../../../common/errors.ts";
import type { Log } from "../../../common/log.ts";
import { chosenSeeds } from "../../../common/simulation/seeds.ts";
import type { RingDevice } from "../../../ring/device.ts";
import { Replicator, type SpaceRings } from "../../../storage-node/daemons/replicator.ts";
import { DeviceReplica } from "../../../storage-node/device-replica.ts";
import { MemoryDevice } from "../../../storage-node/engine/memory-device.ts";
import { packCarried, unpackCarried } from "../../../storage-node/repair/carried-entries.ts";
import { unpackStamps } from "../../../storage-node/repair/entry-list.ts";
import { PartitionEpochs } from "../../../storage-node/partition-epochs.ts";
import { digestsOf } from "../../../storage-node/repair/repair-operations.ts";
import type { RepairSource } from "../../../storage-node/repair/repair-peer.ts";
import { bucketSums, fetchEntries, listEntries, pullEntries } from "../../../storage-node/repair/repair-source.ts";
import { entryDigests } from "../../../storage-node/store/entry-digest.ts";
import { epochKey, NEWCOMER_KEY, registerKey } from "../../../storage-node/store/keys.ts";
import { decodeRegister } from "../../../storage-node/store/register-format.ts";
import { UNPACED } from "../../../storage-node/repair/partition-repair.ts";
import { CONFIGURATION_PATH } from "../../../storage-node/wire.ts";
import { encodeNewcomer, type Life, Votes } from "../../../storage-node/votes.ts";
import { ContainersDirector } from "./director.ts";
import { MEMBERS, MOVING_INTERLEAVINGS, REPLICAS } from "./moving-interleavings.ts";
import type { Mutation } from "./planted-mistakes.ts";
import {
  type FirstMembers,
  idOf,
  indexOf,
  type MakeReplica,
  partitionOf,
  type PoweredReplica,
  type RepairSide,
} from "./world.ts";
import { type Run, run } from "./workload.ts";

/** Longer than any proxy's clock is ahead of a replica's here. */
const FORGOTTEN_PROMISE_MS = 60;
const YOUNG_MS = 20;
const DIGESTS = entryDigests(Buffer.alloc(32, 5));
const NODE = "node";
const silent: Log = { info() {}, warn() {}, error() {}, child: () => silent };

const deviceOf = (index: number): RingDevice => ({
  id: index,
  region: 1,
  zone: 1,
  node: NODE,
  device: String(index),
  weight: 1,
});

/** Every name lies in the first partition, on all replicas or those given; of the others, which are empty, nobody asks. */
const ringsOf = (count: number, first: FirstMembers | undefined): SpaceRings => {
  const all = Array.from({ length: count }, (_, index) => idOf(index));
  const ringOf = (ids: readonly string[] = all): SpaceRings["object"] => {
    const members = ids.map((id) => deviceOf(indexOf(id)));
    return { partitionCount: 1, partitionPower: 16, primaries: () => members };
  };
  return { account: ringOf(first?.account), container: ringOf(first?.container), object: ringOf(first?.object) };
};

const SPACES = ["account", "container", "object"] as const;

const epochsOf = (
  device: MemoryDevice,
  index: number,
  first: FirstMembers | undefined,
  mutation: Mutation | undefined,
): PartitionEpochs => {
  if (first === undefined) return PartitionEpochs.none(device);
  const of = (space: (typeof SPACES)[number]) => ({ partitionPower: 16, idsOf: () => first[space] });
  const members = { account: of("account"), container: of("container"), object: of("object") };
  const entries = SPACES.flatMap((space) => {
    const key = epochKey(space, partitionOf(space).partitionPower, partitionOf(space).partition);
    const value = device.get(key)?.value;
    return value === undefined ? [] : [{ key, value }];
  });
  const epochs = PartitionEpochs.recorded(device, idOf(index), members, entries);
  const admit = epochs.admit.bind(epochs);
  if (mutation === "sealed replicas are read [M3]") {
    epochs.admit = (name, epoch, use) => {
      const { configuration, isSealed } = epochs.stateOf(partitionOf(name.space));
      const isRead = isSealed && use === "vote" && configuration.epoch === epoch;
      return admit(isRead ? { ...name, path: CONFIGURATION_PATH } : name, epoch, use);
    };
  } else if (mutation === "a newcomer keeps nothing before it has caught up") {
    epochs.admit = (name, epoch, use) => {
      if (!epochs.hasCaughtUp(partitionOf(name.space))) throw new RingsteadError("device-joining", "not yet");
      return admit(name, epoch, use);
    };
  }
  return epochs;
};

/** The questions of one replica to another, answered by the functions that answer them in production. */
const answerOf = async (replica: DeviceReplica, [kind, ...rest]: readonly unknown[]): Promise<unknown> => {
  type Asked<K extends keyof RepairSource> = Parameters<RepairSource[K]>;
  switch (kind) {
    case "digests": {
      const [space, partitionPower, partitions, life] = rest as unknown as Asked<"digests">;
      return digestsOf(replica, space, partitionPower, partitions, life);
    }
    case "configuration": {
      const [place] = rest as unknown as Asked<"configuration">;
      return replica.epochs.configurationOf(place);
    }
    case "buckets": {
      const [place] = rest as unknown as Asked<"buckets">;
      return bucketSums(replica.engine, place);
    }
    case "entries": {
      const [space, gte, lt] = rest as unknown as Asked<"entries">;
      const { body, next } = await listEntries(replica, space, gte, lt);
      return { entries: unpackStamps(body), next };
    }
    case "pull": {
      const [space, range, limit] = rest as unknown as Asked<"pull">;
      const { entries, next } = await pullEntries(replica, space, range, limit);
      return { entries: unpackCarried(packCarried(entries)), next };
    }
    case "fetch": {
      const [keys] = rest as unknown as Asked<"fetch">;
      return unpackCarried(await fetchEntries(replica, keys));
    }
    default:
      throw new Error(`no body here is large: ${String(kind)}`);
  }
};

/** What is heard of other members, with mistakes. */
const mistaken = (source: RepairSource, { epochs }: DeviceReplica, mutation: Mutation | undefined): RepairSource => {
  const ownEpoch = mutation === "a newcomer copies from members who have not heard of it [M2]";
  const isForgotten = mutation === "a replica that lost its disk forgets that it was sealed [M3]";
  if (!ownEpoch && !isForgotten) return source;
  return {
    ...source,
    async digests(space, ...rest) {
      const said = await source.digests(space, ...rest);
      const own = epochs.configurationOf(partitionOf(space)).epoch;
      const partitions = (said?.partitions ?? []).map((one) => ({
        ...one,
        epoch: ownEpoch ? Math.max(own, one.epoch) : one.epoch,
        isSealed: one.isSealed && !isForgotten,
      }));
      return said === undefined ? undefined : { ...said, partitions };
    },
  };
};

const repairOf = (
  replica: DeviceReplica,
  clock: Clock,
  first: FirstMembers | undefined,
  mutation: Mutation | undefined,
  empty: () => void,
): RepairSide => {
  let replicator: Replicator | undefined;
  let isWorking = false;
  return {
    empty,
    answer: (question) => answerOf(replica, question),
    joiningCount: () => (replica.votes.isNewcomer ? 1 : 0),
    async round(index, count, ask) {
      if (isWorking) return;
      isWorking = true;
      const peerOf = ({ device }: Pick<RingDevice, "device">): RepairSource => {
        const asking =
          (kind: string) =>
          (...rest: unknown[]): Promise<never> =>
            ask(Number(device), [kind, ...rest]) as Promise<never>;
        const kinds = ["digests", "configuration", "buckets", "entries", "pull", "fetch", "readBody"] as const;
        const source = Object.fromEntries(kinds.map((kind) => [kind, asking(kind)])) as unknown as RepairSource;
        return mistaken(source, replica, mutation);
      };
      replicator ??= new Replicator({
        node: NODE,
        device: String(index),
        replica,
        rings: ringsOf(count, first),
        peerOf,
        pace: UNPACED,
        clock,
        log: silent,
        youngMs: YOUNG_MS,
      });
      try {
        await replicator.work(new AbortController().signal);
      } finally {
        isWorking = false;
      }
    },
  };
};

/** An empty device that was opened once: before it serves, its first record is durable. */
const newcomerAt = (nowMs: number): ConstructorParameters<typeof MemoryDevice>[1] => {
  const value = encodeNewcomer({ sinceMs: nowMs, life: nowMs.toString().padStart(16, "0").slice(0, 16) as Life });
  return new Map([[Buffer.from(NEWCOMER_KEY).toString("latin1"), { value, body: { kind: "none" }, bytes: undefined }]]);
};

const mortalReplica: MakeReplica = (syncAfter, clock, index, first, mutation) => {
  const on = (device: MemoryDevice): PoweredReplica => {
    let isEmptied = false;
    const votes = Votes.recorded(device, clock, FORGOTTEN_PROMISE_MS);
    const replica = new DeviceReplica(device, clock, [1n, 2n], votes, epochsOf(device, index, first, mutation));
    return {
      replica,
      held: (name) => {
        const entry = device.get(registerKey(name));
        if (entry === undefined) return undefined;
        return {
          register: decodeRegister(entry.value),
          storedBytes: entry.body.kind === "log" ? entry.body.length : 0,
        };
      },
      afterCrash: () => {
        return on(isEmptied ? new MemoryDevice(syncAfter, newcomerAt(clock.nowMs()), DIGESTS) : device.afterCrash());
      },
      repair: repairOf(replica, clock, first, mutation, () => (isEmptied = true)),
    };
  };
  return on(new MemoryDevice(syncAfter, undefined, DIGESTS));
};

const explain = (seed: bigint, { problem, life }: Run): string =>
  `SEED=${seed} ./scripts/test simulation: ${problem}\n${life.toString()}`;

const seeds = chosenSeeds(300);
/** Such a life takes twice as long. */
const movingSeeds = chosenSeeds(100);

test("replicas that lose their disk lose nothing acknowledged, and vote again once they have caught up [E1, M4]", async () => {
  let acknowledged = 0;
  for (let index = 0n; index < BigInt(seeds.count); index++) {
    const result = await run(seeds.first + index, mortalReplica, undefined, "lost");
    acknowledged += result.life.history.filter(({ status }) => status === 200).length;
    expect(result.problem, explain(seeds.first + index, result)).toBeUndefined();
  }
  expect(acknowledged).toBeGreaterThan(seeds.count * 3);
});

test("partitions that change their members while clients work lose nothing acknowledged, disks that are lost meanwhile included [M1-M6]", async () => {
  let acknowledged = 0;
  const counts: Record<string, number> = {};
  for (let index = 0n; index < BigInt(movingSeeds.count); index++) {
    const result = await run(movingSeeds.first + index, mortalReplica, undefined, "lost", "move");
    acknowledged += result.life.history.filter(({ status }) => status === 200).length;
    for (const [event, count] of Object.entries(result.life.world.moves?.counts ?? {}))
      counts[event] = (counts[event] ?? 0) + count;
    expect(result.problem, explain(movingSeeds.first + index, result)).toBeUndefined();
  }
  expect(acknowledged).toBeGreaterThan(movingSeeds.count * 3);
  // Nothing that a move can meet is left out.
  if (movingSeeds.count >= 20) expect(Object.values(counts)).not.toContain(0);
});

test("the planted mistake is found: a configuration is written without a condition", async () => {
  let problem: string | undefined;
  for (let seed = 1n; seed <= 100n && problem === undefined; seed++)
    ({ problem } = await run(seed, mortalReplica, "a configuration is written without a condition", "lost", "move"));
  expect(problem).toContain("two configurations");
});

for (const { title, mistakes, play, answers } of MOVING_INTERLEAVINGS) {
  const moving = { replicas: REPLICAS, members: MEMBERS };
  test(title, async () => {
    const director = new ContainersDirector(mortalReplica, undefined, moving);
    expect(await play(director)).toEqual(answers);
    expect(await director.conclude()).toBeUndefined();
  });
  for (const [mutation, sign] of mistakes) {
    test(`the planted mistake is found: ${mutation}, where ${title}`, async () => {
      const director = new ContainersDirector(mortalReplica, mutation, moving);
      const given = await play(director);
      if (sign === "silence") expect(given).toContain(undefined);
      else expect(await director.conclude()).toBeDefined();
    });
  }
}
