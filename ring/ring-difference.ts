import { RingsteadError } from "../common/errors.ts";
import type { RingData, RingDevice } from "./device.ts";
import { endOfRow, type TableShape, tableShape } from "./table-shape.ts";

/**
 * One change of one member of a partition: a replica goes from a device to another; `from` is undefined where the partition gains a
 * replica, `to` where it loses one.
 */
type RingMove = {
  /** At the power of the difference. */
  readonly partition: number;
  /** Place in the partition's row: of `to` in the new ring, or, where a replica is lost, of `from` in the old one. */
  readonly replicaIndex: number;
  readonly from: RingDevice | undefined;
  readonly to: RingDevice | undefined;
  /** 0 for the first change of this partition, 1 for the second; one must be done before the next begins (PROTOCOL.md M6). */
  readonly step: number;
};

export type RingDifference = {
  /** The higher one of the two rings; partitions of the lower one count as split. */
  readonly partitionPower: number;
  /** First steps of all partitions first, in the order of partitions. Done in this order they lead from the old ring to the new. */
  readonly moves: readonly RingMove[];
};

/**
 * What to do to come from one ring to another. A member is a device id: a device that was removed and added again under its old name is
 * another member, and one that only stands in another place of the row is the same. The rings may differ in partition power,
 * replica count and everything else but the hash seed.
 *
 * Within a partition the steps go from what endangers least to what endangers most: first the replicas of devices that the
 * new ring does not list any more, then additional ones, then other moves, and last those that are given up.
 *
 * @throws RingsteadError `ring-foreign` when the seeds differ: then the two do not place the same names
 */
export const ringDifference = (before: RingData, after: RingData): RingDifference => {
  if (before.hashSeed !== after.hashSeed)
    throw new RingsteadError(
      "ring-foreign",
      "the two rings have different hash seeds: they are not of one installation",
    );
  const partitionPower = Math.max(before.partitionPower, after.partitionPower);
  const [old, now] = [rowsOf(before, partitionPower), rowsOf(after, partitionPower)];
  const bySteps: RingMove[][] = [];
  for (let partition = 0; partition < 2 ** partitionPower; partition += 1) {
    if (old.isEqual(now, partition)) continue;
    for (const [step, move] of stepsOf(old.row(partition), now.row(partition), before, after).entries()) {
      bySteps[step] ??= [];
      bySteps[step].push({ partition, ...move, step });
    }
  }
  return { partitionPower, moves: bySteps.flat() };
};

/** A ring's rows, seen at a power at least as high as its own. */
class Rows {
  readonly #assignments: Uint16Array;
  readonly #shape: TableShape;
  readonly #shift: number;

  constructor(assignments: Uint16Array, shape: TableShape, shift: number) {
    this.#assignments = assignments;
    this.#shape = shape;
    this.#shift = shift;
  }

  row(partition: number): Uint16Array {
    const own = partition >>> this.#shift;
    return this.#assignments.subarray(own * this.#shape.width, endOfRow(this.#shape, own));
  }

  /** Without making arrays: most partitions of two rings are equal. */
  isEqual(other: Rows, partition: number): boolean {
    const own = partition >>> this.#shift;
    const others = partition >>> other.#shift;
    const first = own * this.#shape.width;
    const othersFirst = others * other.#shape.width;
    const length = endOfRow(this.#shape, own) - first;
    if (length !== endOfRow(other.#shape, others) - othersFirst) return false;
    for (let index = 0; index < length; index += 1)
      if (this.#assignments[first + index] !== other.#assignments[othersFirst + index]) return false;
    return true;
  }
}

const rowsOf = ({ assignments, partitionPower, replicas }: RingData, power: number): Rows =>
  new Rows(assignments, tableShape(partitionPower, replicas), power - partitionPower);

type Step = Pick<RingMove, "replicaIndex" | "from" | "to">;

const stepsOf = (old: Uint16Array, now: Uint16Array, before: RingData, after: RingData): Step[] => {
  const leaving = [...old].filter((id) => !now.includes(id));
  const entering = [...now].filter((id) => !old.includes(id));
  const isLost = (id: number): boolean => after.devices[id] === undefined;
  // Those that are gone are replaced first, and what is left over of the others is given up.
  leaving.sort((a, b) => Number(isLost(b)) - Number(isLost(a)));
  const replaced: Step[] = [];
  const added: Step[] = [];
  for (const [index, id] of entering.entries()) {
    const from = leaving[index];
    (from === undefined ? added : replaced).push({
      replicaIndex: now.indexOf(id),
      from: from === undefined ? undefined : before.devices[from],
      to: after.devices[id],
    });
  }
  const lostCount = replaced.filter(({ from }) => from !== undefined && isLost(from.id)).length;
  const dropped = leaving
    .slice(entering.length)
    .map((id): Step => ({ replicaIndex: old.indexOf(id), from: before.devices[id], to: undefined }));
  return [...replaced.slice(0, lostCount), ...added, ...replaced.slice(lostCount), ...dropped];
};
