import type { Incarnation } from "../common/ballot.ts";
import { RingsteadError } from "../common/errors.ts";
import type { HybridTimestamp } from "../common/hybrid-clock.ts";
import { type Admission, admitCopies, areRowsOver, isLifeOver, type KnownContainer } from "./core/row-admission.ts";
import type { EpochUse } from "./core/partition-epoch.ts";
import type { RowSpace } from "./row-space.ts";
import {
  CONFIGURATION_PATH,
  type CountedRows,
  COUNTS_LIMIT,
  decodeContainerRecord,
  type Name,
  type PartitionPlace,
  type Row,
  type RowReply,
} from "./wire.ts";

/** Rows that one DROP_ROWS removes at most: a millisecond in which nobody is served. */
const DROP_LIMIT = 100;
const INCARNATION_DIGITS = 24;

/** Which listings somebody looks for: of at least `atLeast` rows, and those whose path begins with `shardPrefix` of at most `atMost`. */
export type WantedCounts = { readonly atLeast: number; readonly atMost: number; readonly shardPrefix: string };

/** A life of a container, as the name of its row space says. */
type Life = { readonly name: Name; readonly incarnation: Incarnation };

const lifeNamed = (owner: Name): Life | undefined => {
  const end = owner.path.length - INCARNATION_DIGITS - 1;
  if (owner.space !== "container" || owner.path[end] !== "\0") return undefined;
  return { name: { ...owner, path: owner.path.slice(0, end) }, incarnation: owner.path.slice(end + 1) as Incarnation };
};

const isWanted = ({ path }: Name, rows: number, { atLeast, atMost, shardPrefix }: WantedCounts): boolean =>
  rows >= atLeast || (rows <= atMost && path.startsWith(shardPrefix));

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
  /** Listings that a walk over the device has found, by path: nobody has asked for them since the start, maybe. */
  readonly #walked = new Map<string, Name>();
  #wanted: WantedCounts | undefined;

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

  /** What was asked for last; undefined before anybody has. The same object as long as it is the same. */
  get wanted(): WantedCounts | undefined {
    return this.#wanted;
  }

  /**
   * Listings of containers that were asked for lately, or that a walk has found: of at least `atLeast` rows, and after them those under `shardPrefix` of at most
   * `atMost`.
   */
  counts(atLeast: number, atMost: number, shardPrefix: string): readonly CountedRows[] {
    const last = this.#wanted;
    if (last?.atLeast !== atLeast || last.atMost !== atMost || last.shardPrefix !== shardPrefix)
      this.#wanted = { atLeast, atMost, shardPrefix };
    const found = new Map<string, CountedRows>();
    for (const { owner, rows } of this.#parts.rows.counted()) this.#noteCount(found, owner, rows);
    for (const [path, owner] of this.#walked) {
      if (found.has(path)) continue;
      const rows = this.#rowsIn(owner);
      if (rows === undefined || !this.#noteCount(found, owner, rows)) this.#walked.delete(path);
    }
    const isLarge = ({ rows }: CountedRows): boolean => rows >= atLeast;
    const counts = [...found.values()];
    return [...counts.filter(isLarge), ...counts.filter((count) => !isLarge(count))].slice(0, COUNTS_LIMIT);
  }

  /** Whether it is one of those that are asked for. */
  #noteCount(found: Map<string, CountedRows>, owner: Name, rows: number): boolean {
    if (this.#wanted === undefined || !isWanted(owner, rows, this.#wanted)) return false;
    const life = lifeNamed(owner);
    if (life === undefined || areRowsOver(this.#parts.known(life.name), life.incarnation)) return false;
    found.set(owner.path, { owner: life.name, incarnation: life.incarnation, rows });
    return true;
  }

  /** Statistics that cannot be read are not for this to report. */
  #rowsIn(owner: Name): number | undefined {
    try {
      return this.#parts.rows.summary(owner).rows;
    } catch (error) {
      if (error instanceof RingsteadError) return undefined;
      throw error;
    }
  }

  /** A walk has come to a listing of so many rows; what does not fit is found by another walk. */
  noteWalked(owner: Name, rows: number): void {
    if (this.#wanted === undefined || this.#walked.size >= COUNTS_LIMIT) return;
    if (isWanted(owner, rows, this.#wanted)) this.#walked.set(owner.path, owner);
  }

  /** Whether a life of a container is over for good, as far as this replica knows. */
  isLifeOver(owner: Name): boolean {
    const life = lifeNamed(owner);
    return life !== undefined && isLifeOver(this.#parts.known(life.name), life.incarnation);
  }

  /**
   * Removes some live rows of a life that is over for good; how many went. There are any where this replica was away while the container was split and then deleted: the
   * others had dropped theirs before, so that no deletion of them comes by repair. Deleted ones stay for those to whom they tell something. Resolves after the sync.
   */
  async dropOver(owner: Name): Promise<number> {
    if (!this.isLifeOver(owner)) return 0;
    return this.#parts.rows.dropLive(owner, DROP_LIMIT, () => this.isLifeOver(owner));
  }

  /** Whether live rows are left of the life that a container's tombstone ended: while there are, they are told from others by it. */
  hasRowsLeft(name: Name, metadata: Uint8Array): boolean {
    if (name.space !== "container" || name.path === CONFIGURATION_PATH) return false;
    const { incarnation } = decodeContainerRecord(metadata);
    return (this.#rowsIn(this.#parts.lifeOf(name, incarnation)) ?? 1) > 0;
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
    const named = lifeNamed(life);
    if (named === undefined) return undefined;
    const known = this.#parts.known(named.name);
    if (known === undefined || known.isTombstone || named.incarnation !== known.record.incarnation) return undefined;
    return known.record.shards?.rows;
  }
}
