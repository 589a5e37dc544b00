import { createHmac } from "node:crypto";
import { systemClock } from "../common/clock.ts";
import { type ClusterConfig, deviceName, rpcListenAddress } from "../common/config.ts";
import { messageOf, RingsteadError } from "../common/errors.ts";
import type { Log } from "../common/log.ts";
import type { Metrics } from "../common/metrics.ts";
import { RpcServer } from "../common/rpc/server.ts";
import { runWorkers } from "../common/worker.ts";
import { deviceWatch, showFailure } from "./daemons/device-watch.ts";
import { housekeeper } from "./daemons/housekeeper.ts";
import { DeviceReplica } from "./device-replica.ts";
import { dispatcher, type ServedDevice } from "./dispatch.ts";
import type { DeviceEngine } from "./engine/device-engine.ts";
import { openDevice } from "./engine/open-device.ts";
import { Staging } from "./staging.ts";
import { entryDigests } from "./store/entry-digest.ts";

export type StorageNodeOptions = {
  readonly config: ClusterConfig;
  /** The devices that it serves; undefined: all of its node's. */
  readonly only: readonly string[] | undefined;
  readonly clusterId: string;
  readonly clusterKey: Buffer;
  readonly socketPath: string;
  readonly log: Log;
  readonly metrics: Metrics;
};

const setHashSeeds = (clusterKey: Buffer): readonly [bigint, bigint] => {
  const digest = createHmac("sha256", clusterKey).update("row set-hash").digest();
  return [digest.readBigUInt64BE(0), digest.readBigUInt64BE(8)];
};

/**
 * Opens the node's devices (each through its recovery) and serves them on the socket. A device that cannot be opened is reported and left
 * out. Errors: "no-device" where that is all of them, with what is wrong with each; the supervisor decides whether others suffice.
 */
export const startStorageNode = async (options: StorageNodeOptions): Promise<AsyncDisposable> => {
  const { config, log, metrics } = options;
  const seeds = setHashSeeds(options.clusterKey);
  const digests = entryDigests(options.clusterKey);
  const devices = new Map<string, ServedDevice>();
  const engines: DeviceEngine[] = [];
  const unopened: string[] = [];
  for (const [index, path] of config.devices.entries()) {
    const device = deviceName(index);
    if (options.only?.includes(device) === false) continue;
    try {
      const identity = { clusterId: options.clusterId, node: config.node, device };
      const engine = await openDevice({ path, identity, digests });
      engines.push(engine);
      devices.set(device, { replica: new DeviceReplica(engine, systemClock, seeds), staging: new Staging(engine) });
      for (const figure of Object.keys(engine.figures())) {
        const name = `ringstead_device_${figure.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}`;
        metrics.gauge(name, `device engine: ${figure}`, () => engine.figures()[figure] ?? 0, { device });
      }
    } catch (error) {
      const reason = messageOf(error);
      unopened.push(`device ${device}: ${reason}`);
      log.error("a device cannot be opened and is left out", { device, path, error: reason });
      showFailure(metrics, systemClock, device, reason);
    }
  }
  if (devices.size === 0)
    throw new RingsteadError("no-device", unopened.join("; ") || `node ${config.node} has no device`);

  let requestCount = 0;
  const dispatch = dispatcher(devices);
  const server = new RpcServer(
    options.clusterKey,
    (header, body, reply) => {
      requestCount += 1;
      dispatch(header, body, reply);
    },
    log,
  );
  await server.listen(options.socketPath);
  const forOthers = rpcListenAddress(config, "storage-node");
  if (forOthers !== undefined) await server.listen(forOthers);
  const workers = runWorkers(
    [
      housekeeper(devices, () => {
        const count = requestCount;
        requestCount = 0;
        return count;
      }),
      deviceWatch(
        new Map([...devices].map(([device, { replica }]) => [device, replica.engine])),
        log,
        metrics,
        systemClock,
      ),
    ],
    { log },
  );
  log.info("storage node serves", { devices: [...devices.keys()] });

  return {
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      await workers[Symbol.asyncDispose]();
      for (const { staging } of devices.values()) await staging[Symbol.asyncDispose]();
      for (const engine of engines) await engine[Symbol.asyncDispose]();
    },
  };
};
