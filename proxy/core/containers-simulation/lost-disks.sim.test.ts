import { expect, test } from "vitest";
import type { Clock } from "../../../common/clock.ts";
import type { Log } from "../../../common/log.ts";
import { chosenSeeds } from "../../../common/simulation/seeds.ts";
import type { RingDevice } from "../../../ring/device.ts";
import { Replicator, type SpaceRings } from "../../../storage-node/daemons/replicator.ts";
import { DeviceReplica } from "../../../storage-node/device-replica.ts";
import { MemoryDevice } from "../../../storage-node/engine/memory-device.ts";
import { packCarried, unpackCarried } from "../../../storage-node/repair/carried-entries.ts";
import { unpackStamps } from "../../../storage-node/repair/entry-list.ts";
import type { RepairSource } from "../../../storage-node/repair/repair-peer.ts";
import {
  bucketSums,
  fetchEntries,
  listEntries,
  partitionSum,
  pullEntries,
} from "../../../storage-node/repair/repair-source.ts";
import { entryDigests } from "../../../storage-node/store/entry-digest.ts";
import { CEILING_KEY, NEWCOMER_KEY, registerKey } from "../../../storage-node/store/keys.ts";
import { decodeRegister } from "../../../storage-node/store/register-format.ts";
import { UNPACED } from "../../../storage-node/repair/partition-repair.ts";
import { encodeNewcomer, type Life, Votes } from "../../../storage-node/votes.ts";
import type { MakeReplica, PoweredReplica, RepairSide } from "./world.ts";
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

/** Every name lies in the first partition, on all replicas; of the others, which are empty, nobody asks. */
const ringsOf = (count: number): SpaceRings => {
  const all = Array.from({ length: count }, (_, index) => deviceOf(index));
  const ring = { partitionCount: 1, partitionPower: 16, primaries: () => all };
  return { account: ring, container: ring, object: ring };
};

/** The questions of one replica to another, answered by the functions that answer them in production. */
const answerOf = async (replica: DeviceReplica, [kind, ...rest]: readonly unknown[]): Promise<unknown> => {
  type Asked<K extends keyof RepairSource> = Parameters<RepairSource[K]>;
  switch (kind) {
    case "digests": {
      const [space, partitionPower, partitions, life] = rest as unknown as Asked<"digests">;
      const hasPromised = replica.engine.get(CEILING_KEY) !== undefined;
      const found = partitions.map((partition) => ({
        partition,
        isVoting: replica.votes.votesIn(space, partition * 2 ** (32 - partitionPower)),
        ...partitionSum(replica.engine, { space, partition, partitionPower }),
      }));
      return { hasPromised, isFounder: replica.votes.isFounder(life), life: replica.votes.life, partitions: found };
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

const repairOf = (replica: DeviceReplica, clock: Clock, empty: () => void): RepairSide => {
  let replicator: Replicator | undefined;
  let isWorking = false;
  return {
    empty,
    answer: (question) => answerOf(replica, question),
    joiningCount: () => (replica.votes.isNewcomer ? 1 : 0),
    async round(index, count, ask) {
      if (isWorking) return;
      isWorking = true;
      const peerOf = ({ id }: RingDevice): RepairSource => {
        const asking =
          (kind: string) =>
          (...rest: unknown[]): Promise<never> =>
            ask(id, [kind, ...rest]) as Promise<never>;
        const kinds = ["digests", "buckets", "entries", "pull", "fetch", "readBody"] as const;
        return Object.fromEntries(kinds.map((kind) => [kind, asking(kind)])) as unknown as RepairSource;
      };
      replicator ??= new Replicator({
        node: NODE,
        device: String(index),
        replica,
        rings: ringsOf(count),
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

const mortalReplica: MakeReplica = (syncAfter, clock) => {
  const on = (device: MemoryDevice): PoweredReplica => {
    let isEmptied = false;
    const votes = Votes.recorded(device, clock, FORGOTTEN_PROMISE_MS);
    const replica = new DeviceReplica(device, clock, [1n, 2n], votes);
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
      repair: repairOf(replica, clock, () => (isEmptied = true)),
    };
  };
  return on(new MemoryDevice(syncAfter, undefined, DIGESTS));
};

const explain = (seed: bigint, { problem, life }: Run): string =>
  `SEED=${seed} ./scripts/test simulation: ${problem}\n${life.toString()}`;

const seeds = chosenSeeds(300);

test("replicas that lose their disk lose nothing acknowledged, and vote again once they have caught up [E1, M4]", async () => {
  let acknowledged = 0;
  for (let index = 0n; index < BigInt(seeds.count); index++) {
    const result = await run(seeds.first + index, mortalReplica, undefined, "lost");
    acknowledged += result.life.history.filter(({ status }) => status === 200).length;
    expect(result.problem, explain(seeds.first + index, result)).toBeUndefined();
  }
  expect(acknowledged).toBeGreaterThan(seeds.count * 3);
});
