/** One disk (a folder on it) of one node. Its id is its index in the ring's device table and is never given out twice. */
export type RingDevice = {
  readonly id: number;
  readonly region: number;
  /** Zones are counted within their region: zone 1 of region 1 and zone 1 of region 2 are different zones. */
  readonly zone: number;
  /** The node's name; node and device name together occur once in a ring. */
  readonly node: string;
  /** The device's name on its node, such as "d1". */
  readonly device: string;
  /** Share of the data relative to the other devices; 0 empties the device. */
  readonly weight: number;
  /** Free text of the operator. */
  readonly meta?: string;
};

/** What a ring holds; `createRing` adds the lookups. */
export type RingData = {
  /** Grows with every change of the builder; of two rings with one name the higher version is in force. */
  readonly version: number;
  /** Seed of the placement hash, 64 bits; the same for the whole life of a ring. */
  readonly hashSeed: bigint;
  readonly partitionPower: number;
  /** May be a fraction: some partitions then have one replica more than the others (`tableShape`). */
  readonly replicas: number;
  /** Index = device id; `undefined` where a device was removed. */
  readonly devices: readonly (RingDevice | undefined)[];
  /**
   * Device ids, partition after partition: replica r of partition p is at p × width + r, where width is `replicas` rounded up.
   * Where a partition has a replica fewer, its last place is `NO_DEVICE`.
   */
  readonly assignments: Uint16Array;
};

/** No device: not yet in a builder's table, and never in the last place of a partition with fewer replicas than others. */
export const NO_DEVICE = 0xffff;

/** Bounds of everything a ring or builder file may say; whatever is outside is refused. */
export const RING_LIMITS = {
  partitionPowerMin: 1,
  partitionPowerMax: 24,
  replicasMax: 16,
  /** Ids fit in 16 bits and leave `NO_DEVICE` free. */
  deviceCountMax: 0xffff,
  tierNumberMax: 0xffff,
  nameLengthMax: 255,
  metaLengthMax: 1024,
  weightMax: 1e9,
  minPartHoursMax: 8760,
  overloadMax: 10,
  versionMax: Number.MAX_SAFE_INTEGER,
} as const;
