import { createHmac } from "node:crypto";
import { existsSync } from "node:fs";
import { systemClock } from "../common/clock.ts";
import { deviceName, rpcListenAddress } from "../common/config.ts";
import { devicesOfStorageNode } from "../common/device-groups.ts";
import { messageOf, RingsteadError } from "../common/errors.ts";
import { RpcServer } from "../common/rpc/server.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import type { ServiceContext } from "../common/service-process.ts";
import { runWorkers, sleep } from "../common/worker.ts";
import { loadBaseRing, placementIdentity } from "../ring/base-ring.ts";
import { loadRing } from "../ring/ring-file.ts";
import type { Ring } from "../ring/ring.ts";
import { HandOffClient, StorageNodeConnections } from "./client.ts";
import { requireBaseRings } from "./base-rings.ts";
import { deviceWatch, showFailure } from "./daemons/device-watch.ts";
import { HandOffSender } from "./daemons/hand-off-sender.ts";
import { housekeeper } from "./daemons/housekeeper.ts";
import { type DevicePlace, Replicator } from "./daemons/replicator.ts";
import { Reclaimer } from "./daemons/reclaimer.ts";
import { deviceUpkeep } from "./daemons/scrubber-upkeep.ts";
import { DeviceReplica } from "./device-replica.ts";
import { begunUploads, dispatcher, type ServedDevice } from "./dispatch.ts";
import type { DeviceEngine } from "./engine/device-engine.ts";
import { openDevice } from "./engine/open-device.ts";
import { circleOfRings } from "./hearing-circle.ts";
import { requireMountedDisk } from "./mounted-disk.ts";
import { type FirstMembers, PartitionEpochs } from "./partition-epochs.ts";
import { ReclaimMarks } from "./reclaim-marks.ts";
import { Foreground } from "./repair/foreground.ts";
import { LocalSource } from "./repair/local-source.ts";
import { RepairPace } from "./repair/pace.ts";
import { recountRows } from "./repair/recount-rows.ts";
import { noteRepairFailures, showHandOffs, showReclaim, showRepair } from "./repair/repair-metrics.ts";
import { RepairPeer, type RepairSource } from "./repair/repair-peer.ts";
import { WatchedRepairSettings } from "./repair/repair-settings.ts";
import { RowWalk } from "./row-walk.ts";
import { Staging } from "./staging.ts";
import { BUCKET_POWER, entryDigests } from "./store/entry-digest.ts";
import { Votes } from "./votes.ts";
import type { Space } from "./wire.ts";

/** How long a start waits for the votes of its devices. */
const JOIN_PATIENCE_MS = 2000;
const JOIN_POLL_MS = 20;

const setHashSeeds = (clusterKey: Buffer): readonly [bigint, bigint] => {
  const digest = createHmac("sha256", clusterKey).update("row set-hash").digest();
  return [digest.readBigUInt64BE(0), digest.readBigUInt64BE(8)];
};

const loadServedRing = (path: string): Ring => {
  const ring = loadBaseRing(path);
  if (ring.partitionPower > BUCKET_POWER) {
    throw new RingsteadError(
      "ring-too-fine",
      `${path} has 2^${ring.partitionPower} partitions, and devices compare what they hold in 2^${BUCKET_POWER} parts: make rings of a power of at most ${BUCKET_POWER}`,
    );
  }
  return ring;
};

const RING_NAMES = ["account", "container", "object-0"] as const;

/** Those at which partitions that were never moved are of epoch 0; devices hear of all others. */
const loadRings = (paths: RuntimePaths): Readonly<Record<Space, Ring>> => ({
  account: loadServedRing(paths.ringFile("account")),
  container: loadServedRing(paths.ringFile("container")),
  object: loadServedRing(paths.ringFile("object-0")),
});

const firstMembersOf = (rings: Readonly<Record<Space, Ring>>): FirstMembers => {
  const of = (ring: Ring): FirstMembers["object"] => ({
    partitionPower: ring.partitionPower,
    idsOf: (partition) => ring.primaries(partition).map(({ device, node }) => `${node}/${device}`),
    identity: placementIdentity(ring),
  });
  return { account: of(rings.account), container: of(rings.container), object: of(rings.object) };
};

const powersOf = ({ account, container, object }: Readonly<Record<Space, Ring>>): Readonly<Record<Space, number>> => ({
  account: account.partitionPower,
  container: container.partitionPower,
  object: object.partitionPower,
});

/** A device named as `node/device`. */
const placeOf = (id: string): DevicePlace => {
  const slash = id.indexOf("/");
  return { node: id.slice(0, slash), device: id.slice(slash + 1) };
};

/** A node of a cluster that begins has its votes in a moment, if the others are there: whoever waits for it to be ready finds them. */
const untilJoined = async (votes: readonly Votes[]): Promise<void> => {
  const limit = performance.now() + JOIN_PATIENCE_MS;
  while (votes.some(({ isNewcomer }) => isNewcomer) && performance.now() < limit) await sleep(JOIN_POLL_MS);
};

/**
 * Opens the node's devices (each through its recovery) and serves them on the socket. A device that cannot be opened is reported and left
 * out. Errors: "no-device" where that is all of them, with what is wrong with each; the supervisor decides whether others suffice.
 */
export const startStorageNode = async (context: ServiceContext): Promise<AsyncDisposable> => {
  const { config, paths, log, metrics } = context;
  const only = devicesOfStorageNode(context.deviceGroups, context.role);
  const rings = loadRings(paths);
  const isFounding = existsSync(paths.founding);
  const seeds = setHashSeeds(context.clusterKey);
  const digests = entryDigests(context.clusterKey);
  const devices = new Map<string, ServedDevice>();
  const folders = new Map<string, string>();
  const engines: DeviceEngine[] = [];
  const unopened: string[] = [];
  for (const [index, path] of config.devices.entries()) {
    const device = deviceName(index);
    if (only?.includes(device) === false) continue;
    try {
      requireMountedDisk(device, path, paths.mountedDisk(device));
      const identity = { clusterId: context.clusterId, node: config.node, device };
      const engine = await openDevice({ path, identity, digests });
      engines.push(engine);
      const epochs = await PartitionEpochs.opened(engine, `${config.node}/${device}`, firstMembersOf(rings));
      await requireBaseRings(engine, rings);
      const votes = await Votes.opened(engine, systemClock, isFounding);
      if (votes.isNewcomer) await recountRows(engine, seeds);
      const marks = await ReclaimMarks.opened(engine);
      const replica = new DeviceReplica(engine, systemClock, seeds, votes, epochs, marks);
      await replica.handOffs.count();
      if (votes.isNewcomer)
        log.warn("a device is new, or has lost something: it votes once it has caught up", { device });
      devices.set(device, { replica, staging: new Staging(engine) });
      folders.set(device, path);
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

  const dispatch = dispatcher(devices);
  const foreground = new Foreground();
  const server = new RpcServer(
    context.clusterKey,
    (header, body, reply) => {
      dispatch(header, body, foreground.watched(header, reply));
    },
    log,
    { begunWork: begunUploads(devices) },
  );
  await server.listen(paths.socket(context.role));
  const forOthers = rpcListenAddress(config, "storage-node");
  if (forOthers !== undefined) await server.listen(forOthers);
  const connections = new StorageNodeConnections(context);
  const settings = new WatchedRepairSettings(paths.repairSettings, log);
  const pace = new RepairPace(() => settings.now, foreground);
  pace.show(metrics);
  const peerOf = (peer: DevicePlace): RepairSource => {
    const own = peer.node === config.node ? devices.get(peer.device) : undefined;
    return own === undefined ? new RepairPeer(connections.of(peer), peer.device) : new LocalSource(own.replica);
  };
  const circle = circleOfRings(
    RING_NAMES.map((name) => paths.ringFile(name)),
    Object.values(rings),
  );
  const replicators = [...devices].map(([device, { replica }]) => {
    const onFailure = noteRepairFailures(metrics, device, systemClock);
    const parts = { node: config.node, device, replica, rings, circle, peerOf, clock: systemClock, log, onFailure };
    const replicator = new Replicator({ ...parts, pace: pace.ofDevice() });
    showRepair(metrics, device, replicator);
    return replicator;
  });
  const upkeepWorkers = [...devices].flatMap(([device, served]) => {
    const own = pace.ofDevice();
    served.upkeep = deviceUpkeep({
      node: config.node,
      device,
      path: folders.get(device) ?? "",
      replica: served.replica,
      rings,
      peerOf,
      scrubDays: config.scrubDays,
      allow: (bytes, signal) => {
        own.account(0, bytes);
        return own.admit(signal);
      },
      clock: systemClock,
      log,
      metrics,
    });
    return [served.upkeep.healer, served.upkeep.scrubber];
  });
  const reclaimers = [...devices].map(([device, { replica }]) => {
    const reclaimer = new Reclaimer({
      device,
      replica,
      powers: powersOf(rings),
      reclaimDays: config.reclaimDays,
      peerOf: (id) => peerOf(placeOf(id)),
      pace: pace.ofDevice(),
      clock: systemClock,
    });
    showReclaim(metrics, device, reclaimer);
    return reclaimer;
  });
  const senders = [...devices].map(([device, { replica }]) => {
    const targetOf = (id: string): HandOffClient => {
      const peer = placeOf(id);
      return new HandOffClient(connections.of(peer), peer.device);
    };
    const sender = new HandOffSender({ device, replica, rings, targetOf, pace: pace.ofDevice() });
    showHandOffs(metrics, device, sender);
    return sender;
  });
  // Nodes that only the base names may be gone by now.
  for (const name of RING_NAMES) {
    try {
      connections.checkKnown(loadRing(paths.ringFile(name)).devices);
    } catch (error) {
      // Devices hear from each other who keeps what; the ring is for those who move.
      log.error("a ring cannot be followed", { path: paths.ringFile(name), error });
    }
  }
  const workers = runWorkers(
    [
      ...replicators,
      ...upkeepWorkers,
      ...reclaimers,
      ...senders,
      ...[...devices].map(([device, { replica }]) => new RowWalk(device, replica, systemClock)),
      housekeeper(devices),
      deviceWatch(
        new Map([...devices].map(([device, { replica }]) => [device, replica.engine])),
        log,
        metrics,
        systemClock,
      ),
    ],
    { log },
  );
  await untilJoined([...devices.values()].map(({ replica }) => replica.votes));
  log.info("storage node serves", { devices: [...devices.keys()] });

  return {
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      const stopped = workers[Symbol.asyncDispose]();
      pace[Symbol.dispose]();
      settings[Symbol.dispose]();
      // What is asked of a peer that does not answer is not waited for.
      connections[Symbol.dispose]();
      await stopped;
      for (const { staging } of devices.values()) await staging[Symbol.asyncDispose]();
      for (const engine of engines) await engine[Symbol.asyncDispose]();
    },
  };
};
