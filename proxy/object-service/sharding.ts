import type { Incarnation } from "../../common/ballot.ts";
import { codeOf, RingsteadError } from "../../common/errors.ts";
import { type CountedRows, ROW_SKIP_LIMIT } from "../../storage-node/wire.ts";
import { type OpenContainer, setOf } from "../core/container-place.ts";
import { readContainer } from "../core/container-script.ts";
import { estimateRows } from "../core/list-rows.ts";
import type { Script } from "../core/script.ts";
import {
  COPY_SETTINGS,
  mergeOf,
  noteRootDropped,
  planChange,
  runChange,
  settleShard,
  splitAt,
} from "../core/shard-change.ts";
import { buryLeaf, readLeaf } from "../core/shard-leaf.ts";
import { rangesIn, ROOT, SHARD_ACCOUNT_PREFIX, shardPlaceOf } from "../core/shard-ranges.ts";
import { changeOfSizes, type CountedRange, type SizeChange } from "../core/shard-sizes.ts";
import type { ContainerAt } from "./container-place.ts";
import type { Containers, ShardWork } from "./containers.ts";
import { MESSAGE_TIMEOUT_MS } from "./messages.ts";
import type { ReplicaSet } from "./partition.ts";
import type { Partitions } from "./partitions.ts";
import type { ScriptRunner } from "./script-runner.ts";

/** Messages that one drop of a shard's rows takes at most at one replica before others have their turn. */
const DROP_LIMIT = 100_000;

/** Lets others go first; rejects where the work is to end. */
export type Pause = () => Promise<undefined>;

/** What was done about a container. */
export type Tended = { readonly split: number; readonly merged: number; readonly isSettled: boolean };

const unavailable = (account: string, name: string): RingsteadError =>
  new RingsteadError("quorum-unavailable", "the container's shards cannot be settled", { account, container: name });

/** Splits and merges listings of containers (`core/shard-change.ts`), and removes what is left of those that were. */
export class Sharding {
  readonly #containers: Containers;
  readonly #partitions: Partitions;
  readonly #runner: ScriptRunner;
  readonly #limitNames: number;
  /** False while a device would not understand what is written for a change. */
  /** Devices that have answered. */
  readonly #aware = new Set<string>();
  #mayBegin = false;

  /** @param limitNames names of one listing above which it is split */
  constructor(containers: Containers, partitions: Partitions, runner: ScriptRunner, limitNames: number) {
    this.#containers = containers;
    this.#partitions = partitions;
    this.#runner = runner;
    this.#limitNames = limitNames;
  }

  /** Containers that devices say are too large, or have small shards, by account and name. Devices that do not answer are left out. */
  async find(): Promise<readonly Pick<ShardWork, "account" | "container">[]> {
    const devices = [...this.#partitions.replicas()];
    const small = Math.floor(this.#limitNames / 4);
    const prefix = `/${SHARD_ACCOUNT_PREFIX}`;
    const answers = await Promise.all(
      devices.map(async ([id, { client }]) => {
        try {
          const counted = await client.counts(this.#limitNames + 1, small, prefix, MESSAGE_TIMEOUT_MS);
          this.#aware.add(id);
          return counted;
        } catch (error) {
          if (!(error instanceof RingsteadError)) throw error;
          // An older Ringstead does not know the question, nor what a container's record says then.
          if (error.code === "bad-message") this.#aware.delete(id);
          return [];
        }
      }),
    );
    // One that was never heard may be an older one that is restarting.
    this.#mayBegin = devices.every(([id]) => this.#aware.has(id));
    const found = new Map<string, Pick<ShardWork, "account" | "container">>();
    for (const { owner } of answers.flat() as readonly CountedRows[]) {
      const [account = "", ...rest] = owner.path.slice(1).split("/");
      const name = rest.join("/");
      const { account: root, container } = shardPlaceOf(account, name) ?? { account, container: name };
      found.set(`${root}/${container}`, { account: root, container });
    }
    return [...found.values()];
  }

  /**
   * Goes on with what is under way for a container, or begins what its sizes ask for; removes what is left of shards that are over. Errors: "quorum-unavailable",
   * what `pause` rejects with.
   * @param reported shards of it of which something is left to do
   */
  async tend(
    { account, container }: Pick<ShardWork, "account" | "container">,
    reported: readonly ShardWork[],
    pause: Pause,
  ): Promise<Tended> {
    const place = this.#containers.placeOf(account, container);
    for (const { id, incarnation } of reported) if (id !== ROOT) await this.#clean(place, incarnation, id, pause);
    const found = await this.#read(place, account);
    if (found === undefined) return { split: 0, merged: 0, isSettled: true };
    let planned = found;
    let wanted: SizeChange | undefined;
    if (found.record.shards?.change === undefined && this.#mayBegin) {
      wanted = changeOfSizes(await this.#sizes(place, account, found), this.#limitNames);
      if (wanted !== undefined) planned = (await this.#plan(place, account, found, wanted, pause)) ?? found;
    }
    const { incarnation, shards } = planned.record;
    const change = shards?.change;
    if (change !== undefined) {
      const end = await this.#run(account, place, runChange(place, incarnation, COPY_SETTINGS), pause);
      if (end !== "done") return { split: 0, merged: 0, isSettled: true };
    }
    for (const id of change?.from ?? []) if (id !== ROOT) await this.#clean(place, incarnation, id, pause);
    if (shards?.rows === "gone" || change?.from.includes(ROOT) === true)
      await this.#clean(place, incarnation, ROOT, pause);
    const split = Number(change !== undefined && change.from.length === 1);
    const merged = Number(change !== undefined && change.from.length > 1);
    return { split, merged, isSettled: change === undefined };
  }

  async #read(place: ContainerAt, account: string): Promise<OpenContainer | undefined> {
    const found = await this.#runner.run(readContainer(place));
    if (found === "unavailable") throw unavailable(account, place.name);
    if (found === "absent") return undefined;
    place.learn(found);
    return found;
  }

  async #sizes(place: ContainerAt, account: string, { record }: OpenContainer): Promise<readonly CountedRange[]> {
    const sizes: CountedRange[] = [];
    for (const range of rangesIn(record)) {
      const set = setOf(place, record.incarnation, range.id);
      const rows = await this.#runner.run(estimateRows(set, record.incarnation));
      if (rows === "unavailable") throw unavailable(account, place.name);
      // Somebody else has changed it meanwhile.
      if (typeof rows === "string") return [];
      sizes.push({ ...range, rows });
    }
    return sizes;
  }

  async #plan(
    place: ContainerAt,
    account: string,
    { record }: OpenContainer,
    wanted: SizeChange,
    pause: Pause,
  ): Promise<OpenContainer | undefined> {
    const { incarnation } = record;
    let choose = mergeOf(wanted.id);
    if (wanted.kind === "split") {
      const set = setOf(place, incarnation, wanted.id);
      const pivot = await nameInTheMiddle(set, incarnation, wanted.rows, pause);
      if (pivot === undefined) return undefined;
      choose = splitAt(wanted.id, pivot);
    }
    const planned = await this.#run(account, place, planChange(place, incarnation, choose), pause);
    return planned === "absent" ? undefined : planned;
  }

  /** Removes the rows of a shard that its container has no use for any more, and then what is left of it. */
  async #clean(place: ContainerAt, incarnation: Incarnation, id: string, pause: Pause): Promise<void> {
    const fate = await this.#runner.run(settleShard(place, incarnation, id));
    if (fate !== "over") return;
    const set = setOf(place, incarnation, id);
    if (id === ROOT) {
      if (await this.#drop(set, incarnation, pause)) await this.#runner.run(noteRootDropped(place, incarnation));
      return;
    }
    const leaf = await this.#runner.run(readLeaf(set));
    if (leaf === "unavailable") return;
    const isGone = leaf !== "absent" && leaf.record.shards?.rows === "gone";
    // What ended in another way holds nothing that anybody was told of.
    if (!isGone) await this.#runner.run(buryLeaf(set));
    if ((await this.#drop(set, incarnation, pause)) && isGone) await this.#runner.run(buryLeaf(set));
  }

  /** Whether every replica said that nothing is left. */
  async #drop(set: ReplicaSet, incarnation: Incarnation, pause: Pause): Promise<boolean> {
    const { epoch, replicas } = set.partition.members;
    for (const { client } of replicas) {
      for (let message = 0; ; message++) {
        if (message === DROP_LIMIT) return false;
        try {
          if ((await client.dropRows(set.name, incarnation, MESSAGE_TIMEOUT_MS, epoch)) === 0) break;
        } catch (error) {
          // One that is away, or has yet to hear of it, is asked another time.
          if (!(error instanceof RingsteadError)) throw error;
          return false;
        }
        await pause();
      }
    }
    return true;
  }

  async #run<T>(
    account: string,
    place: ContainerAt,
    script: Script<ReplicaSet, T | "unavailable" | "no-space">,
    pause: Pause,
  ): Promise<T> {
    const end = await this.#runner.run(script, undefined, pause);
    if (end === "unavailable" || end === "no-space") throw unavailable(account, place.name);
    return end;
  }
}

/** A name with about as many before it as behind it, as one replica knows them; undefined where there is none. Errors: that of the last replica, where none answers. */
const nameInTheMiddle = async (
  { name, partition }: ReplicaSet,
  incarnation: Incarnation,
  rows: number,
  pause: Pause,
): Promise<string | undefined> => {
  const { epoch, voters } = partition.members;
  let failure: RingsteadError | undefined;
  for (const { client } of voters) {
    try {
      let marker = "";
      for (let left = Math.floor(rows / 2); left > 0; ) {
        const step = Math.min(left, ROW_SKIP_LIMIT);
        const found = await client.rowName(name, incarnation, marker, step - 1, MESSAGE_TIMEOUT_MS, epoch);
        // Fewer than there were a moment ago.
        if (found === undefined) break;
        marker = found;
        left -= step;
        await pause();
      }
      return marker === "" ? undefined : marker;
    } catch (error) {
      if (!(error instanceof RingsteadError) || codeOf(error) === "sharder-ended") throw error;
      failure = error;
    }
  }
  throw failure ?? new RingsteadError("quorum-unavailable", "a partition without members");
};
