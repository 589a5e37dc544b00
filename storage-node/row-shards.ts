import type { Incarnation } from "../common/ballot.ts";
import { RingsteadError } from "../common/errors.ts";
import type { HybridTimestamp } from "../common/hybrid-clock.ts";
import { type Admission, admitCopies, areRowsOver, type KnownContainer } from "./core/row-admission.ts";
import type { EpochUse } from "./core/partition-epoch.ts";
import type { RowSpace } from "./row-space.ts";
import { type CountedRows, COUNTS_LIMIT, type Name, type PartitionPlace, type Row, type RowReply } from "./wire.ts";

/** Rows that one DROP_ROWS removes at most: a millisecond or two in which nobody is served. */
const DROP_LIMIT = 250;
const INCARNATION_DIGITS = 24;

/** Rows of another listing. */
export type Copies = {
  readonly rows: readonly Row[];
  /** How late deletions were that replicas of that one have forgotten ([E5]). */
  readonly mark: HybridTimestamp;
  /** The partition of the listing that they are for. */
  readonly place: PartitionPlace;
};

/** What this needs of the replica around it. */
export type RowShardsParts = {
  readonly rows: RowSpace;
  /** Errors (thrown): as of any message in that epoch. */
  readonly enter: (name: Name, epoch: number, use: EpochUse) => void;
  /** The container's record as this replica has it. */
  readonly known: (name: Name) => KnownContainer | undefined;
  /** Resolves when that record is synced. */
  readonly settled: (name: Name) => Promise<void> | undefined;
  /** The row space of one life of a container. */
  readonly lifeOf: (owner: Name, incarnation: Incarnation) => Name;
  /** Resolves once nothing at or below that is taken in the partition for a name that no row is held of ([E5]). */
  readonly adopt: (place: PartitionPlace, mark: HybridTimestamp) => Promise<void>;
  /** How late deletions were that were forgotten in a name's partition. */
  readonly markOf: (name: Name) => HybridTimestamp;
  /** Takes rows whatever was forgotten here ([E5]); `check` is called in the turn of each commit, and what it throws ends it there. */
  readonly putAll: (life: Name, rows: readonly Row[], check: () => void) => Promise<void>;
};

class CopiesRefused extends Error {
  readonly admission: Exclude<Admission, "open">;

  constructor(admission: Exclude<Admission, "open">) {
    super("copies are not taken");
    this.admission = admission;
  }
}

/** How rows go from one listing to those that follow it, as one replica sees it: `proxy/core/shard-change.ts` says in which order. */
export class RowShards {
  readonly #parts: RowShardsParts;

  constructor(parts: RowShardsParts) {
    this.#parts = parts;
  }

  /** Takes copies of rows, as long as the listing is being filled. Resolves after the sync. */
  async take(owner: Name, incarnation: Incarnation, { mark, place, rows }: Copies, epoch: number): Promise<RowReply> {
    const { adopt, enter, known, lifeOf, putAll, settled } = this.#parts;
    const check = (): void => {
      // In the turn of each commit: the partition may be sealed, or elsewhere, by then.
      enter(owner, epoch, "store");
      const admitted = admitCopies(known(owner), incarnation);
      if (admitted !== "open") throw new CopiesRefused(admitted);
    };
    try {
      check();
      // What comes late for a name whose deletion was forgotten there is not to come back here.
      await adopt(place, mark);
      await putAll(lifeOf(owner, incarnation), rows, check);
      await settled(owner);
      return { kind: "stored" };
    } catch (error) {
      if (!(error instanceof CopiesRefused)) throw error;
      await settled(owner);
      return { kind: error.admission };
    }
  }

  markOf(owner: Name): HybridTimestamp {
    return this.#parts.markOf(owner);
  }

  /** The name of the live row `skip` rows behind `marker`; undefined where there are not so many. */
  async nameAt(
    owner: Name,
    incarnation: Incarnation,
    marker: string,
    skip: number,
    epoch: number,
  ): Promise<string | undefined> {
    const { enter, lifeOf, rows } = this.#parts;
    enter(owner, epoch, "vote");
    return rows.nameAt(lifeOf(owner, incarnation), marker, skip);
  }

  /**
   * Removes some rows of a life whose rows are elsewhere. Resolves after the sync, with how many went; 0: nothing is left. Errors: "rows-not-over" where this
   * replica has yet to hear of it.
   */
  async drop(owner: Name, incarnation: Incarnation, epoch: number): Promise<number> {
    const { enter, known, lifeOf, rows, settled } = this.#parts;
    enter(owner, epoch, "store");
    const durable = settled(owner);
    if (durable !== undefined) await durable;
    const record = known(owner);
    const isOver = record === undefined || record.isTombstone || areRowsOver(record, incarnation);
    if (!isOver) throw new RingsteadError("rows-not-over", "as far as this replica knows these rows are listed");
    return rows.drop(lifeOf(owner, incarnation), DROP_LIMIT);
  }

  /** Listings of containers that were asked for lately: of at least `atLeast` rows, and after them those under `shardPrefix` of at most `atMost`. */
  counts(atLeast: number, atMost: number, shardPrefix: string): readonly CountedRows[] {
    const large: CountedRows[] = [];
    const small: CountedRows[] = [];
    for (const { owner, rows } of this.#parts.rows.counted()) {
      const isLarge = rows >= atLeast;
      if (!isLarge && (rows > atMost || !owner.path.startsWith(shardPrefix))) continue;
      const end = owner.path.length - INCARNATION_DIGITS - 1;
      if (owner.space !== "container" || owner.path[end] !== "\0") continue;
      const name = { ...owner, path: owner.path.slice(0, end) };
      const incarnation = owner.path.slice(end + 1) as Incarnation;
      if (areRowsOver(this.#parts.known(name), incarnation)) continue;
      const found = isLarge ? large : small;
      if (found.length < COUNTS_LIMIT) found.push({ owner: name, incarnation, rows });
    }
    return [...large, ...small].slice(0, COUNTS_LIMIT);
  }

  /** Whether deletions among these rows may be forgotten: not while copies of what they deleted may come. */
  mayForget(life: Name): boolean {
    return this.#stateOf(life) !== "filling";
  }

  /** Whether rows that another replica has of a life are for nobody. */
  areOver(life: Name): boolean {
    const state = this.#stateOf(life);
    return state === "gone" || state === "dropped";
  }

  #stateOf(life: Name): string | undefined {
    const end = life.path.indexOf("\0");
    if (life.space !== "container" || end < 0) return undefined;
    const known = this.#parts.known({ ...life, path: life.path.slice(0, end) });
    if (known === undefined || known.isTombstone || !life.path.endsWith(known.record.incarnation)) return undefined;
    return known.record.shards?.rows;
  }
}
