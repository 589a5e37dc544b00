import type { RingData, RingDevice } from "./device.ts";
import { handoffsOf } from "./handoffs.ts";
import { endOfRow, tableShape } from "./table-shape.ts";
import { hash32Of, partitionOfHash32, type Placement, placementHash } from "./placement.ts";

/**
 * A ring in use: immutable, safe to share. A newer version is another `Ring`.
 *
 * Hot path: `placementOf` hashes the name once; `primaries` is one array read and returns an array that was built
 * when the ring was loaded. Bench: bench/ring-lookup.ts.
 */
export type Ring = RingData & {
  /** 2^partitionPower. */
  readonly partitionCount: number;
  /** The 64-bit placement hash of a name. Requires: no "/" in account or container. */
  hashOf(account: string, container?: string, object?: string): bigint;
  placementOf(account: string, container?: string, object?: string): Placement;
  /** Takes the 64-bit placement hash. */
  partitionOfHash(hash: bigint): number;
  /** Takes the top 32 bits of the placement hash, which is what keys begin with. */
  partitionOfHash32(hash32: number): number;
  /** The devices of a partition, replica 0 first; their number is what its quorums are counted from. The same array each time. Requires: 0 ≤ partition < partitionCount. */
  primaries(partition: number): readonly RingDevice[];
  /** All other devices with weight, in the order in which they stand in for primaries; the same on every node. */
  handoffs(partition: number): Iterable<RingDevice>;
};

/** Above this power the arrays of primaries are built on first use: 2^17 of them cost about 7 MB and 10 ms. */
const PREBUILT_POWER_MAX = 17;

/** Requires: `data` came from `decodeRing` or `buildRing`, which check it. */
export const createRing = (data: RingData): Ring => {
  const { assignments, devices, hashSeed, partitionPower, replicas } = data;
  const shape = tableShape(partitionPower, replicas);
  const { partitionCount, width } = shape;
  const shift = 32 - partitionPower;
  const rows: (readonly RingDevice[] | undefined)[] = Array.from({ length: partitionCount });

  const buildRow = (partition: number): readonly RingDevice[] => {
    const row: RingDevice[] = [];
    const end = endOfRow(shape, partition);
    for (let slot = partition * width; slot < end; slot += 1) {
      const device = devices[assignments[slot] ?? -1];
      if (device !== undefined) row.push(device);
    }
    Object.freeze(row);
    rows[partition] = row;
    return row;
  };
  if (partitionPower <= PREBUILT_POWER_MAX) for (let p = 0; p < partitionCount; p += 1) buildRow(p);

  const outOfRange = (partition: number): never => {
    throw new RangeError(`partition ${partition} of a ring with ${partitionCount}`);
  };
  const primaries = (partition: number): readonly RingDevice[] => {
    const row = rows[partition];
    if (row !== undefined) return row;
    const exists = Number.isInteger(partition) && partition >= 0 && partition < partitionCount;
    return exists ? buildRow(partition) : outOfRange(partition);
  };

  return Object.freeze({
    ...data,
    partitionCount,
    hashOf: (account: string, container?: string, object?: string) =>
      placementHash(hashSeed, account, container, object),
    placementOf: (account: string, container?: string, object?: string) => {
      const hash32 = hash32Of(placementHash(hashSeed, account, container, object));
      return { hash32, partition: hash32 >>> shift };
    },
    partitionOfHash: (hash: bigint) => partitionOfHash32(hash32Of(hash), partitionPower),
    partitionOfHash32: (hash32: number) => partitionOfHash32(hash32, partitionPower),
    primaries,
    handoffs: (partition: number) => handoffsOf(data, partition, primaries(partition)),
  });
};
