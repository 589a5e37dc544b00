import { encode } from "msgpackr";
import { type HybridTimestamp, TIMESTAMP_ZERO } from "../common/hybrid-clock.ts";
import { maxTimestamp } from "../common/ballot.ts";
import { RingsteadError } from "../common/errors.ts";
import type { DeviceEngine, Mutation, ScannedEntry } from "./engine/device-engine.ts";
import { MARK_KEYS, markKey, placeOfPartitionKey } from "./store/keys.ts";
import { type PartitionPlace, readerOf, type Space } from "./wire.ts";

const FORMAT = 1;
/** Entries that are read at once when a device is opened. */
const SCAN_LIMIT = 10_000;

/** At or below it nothing is taken in a partition for a name that nothing is held of: of registers, and of rows. */
export type Marks = { readonly registers: HybridTimestamp; readonly rows: HybridTimestamp };

export const NO_MARKS: Marks = { registers: TIMESTAMP_ZERO, rows: TIMESTAMP_ZERO };

const decode = (value: Uint8Array): Marks => {
  const reader = readerOf(value, "marks");
  if (reader.count() !== FORMAT) throw new RingsteadError("bad-message", "malformed record: marks");
  return { registers: reader.timestamp(), rows: reader.timestamp() };
};

/** The higher ones of two. */
export const higherMarks = (one: Marks, other: Marks): Marks => ({
  registers: maxTimestamp(one.registers, other.registers),
  rows: maxTimestamp(one.rows, other.rows),
});

/** Marks of one ring: `shift` gives the partition of a hash. */
type SpaceMarks = { shift: number; power: number; readonly marks: Map<number, Marks> };

/**
 * The `mark` of each partition on a device (PROTOCOL section 7): how late deletions were that it has removed. Kept with the device and in memory, a record
 * for each partition in which anything was ever removed.
 */
export class ReclaimMarks {
  readonly #spaces: Readonly<Record<Space, SpaceMarks>>;

  constructor() {
    const none = (): SpaceMarks => ({ shift: 0, power: 0, marks: new Map() });
    this.#spaces = { object: none(), container: none(), account: none() };
  }

  /** As the device's own entries say: those of `MARK_KEYS`. A mark of another partition power counts for all partitions that it overlaps. Errors (thrown): "bad-message". */
  static recorded(entries: readonly Pick<ScannedEntry, "key" | "value">[]): ReclaimMarks {
    const marks = new ReclaimMarks();
    for (const { key, value } of entries) marks.#set(placeOfPartitionKey(key), decode(value), false);
    return marks;
  }

  /** Of a device that was just opened. Errors: as above. */
  static async opened(engine: DeviceEngine): Promise<ReclaimMarks> {
    const entries: ScannedEntry[] = [];
    for await (const page of engine.scanPages({ ...MARK_KEYS, limit: SCAN_LIMIT })) entries.push(...page);
    return ReclaimMarks.recorded(entries);
  }

  /** Those that count for a name. */
  of(space: Space, hash32: number): Marks {
    const { marks, shift } = this.#spaces[space];
    return marks.size === 0 ? NO_MARKS : (marks.get(hash32 >>> shift) ?? NO_MARKS);
  }

  /**
   * What makes durable that nothing at or below these is taken any more; it counts at once, and `undo` takes it back where it could not be applied.
   * Requires: it is applied in this turn, with what is removed by it, and nothing else is raised before that has ended.
   */
  raise(place: PartitionPlace, to: Marks): { readonly mutation: Mutation; undo(): void } {
    const { partition, partitionPower, space } = place;
    const before = this.of(space, partition * 2 ** (32 - partitionPower));
    const after = higherMarks(before, to);
    this.#set(place, after, false);
    const value = encode([FORMAT, after.registers, after.rows]);
    const mutation: Mutation = {
      kind: "put",
      key: markKey(space, partitionPower, partition),
      value,
      body: { kind: "none" },
    };
    return { mutation, undo: () => this.#set(place, before, true) };
  }

  #set({ partition, partitionPower, space }: PartitionPlace, marks: Marks, isLower: boolean): void {
    const own = this.#spaces[space];
    if (own.marks.size === 0 || partitionPower > own.power) this.#refine(own, partitionPower);
    const width = 2 ** (own.power - partitionPower);
    for (let at = partition * width; at < (partition + 1) * width; at++) {
      const known = isLower ? NO_MARKS : (own.marks.get(at) ?? NO_MARKS);
      own.marks.set(at, higherMarks(known, marks));
    }
  }

  /** A finer ring: each partition is some of the new ones. */
  #refine(own: SpaceMarks, power: number): void {
    const before = [...own.marks];
    const width = own.marks.size === 0 ? 1 : 2 ** (power - own.power);
    own.power = power;
    own.shift = 32 - power;
    own.marks.clear();
    for (const [partition, marks] of before)
      for (let at = partition * width; at < (partition + 1) * width; at++) own.marks.set(at, marks);
  }
}
