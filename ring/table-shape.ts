import { RING_LIMITS } from "./device.ts";

/**
 * The shape of a table of assignments. All rows are as wide as the largest partition has replicas; with a fractional replica
 * count the first `fullRows` partitions fill their row, and the last cell of every other is no replica at all and
 * stays empty. (The first ones, so that the children of partitions with one replica more are the first ones too when the
 * partition power grows. A partition's number is a hash, so "first" favours nobody.)
 */
export type TableShape = {
  readonly partitionCount: number;
  /** Cells of a row: the replica count, rounded up. */
  readonly width: number;
  /** So many partitions, from partition 0 on, have `width` replicas; the others one fewer. */
  readonly fullRows: number;
  /** Partition replicas in all. */
  readonly replicaCount: number;
};

/** Requires: `replicas` is one that `nearestReplicas` gives for this power. */
export const tableShape = (partitionPower: number, replicas: number): TableShape => {
  const partitionCount = 2 ** partitionPower;
  const width = Math.ceil(replicas);
  const replicaCount = partitionCount * replicas;
  return { partitionCount, width, fullRows: replicaCount - partitionCount * (width - 1), replicaCount };
};

/** How many replicas a partition has. Quorums are counted from this, partition by partition. */
export const replicasIn = (shape: TableShape, partition: number): number =>
  partition < shape.fullRows ? shape.width : shape.width - 1;

/** One past the last replica of a partition, as an index into the table; the first one is partition × width. */
export const endOfRow = (shape: TableShape, partition: number): number =>
  partition * shape.width + replicasIn(shape, partition);

/** A replica count that the table can have: a whole number of partition replicas. The error is below 2^−(power + 1). */
export const nearestReplicas = (partitionPower: number, replicas: number): number =>
  Math.round(replicas * 2 ** partitionPower) / 2 ** partitionPower;

/** Why this replica count is none, or undefined. */
export const replicasFault = (replicas: number): string | undefined =>
  replicas >= 1 && replicas <= RING_LIMITS.replicasMax
    ? undefined
    : `replicas must be a number from 1 to ${RING_LIMITS.replicasMax}, not ${replicas}`;
