import type { Clock } from "../../common/clock.ts";
import { RingsteadError } from "../../common/errors.ts";
import { TIMESTAMP_ZERO } from "../../common/hybrid-clock.ts";
import type { Log } from "../../common/log.ts";
import type { RingDevice } from "../../ring/device.ts";
import { Reclaimer } from "../daemons/reclaimer.ts";
import type { SpaceRings } from "../daemons/own-partitions.ts";
import { Replicator } from "../daemons/replicator.ts";
import type { DeviceReplica } from "../device-replica.ts";
import type { DeviceEngine } from "../engine/device-engine.ts";
import { epochsPage } from "../move-operations.ts";
import { PartitionEpochs } from "../partition-epochs.ts";
import { packCarried, unpackCarried } from "../repair/carried-entries.ts";
import { unpackStamps } from "../repair/entry-list.ts";
import { UNPACED } from "../repair/partition-repair.ts";
import { digestsOf } from "../repair/repair-operations.ts";
import type { RepairSource } from "../repair/repair-peer.ts";
import { bucketSums, carriedEntries, listEntries, pullEntries } from "../repair/repair-source.ts";
import { entryDigests } from "../store/entry-digest.ts";
import { ReclaimMarks } from "../reclaim-marks.ts";
import { WALK_START, walkPage } from "../row-walk.ts";
import { epochKey, markKey } from "../store/keys.ts";
import { CONFIGURATION_PATH } from "../wire.ts";
import type { Mutation } from "../../proxy/core/containers-simulation/planted-mistakes.ts";
import {
  type FirstMembers,
  idOf,
  indexOf,
  partitionOf,
  type RepairSide,
} from "../../proxy/core/containers-simulation/world.ts";

/** Every name lies in the first partition of its ring: one group of buckets is all that is ever used. */
const ALL_DIGESTS = entryDigests(Buffer.alloc(32, 5));
export const DIGESTS: typeof ALL_DIGESTS = {
  ...ALL_DIGESTS,
  bucketCount: ALL_DIGESTS.groupSize,
  firstKeyOf: (group) => ALL_DIGESTS.firstKeyOf(group === 0 ? 0 : Number.POSITIVE_INFINITY),
};
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

export const epochsOf = (
  device: DeviceEngine,
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

/** What a device has removed, as its records say after a loss of power. */
export const marksOf = (device: DeviceEngine, mutation: Mutation | undefined): ReclaimMarks => {
  const marks = ReclaimMarks.recorded(
    SPACES.flatMap((space) => {
      const key = markKey(space, partitionOf(space).partitionPower, partitionOf(space).partition);
      const value = device.get(key)?.value;
      return value === undefined ? [] : [{ key, value }];
    }),
  );
  const of = marks.of.bind(marks);
  if (mutation === "the mark of registers is not raised [E2]")
    marks.of = (...name) => ({ ...of(...name), registers: TIMESTAMP_ZERO });
  if (mutation === "the mark of rows is not raised [E5]")
    marks.of = (...name) => ({ ...of(...name), rows: TIMESTAMP_ZERO });
  return marks;
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
    case "epochs": {
      const [space, partitionPower, from] = rest as unknown as Asked<"epochs">;
      return epochsPage(replica, space, partitionPower, from, "");
    }
    case "confirmReclaims": {
      const [place, epoch, doomed] = rest as unknown as Asked<"confirmReclaims">;
      return replica.deletions.confirm(place, epoch, doomed);
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
      const page = await pullEntries(replica, space, range, limit);
      return { ...page, entries: unpackCarried(packCarried(page.entries)) };
    }
    case "fetch": {
      const [keys, isBare] = rest as unknown as Asked<"fetch">;
      const { entries, isOfVoter } = await carriedEntries(replica, keys, isBare);
      return { entries: unpackCarried(packCarried(entries)), isOfVoter };
    }
    default:
      throw new Error(`no body here is large: ${String(kind)}`);
  }
};

const NOTHING_MOVED = { moved: [], next: undefined, stamp: "", baseIdentity: undefined, isVoting: true };

/** Nobody could confirm by a mark that is not raised. */
const UNASKED: ReadonlySet<Mutation> = new Set([
  "a tombstone is removed before all members have it [E2]",
  "the mark of registers is not raised [E2]",
  "the mark of rows is not raised [E5]",
] as const);

/** What is heard of other members, with mistakes. */
const mistaken = (source: RepairSource, { epochs }: DeviceReplica, mutation: Mutation | undefined): RepairSource => {
  const ownEpoch = mutation === "a newcomer copies from members who have not heard of it [M2]";
  const isForgotten = mutation === "a replica that lost its disk forgets that it was sealed [M3]";
  if (mutation === "first members that were emptied ask nobody but each other [M4]")
    return { ...source, epochs: async () => NOTHING_MOVED };
  if (mutation !== undefined && UNASKED.has(mutation))
    return { ...source, confirmReclaims: async (_place, _epoch, doomed) => doomed.map(() => "held" as const) };
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

const QUESTIONS = [
  "digests",
  "configuration",
  "epochs",
  "confirmReclaims",
  "buckets",
  "entries",
  "pull",
  "fetch",
  "readBody",
] as const;
type Ask = Parameters<RepairSide["round"]>[2];

/** What a walk over the device's listings would remove. */
const dropLeftovers = async (replica: DeviceReplica): Promise<void> => {
  const { listings } = await walkPage(replica, WALK_START);
  for (const { owner, rows } of listings) if (rows > 0) await replica.shards.dropOver(owner);
};

export const repairOf = (
  replica: DeviceReplica,
  clock: Clock,
  first: FirstMembers | undefined,
  mutation: Mutation | undefined,
  youngMs: number,
  empty: () => void,
): RepairSide => {
  let replicator: Replicator | undefined;
  let isWorking = false;
  let isReclaiming = false;
  const sourceOf = (device: number, ask: Ask): RepairSource => {
    const asking =
      (kind: string) =>
      (...rest: unknown[]): Promise<never> =>
        ask(device, [kind, ...rest]) as Promise<never>;
    const source = Object.fromEntries(QUESTIONS.map((kind) => [kind, asking(kind)])) as unknown as RepairSource;
    return mistaken(source, replica, mutation);
  };
  if (mutation === "what was asked for before a removal is installed after it [E3]")
    replica.deletions.removalsIn = () => 0;
  return {
    empty,
    answer: (question) => answerOf(replica, question),
    joiningCount: () => (replica.votes.isNewcomer ? 1 : 0),
    async reclaim(olderThanMs, ask) {
      if (isReclaiming) return 0;
      isReclaiming = true;
      const reclaimer = new Reclaimer({
        device: replica.epochs.self,
        replica,
        powers: { account: 16, container: 16, object: 16 },
        reclaimDays: 1,
        peerOf: (id) => sourceOf(indexOf(id), ask),
        pace: UNPACED,
        clock,
      });
      try {
        for (const space of SPACES) await reclaimer.look(partitionOf(space), olderThanMs, new AbortController().signal);
      } finally {
        isReclaiming = false;
      }
      return reclaimer.figures.reclaimedEntries;
    },
    async round(index, count, ask) {
      if (isWorking) return;
      isWorking = true;
      const peerOf = ({ device }: Pick<RingDevice, "device">): RepairSource => sourceOf(Number(device), ask);
      replicator ??= new Replicator({
        node: NODE,
        device: String(index),
        replica,
        rings: ringsOf(count, first),
        circle: () => ({ required: Array.from({ length: count }, (_, one) => idOf(one)), others: [] }),
        peerOf,
        pace: UNPACED,
        clock,
        log: silent,
        youngMs,
      });
      try {
        await dropLeftovers(replica);
        await replicator.work(new AbortController().signal);
      } finally {
        isWorking = false;
      }
    },
  };
};
