import { type ClusterConfig, deviceName } from "../common/config.ts";
import { codeOf, messageOf, RingsteadError } from "../common/errors.ts";
import type { Log } from "../common/log.ts";
import { sleep } from "../common/worker.ts";
import type { RingDevice } from "../ring/device.ts";
import type { DeviceEngine, OpenDeviceOptions } from "../storage-node/engine/device-engine.ts";
import type { DigestScheme } from "../storage-node/engine/digest-table.ts";
import { openDevice } from "../storage-node/engine/open-device.ts";
import { copyPartition, erasePartition } from "../storage-node/partition-copy.ts";
import type { ReplicaMove } from "./replica-moves.ts";

const PROGRESS_MS = 10_000;
/** A storage node that was just killed may hold its devices for a moment longer. */
const BUSY_LIMIT_MS = 15_000;
const BUSY_RETRY_MS = 200;

const openWhenFree = async (options: OpenDeviceOptions): Promise<DeviceEngine> => {
  const deadline = performance.now() + BUSY_LIMIT_MS;
  for (;;) {
    try {
      return await openDevice(options);
    } catch (thrown) {
      if (codeOf(thrown) !== "device-busy" || performance.now() > deadline) throw thrown;
      await sleep(BUSY_RETRY_MS);
    }
  }
};

/**
 * Moves replicas between the devices of this node while nothing runs: each is copied whole, with what it promised, so that it is the same voter
 * in another place and every quorum keeps what it had. `switchRing` then makes the new ring the one that counts, and only
 * after that the old copies go. A crash at any instant leaves the old ring with all its data, or the new one.
 */
export const moveReplicas = async (
  moves: readonly ReplicaMove[],
  config: ClusterConfig,
  { clusterId, digests }: { readonly clusterId: string; readonly digests: DigestScheme },
  log: Log,
  switchRing: () => void,
): Promise<void> => {
  await using opened = new AsyncDisposableStack();
  const engines = new Map<string, DeviceEngine>();
  const engineOf = async ({ node, device }: RingDevice): Promise<DeviceEngine> => {
    const index = config.devices.findIndex((_path, at) => deviceName(at) === device);
    const path = config.devices[index];
    if (node !== config.node || path === undefined) {
      throw new RingsteadError(
        "devices-refused",
        `the ring takes replicas from or to ${node}/${device}, which is no device of this node: this version moves data only between ` +
          "the devices of one node",
        { node, device },
      );
    }
    const known = engines.get(device);
    if (known !== undefined) return known;
    const engine = opened.use(await openWhenFree({ path, identity: { clusterId, node, device }, digests }));
    engines.set(device, engine);
    return engine;
  };
  // All that could refuse the whole of it comes before the first change.
  for (const { from, to } of moves) {
    await engineOf(from);
    await engineOf(to);
  }
  let shownAtMs = performance.now();
  let bytes = 0;
  for (const [index, { place, from, to }] of moves.entries()) {
    try {
      bytes += (await copyPartition(await engineOf(from), await engineOf(to), place)).bytes;
    } catch (thrown) {
      throw new RingsteadError(
        "devices-refused",
        `partition ${place.partition} of the ${place.space}s cannot be moved from ${from.device} to ${to.device}: ${messageOf(thrown)}; the ring ` +
          "is as before, nothing is lost",
        { partition: place.partition },
      );
    }
    if (performance.now() - shownAtMs < PROGRESS_MS) continue;
    shownAtMs = performance.now();
    log.info("replicas move to other devices", { space: place.space, done: index + 1, of: moves.length, bytes });
  }
  for (const engine of engines.values()) await engine.sync();
  switchRing();
  for (const { place, from } of moves) await erasePartition(await engineOf(from), place);
};
