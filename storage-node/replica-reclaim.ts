import { type Ballot, maxTimestamp, timestampIn } from "../common/ballot.ts";
import { type HybridTimestamp, TIMESTAMP_ZERO } from "../common/hybrid-clock.ts";
import { confirmsReclaim, type Doomed, isReclaimable, isRowReclaimable, type ReclaimWord } from "./core/reclaim.ts";
import type { StoredRegister } from "./core/register.ts";
import type { DeviceEngine, Mutation } from "./engine/device-engine.ts";
import type { Marks, ReclaimMarks } from "./reclaim-marks.ts";
import { rangeOfPartition, scanSpace } from "./repair/repair-source.ts";
import type { RowSpace } from "./row-space.ts";
import { isRegisterKey } from "./store/key-space.ts";
import { isLiveRowKey, nameOfRegisterKey, rowPlaceOf } from "./store/keys.ts";
import { isTombstoneValue } from "./store/register-format.ts";
import { decodeRowValue, type Name, type PartitionPlace, type Space } from "./wire.ts";

export type ReplicaReclaimParts = {
  readonly engine: DeviceEngine;
  readonly marks: ReclaimMarks;
  readonly rows: RowSpace;
  /** Whether deletions of that row space may be forgotten now. */
  readonly mayForget: (owner: Name) => boolean;
  /** Whether live rows are left here of the life that a tombstone with that metadata ended. */
  readonly hasRowsLeft: (name: Name, metadata: Uint8Array) => boolean;
  /** The register under a key, waiting confirmations included. */
  readonly stored: (key: Uint8Array, id: string) => StoredRegister | undefined;
  /** The register with that id goes. */
  readonly forget: (id: string) => void;
  /** Errors (thrown): as of any vote in that epoch. */
  readonly enter: (place: PartitionPlace, epoch: number) => void;
};

/** Entries that are looked at in one go. Looking up each of 2000 kept clients waiting for 20 ms and more, again and again while a device was gone over. */
const PAGE_ENTRIES = 500;

const idOf = (key: Uint8Array): string => Buffer.from(key).toString("latin1");
const hash32Of = (key: Uint8Array): number => Buffer.from(key.buffer, key.byteOffset, key.length).readUInt32BE(0);

/** How old deletions leave a device: `core/reclaim.ts` over its entries ([E2], [E3], [E5], [E6]). */
export class ReplicaReclaim {
  readonly #parts: ReplicaReclaimParts;
  /** How often something was removed from a partition since the start, or confirmed as forgotten, by ring and number. */
  readonly #removals = new Map<string, number>();

  readonly #told = new Map<string, PartitionPlace>();

  constructor(parts: ReplicaReclaimParts) {
    this.#parts = parts;
  }

  /** Partitions of which another member has removed something since the last call. */
  takeTold(): readonly PartitionPlace[] {
    const told = [...this.#told.values()];
    this.#told.clear();
    return told;
  }

  /** [E3]: another number after each removal, and after each confirmation that something is forgotten. What was asked of others under an earlier one is thrown away. */
  removalsIn({ partition, space }: Pick<PartitionPlace, "partition" | "space">): number {
    return this.#removals.get(`${space} ${partition}`) ?? 0;
  }

  /** What was asked of others about the partition before is thrown away. */
  noteRemoval({ partition, space }: Pick<PartitionPlace, "partition" | "space">): void {
    this.#removals.set(`${space} ${partition}`, this.removalsIn({ partition, space }) + 1);
  }

  /** Those of a partition. */
  marksOf({ partition, partitionPower, space }: PartitionPlace): Marks {
    return this.#parts.marks.of(space, partition * 2 ** (32 - partitionPower));
  }

  /** [E6]: takes over marks of members who vote, where they are higher. Resolves when that is durable; it counts at once. Errors: the engine's. */
  async adopt(place: PartitionPlace, told: Marks): Promise<void> {
    const { registers, rows } = this.marksOf(place);
    if (told.registers <= registers && told.rows <= rows) return;
    await this.#raised(place, told, []);
  }

  /** Deletions on one page of a partition that are from before `olderThanMs`, and where the next page begins. */
  async page(
    place: PartitionPlace,
    from: Uint8Array | undefined,
    olderThanMs: number,
  ): Promise<{ readonly doomed: readonly Doomed[]; readonly next: Uint8Array | undefined }> {
    const { gte, lt } = rangeOfPartition(place);
    const page = await scanSpace(this.#parts.engine, place.space, { gte: from ?? gte, lt }, PAGE_ENTRIES);
    const doomed: Doomed[] = [];
    for (const { key, value } of page.entries) {
      // Nearly all of them: looked at no further, since nobody is served meanwhile.
      if (isLiveRowKey(key) || (isRegisterKey(key) && !isTombstoneValue(value))) continue;
      const row = nameOfRegisterKey(key) === undefined ? rowPlaceOf(key, place.space) : undefined;
      const ballot =
        row === undefined
          ? this.#doomedRegister(key, olderThanMs)
          : row.isDeleted && this.#parts.mayForget(row.owner) && versionIn(row.name, value);
      if (typeof ballot === "string" && isRowReclaimable(ballot, olderThanMs)) doomed.push({ key, ballot });
    }
    return { doomed, next: page.next };
  }

  #doomedRegister(key: Uint8Array, olderThanMs: number): Ballot | undefined {
    const register = this.#parts.stored(key, idOf(key));
    if (register === undefined || !isReclaimable(register, olderThanMs)) return undefined;
    return this.#tellsOfRows(key, register) ? undefined : register.ballot;
  }

  #tellsOfRows(key: Uint8Array, { metadata }: StoredRegister): boolean {
    const name = nameOfRegisterKey(key);
    return name !== undefined && this.#parts.hasRowsLeft(name, metadata);
  }

  /**
   * Says of some deletions whether they may go elsewhere, after the sync of that on which it rests ([D1]). Errors: as of any vote in that epoch, so that a
   * replica which does not vote confirms nothing. Who asks of none has just removed some: this device may look at the partition, too.
   */
  async confirm(place: PartitionPlace, epoch: number, doomed: readonly Doomed[]): Promise<readonly ReclaimWord[]> {
    const { engine, enter, marks } = this.#parts;
    enter(place, epoch);
    if (doomed.length === 0) this.#told.set(`${place.space} ${place.partition}`, place);
    const confirmed = doomed.map(({ ballot, key }): ReclaimWord => {
      const { registers, rows } = marks.of(place.space, hash32Of(key));
      const mark = nameOfRegisterKey(key) === undefined ? rows : registers;
      const row = rowPlaceOf(key, place.space);
      if (row !== undefined && !this.#parts.mayForget(row.owner)) return "kept";
      const held = nameOfRegisterKey(key) === undefined ? undefined : this.#parts.stored(key, idOf(key));
      if (held?.isTombstone === true && this.#tellsOfRows(key, held)) return "kept";
      return confirmsReclaim(this.#heldUnder(key, place.space), ballot, mark);
    });
    // Of what nothing is held here something older may be on its way.
    if (confirmed.includes("forgotten")) this.noteRemoval(place);
    await engine.sync();
    return confirmed;
  }

  /** The ballot of the register, or the version of the later of the two rows of the name, that lies under a key. */
  #heldUnder(key: Uint8Array, space: Space): Ballot | undefined {
    const { rows, stored } = this.#parts;
    if (nameOfRegisterKey(key) !== undefined) return stored(key, idOf(key))?.ballot;
    const place = rowPlaceOf(key, space);
    return place === undefined ? undefined : rows.versionOf(place.owner, place.name);
  }

  /**
   * Removes deletions and raises the marks of their partition, in one commit. Resolves after the sync, with how many went: those that nothing has replaced
   * meanwhile. Requires: all members of the partition confirmed them in `epoch`, a stable one. Errors: as of any vote in that epoch, the engine's.
   */
  async remove(place: PartitionPlace, epoch: number, doomed: readonly Doomed[]): Promise<number> {
    const { enter, forget, rows, stored } = this.#parts;
    enter(place, epoch);
    let registers: HybridTimestamp = TIMESTAMP_ZERO;
    const deletions: Mutation[] = [];
    const doomedRows: { owner: NonNullable<ReturnType<typeof rowPlaceOf>>["owner"]; name: string; ballot: Ballot }[] =
      [];
    for (const { ballot, key } of doomed) {
      if (nameOfRegisterKey(key) === undefined) {
        const row = rowPlaceOf(key, place.space);
        if (row?.isDeleted === true) doomedRows.push({ owner: row.owner, name: row.name, ballot });
        continue;
      }
      const register = stored(key, idOf(key));
      if (register?.ballot !== ballot || !isReclaimable(register, Number.POSITIVE_INFINITY)) continue;
      forget(idOf(key));
      registers = maxTimestamp(registers, timestampIn(ballot));
      deletions.push({ kind: "delete", key });
    }
    const removal = rows.removal(doomedRows);
    const count = deletions.length + removal.count;
    if (count === 0) return 0;
    this.noteRemoval(place);
    await this.#raised(place, { registers, rows: removal.highest }, [...deletions, ...removal.mutations]);
    return count;
  }

  /**
   * [E6]: removes what this device kept from before it lost its votes and nobody answers for. What is another one by now stays. Resolves after the sync, with
   * how many went. Requires: it does not vote there; `kept` are at or below the marks, and R members who vote hold nothing of their names.
   */
  async discard(place: PartitionPlace, kept: readonly Doomed[]): Promise<number> {
    const { engine, forget, rows, stored } = this.#parts;
    const deletions: Mutation[] = [];
    const discardedRows: Parameters<RowSpace["discard"]>[0][number][] = [];
    for (const { ballot, key } of kept) {
      const row = nameOfRegisterKey(key) === undefined ? rowPlaceOf(key, place.space) : undefined;
      // A listing that is being filled forgets nothing: what the others lack of it is yet to come to them.
      if (row !== undefined && !this.#parts.mayForget(row.owner)) continue;
      if (row !== undefined) discardedRows.push({ ...row, version: ballot });
      else if (stored(key, idOf(key))?.ballot === ballot) {
        forget(idOf(key));
        deletions.push({ kind: "delete", key });
      }
    }
    const discarded = rows.discard(discardedRows);
    const count = deletions.length + discarded.count;
    if (count === 0) return 0;
    this.noteRemoval(place);
    await engine.apply([...deletions, ...discarded.mutations]);
    return count;
  }

  /** Marks in one commit with what else changes then. */
  async #raised(place: PartitionPlace, to: Marks, mutations: readonly Mutation[]): Promise<void> {
    const { engine, marks } = this.#parts;
    const raised = marks.raise(place, to);
    try {
      await engine.apply([raised.mutation, ...mutations]);
    } catch (error) {
      raised.undo();
      throw error;
    }
  }
}

const versionIn = (name: string, value: Uint8Array): Ballot => decodeRowValue(name, true, value).version;
