import type { ClusterConfig } from "../common/config.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import type { Space } from "../storage-node/wire.ts";
import type { DeviceStatus } from "./device-status.ts";
import type { Unavailable } from "./ready-file.ts";
import { movedPartitions, partitionsWithoutQuorum } from "./partition-members.ts";
import { InstallationDevices, placeOfId } from "./scrub-devices.ts";

const SPACES: readonly Space[] = ["account", "container", "object"];

/**
 * A full device answers for itself: 507 for what needs space, and it takes what frees some. One that catches up votes in more partitions each
 * moment: what it means is said of the device.
 */
const TAKES_WRITES: ReadonlySet<DeviceStatus["state"]> = new Set(["served", "full", "catching-up"]);

/**
 * Says that writes are refused for want of devices, as an entry of ready.json; undefined where each finds its quorum. Devices of other nodes are taken to take
 * writes. Who keeps what was moved is what those say that answer. Errors: "invalid-config", those of ring files and of the cluster key.
 */
export const refusedWrites = async (
  paths: RuntimePaths,
  config: ClusterConfig,
  devices: readonly Pick<DeviceStatus, "device" | "state">[],
): Promise<Unavailable | undefined> => {
  const writable = devices.filter(({ state }) => TAKES_WRITES.has(state)).map(({ device }) => device);
  if (writable.length === devices.length) return undefined;
  const able = new Set(writable.map((device) => `${config.node}/${device}`));
  const isAble = (id: string): boolean => able.has(id) || placeOfId(id).node !== config.node;
  using asked = new InstallationDevices(paths, config);
  const everybody = asked.everybody();
  const shares = await Promise.all(
    SPACES.map(async (space) => {
      const base = asked.bases[space];
      const moved = await movedPartitions(space, base.partitionPower, everybody);
      return { refused: partitionsWithoutQuorum(base, moved, isAble), of: base.partitionCount };
    }),
  );
  // An object needs its container's partition as well as its own: the worst of the rings counts.
  const { refused, of } = shares.reduce((worst, one) =>
    one.refused / one.of > worst.refused / worst.of ? one : worst,
  );
  if (refused === 0) return undefined;
  const { replicas } = config;
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
