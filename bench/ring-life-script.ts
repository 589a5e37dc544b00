/** A device of the scripted life; `key` names it for ever, also after it was removed and came back. */
export type LifeDevice = {
  readonly key: string;
  readonly zone: number;
  /** An address, since Swift has no names of nodes. */
  readonly node: string;
  readonly weight: number;
};

export type LifeChange =
  | { readonly kind: "add"; readonly devices: readonly LifeDevice[] }
  | { readonly kind: "remove"; readonly key: string }
  | { readonly kind: "weigh"; readonly key: string; readonly weight: number }
  | { readonly kind: "replicas"; readonly replicas: number };

/** What an operator does before one rebalance, or before as many as it takes. */
export type LifeStep = { readonly title: string; readonly change: LifeChange };

export type Life = {
  readonly partitionPower: number;
  /** Of the first step. */
  readonly replicas: number;
  readonly steps: readonly LifeStep[];
};

/** Sizes of disks as they meet in a store that has grown, in GB. */
const WEIGHTS = [4000, 6000, 8000, 12_000] as const;

/**
 * A ring from its first day on: four zones with disks of four sizes, more and more replicas, a fifth zone, and what happens to single
 * devices. With 10 nodes of 20 devices to a zone there are 1,000 devices in the end.
 */
export const ringLife = (options: {
  readonly partitionPower: number;
  readonly nodesPerZone: number;
  readonly devicesPerNode: number;
}): Life => {
  const { partitionPower, nodesPerZone, devicesPerNode } = options;
  const keyOf = (zone: number, node: number, device: number): string => `z${zone}n${node}d${device}`;
  const weightOf = (device: number): number => WEIGHTS[device % WEIGHTS.length] ?? WEIGHTS[0];
  const deviceOf = (zone: number, node: number, device: number): LifeDevice => ({
    key: keyOf(zone, node, device),
    zone,
    node: `10.0.${zone}.${node}`,
    weight: weightOf(device),
  });
  const zoneOf = (zone: number): LifeDevice[] =>
    Array.from({ length: nodesPerZone * devicesPerNode }, (_, index) =>
      deviceOf(zone, 1 + (index % nodesPerZone), Math.floor(index / nodesPerZone)),
    );
  const lost = deviceOf(2, 1, 1);
  const count = 4 * nodesPerZone * devicesPerNode;
  const last = devicesPerNode - 1;
  return {
    partitionPower,
    replicas: 1,
    steps: [
      { title: `${count} uneven devices, 4 zones`, change: { kind: "add", devices: [1, 2, 3, 4].flatMap(zoneOf) } },
      { title: "2 replicas", change: { kind: "replicas", replicas: 2 } },
      { title: "2.5 replicas", change: { kind: "replicas", replicas: 2.5 } },
      { title: "3 replicas", change: { kind: "replicas", replicas: 3 } },
      { title: "add a zone", change: { kind: "add", devices: zoneOf(5) } },
      { title: "drop a device", change: { kind: "remove", key: lost.key } },
      { title: "double a weight", change: { kind: "weigh", key: keyOf(3, 2, 0), weight: 2 * weightOf(0) } },
      { title: "empty a device", change: { kind: "weigh", key: keyOf(1, 1, last), weight: 0 } },
      { title: "add the dropped one again", change: { kind: "add", devices: [lost] } },
      { title: "2 replicas again", change: { kind: "replicas", replicas: 2 } },
    ],
  };
};
