import type { ClusterConfig } from "../common/config.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import { loadRing } from "../ring/ring-file.ts";
import type { Ring } from "../ring/ring.ts";
import type { DeviceStatus } from "./device-status.ts";
import type { Unavailable } from "./ready-file.ts";
import { RING_NAMES } from "./rings.ts";

/**
 * A full device answers for itself: 507 for what needs space, and it takes what frees some. One that catches up votes in more partitions each
 * moment: what it means is said of the device.
 */
const TAKES_WRITES: ReadonlySet<DeviceStatus["state"]> = new Set(["served", "full", "catching-up"]);

/** In how many partitions fewer than W = floor(N/2)+1 replicas take writes. Devices of other nodes are taken to. */
export const partitionsWithoutQuorum = (ring: Ring, node: string, writable: ReadonlySet<string>): number => {
  let count = 0;
  for (let partition = 0; partition < ring.partitionCount; partition++) {
    const members = ring.primaries(partition);
    const able = members.filter((one) => one.node !== node || writable.has(one.device)).length;
    if (able < Math.floor(members.length / 2) + 1) count++;
  }
  return count;
};

/** Says that writes are refused for want of devices, as an entry of ready.json; undefined where each finds its quorum. */
export const refusedWrites = (
  paths: RuntimePaths,
  { node, replicas }: Pick<ClusterConfig, "node" | "replicas">,
  devices: readonly Pick<DeviceStatus, "device" | "state">[],
): Unavailable | undefined => {
  const writable = devices.filter(({ state }) => TAKES_WRITES.has(state)).map(({ device }) => device);
  if (writable.length === devices.length) return undefined;
  const able = new Set(writable);
  const shares = RING_NAMES.map((name) => {
    const ring = loadRing(paths.ringFile(name));
    return { refused: partitionsWithoutQuorum(ring, node, able), of: ring.partitionCount };
  });
  // An object needs its container's partition as well as its own: the worst of the rings counts.
  const { refused, of } = shares.reduce((worst, one) =>
    one.refused / one.of > worst.refused / worst.of ? one : worst,
  );
  if (refused === 0) return undefined;
  const quorum = Math.floor(replicas / 2) + 1;
  const which = writable.length === 0 ? "none" : `only ${writable.join(", ")}`;
  return {
    service: "object",
    reason:
      `writes are refused in ${refused === of ? "every partition" : `${refused} of ${of} partitions`}: of ${devices.length} devices ${which} can be ` +
      `written, and a write needs ${quorum} of its ${replicas} replicas, a read ${replicas - quorum + 1}`,
    remedy:
      "see what ./scripts/ringstead status says of the other devices, put it right, then ./scripts/ringstead down and up",
  };
};
