import type { RingData, RingDevice } from "./device.ts";

/** The finaliser of MurmurHash3 (public domain, Austin Appleby): every input bit changes every output bit. */
const mix32 = (value: number): number => {
  let mixed = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
};

/** Uses of each region, zone and node by the devices already chosen. */
class Uses {
  readonly #counts = new Map<string, number>();

  add(device: RingDevice): void {
    for (const tier of Uses.#tiersOf(device)) this.#counts.set(tier, (this.#counts.get(tier) ?? 0) + 1);
  }

  /** [uses of its region, of its zone, of its node] */
  of(device: RingDevice): [number, number, number] {
    const [region, zone, node] = Uses.#tiersOf(device);
    return [this.#counts.get(region) ?? 0, this.#counts.get(zone) ?? 0, this.#counts.get(node) ?? 0];
  }

  static #tiersOf(device: RingDevice): [string, string, string] {
    const region = `${device.region}`;
    const zone = `${region}/${device.zone}`;
    return [region, zone, `${zone}/${device.node}`];
  }
}

/**
 * The hand-off order of a partition: each next device is one in the region used least so far, within that
 * in the zone used least, then the node, the primaries counted too. Ties go by a hash of partition and device id divided by the
 * weight, so that the load of a lost device spreads over all others in proportion. Only integer arithmetic and one
 * division decide, so every node finds the same order. (Swift walks the ring from the partition on, which
 * gives neighbouring partitions the same hand-offs.)
 *
 * Lazy: each step costs one pass over the devices; callers rarely take more than a few.
 */
export function* handoffsOf(
  data: Pick<RingData, "devices" | "hashSeed">,
  partition: number,
  primaries: readonly RingDevice[],
): Generator<RingDevice, void, undefined> {
  const seed = Number(data.hashSeed & 0xffffffffn);
  const partitionMix = mix32(partition ^ seed);
  const uses = new Uses();
  for (const device of primaries) uses.add(device);
  const rest = data.devices
    .filter((device) => device !== undefined)
    .filter((device) => device.weight > 0 && !primaries.includes(device))
    .map((device) => ({ device, score: mix32(partitionMix ^ mix32(device.id + 1)) / device.weight }))
    .sort((a, b) => a.score - b.score || a.device.id - b.device.id)
    .map(({ device }) => device);
  while (rest.length > 0) {
    let best = 0;
    let bestUses: readonly [number, number, number] | undefined;
    for (const [index, device] of rest.entries()) {
      const candidate = uses.of(device);
      if (bestUses === undefined || isLess(candidate, bestUses)) {
        best = index;
        bestUses = candidate;
      }
    }
    const [device] = rest.splice(best, 1);
    if (device === undefined) return;
    uses.add(device);
    yield device;
  }
}

const isLess = (a: readonly [number, number, number], b: readonly [number, number, number]): boolean =>
  a[0] !== b[0] ? a[0] < b[0] : a[1] !== b[1] ? a[1] < b[1] : a[2] < b[2];
