import { existsSync, mkdirSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { systemClock } from "../common/clock.ts";
import { type ClusterConfig, deviceName } from "../common/config.ts";
import { RingsteadError } from "../common/errors.ts";
import type { Log } from "../common/log.ts";
import { seededRandom } from "../common/random.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import { checkSuccessor, damagedRingRemedy, keepBaseRing, loadBaseRing } from "../ring/base-ring.ts";
import { addDevice, type Builder, buildRing, countHoles, createBuilder } from "../ring/builder.ts";
import { loadBuilder, saveBuilder } from "../ring/builder-file.ts";
import { rebalance } from "../ring/rebalance.ts";
import { loadRing, saveRing } from "../ring/ring-file.ts";

/** One ring per kind of thing that is stored; `object-0` is that of the first storage policy. */
export const RING_NAMES = ["object-0", "container", "account"] as const;
type RingName = (typeof RING_NAMES)[number];

const MIN_PART_HOURS = 1;
const DEVICE_WEIGHT = 100;

const random64 = (): bigint => randomBytes(8).readBigUInt64LE();

const addDevices = (builder: Builder, config: ClusterConfig, from: number): void => {
  for (const index of config.devices.keys()) {
    if (index < from) continue;
    addDevice(builder, { region: 1, zone: 1, node: config.node, device: deviceName(index), weight: DEVICE_WEIGHT });
  }
};

/** The highest number in a name of `node`'s devices: devices are numbered without gaps, from d1. */
const deviceCountOf = (builder: Builder, node: string): number =>
  Math.max(0, ...builder.devices.map((device) => (device?.node === node ? Number(device.device.slice(1)) : 0)));

/** Throws RingsteadError `devices-refused` or `replicas-refused` where the configuration asks for what only a ring command may do. */
const checkAgainst = (builder: Builder, paths: RuntimePaths, name: RingName, config: ClusterConfig): void => {
  const had = deviceCountOf(builder, config.node);
  if (config.devices.length < had) {
    const id = builder.devices.findLastIndex((device) => device?.node === config.node);
    const builders = `${paths.builderFile("NAME")}, NAME each of ${RING_NAMES.join(", ")}`;
    throw new RingsteadError(
      "devices-refused",
      `${paths.dataDir} has ${had} devices, ${config.devices.length} are asked for: take the last one out first. While it serves, for ` +
        `BUILDER ${builders}: "./scripts/ringstead ring weight BUILDER ${id} 0" and "ring rebalance BUILDER --force"; once "ringstead ring status" has ` +
        `nothing left to move "ring remove BUILDER ${id}" and "ring rebalance BUILDER", "ringstead down"; then start with ${had - 1} devices`,
      { had, asked: config.devices.length },
    );
  }
  const served = existsSync(paths.ringFile(name)) ? loadRing(paths.ringFile(name)).replicas : builder.replicas;
  if (config.replicas === served && served !== builder.replicas) {
    const file = paths.builderFile(name);
    throw new RingsteadError(
      "replicas-refused",
      `${file} plans ${builder.replicas} replicas, ${paths.dataDir} keeps ${served}: an installation keeps its replica count. ` +
        `Take the plan back: "./scripts/ringstead ring set-replicas ${file} ${served}" and "ring rebalance ${file} --plan"`,
      { had: served, asked: builder.replicas },
    );
  }
  if (config.replicas !== builder.replicas) {
    throw new RingsteadError(
      "replicas-refused",
      `${paths.dataDir} keeps ${builder.replicas} replicas, ${config.replicas} are asked for; an installation keeps its replica count: start an ` +
        `installation of its own, ./scripts/start --data DIR2 --replicas ${config.replicas}, and copy the objects with rclone`,
      { had: builder.replicas, asked: config.replicas },
    );
  }
};

/** A damaged ring file is told here, once, by name and with what to do, rather than by whichever process meets it. Errors (thrown): as `loadRing`. */
const requireReadable = (paths: RuntimePaths, name: RingName): void => {
  const path = paths.ringFile(name);
  if (!existsSync(path)) return;
  try {
    loadRing(path);
  } catch (error) {
    if (!(error instanceof RingsteadError)) throw error;
    const builder = paths.builderFile(name);
    const remedy = damagedRingRemedy(existsSync(builder) ? builder : undefined);
    throw new RingsteadError(error.code, `${error.message}: ${remedy}`, error.fields);
  }
};

/** Nodes that each made rings of their own would look for the same name in different places. */
const checkHandedOut = (paths: RuntimePaths, config: ClusterConfig, roles: readonly string[]): void => {
  for (const name of RING_NAMES) {
    const file = paths.ringFile(name);
    if (!existsSync(file)) {
      throw new RingsteadError(
        "rings-absent",
        `${file} is absent: an installation of several nodes has the same rings on each. Make ${RING_NAMES.join(", ")} once with ` +
          '"./scripts/ringstead ring create", "ring add" for each device of each node and "ring rebalance", and copy the .ring files to DIR/rings of every node',
      );
    }
    requireReadable(paths, name);
    const ring = loadRing(file);
    const own = ring.devices.flatMap((device) => (device?.node === config.node ? [device.device] : []));
    const unknown = own.filter((device) => !config.devices.some((_path, index) => deviceName(index) === device));
    if (roles.includes("storage-node") && unknown.length > 0) {
      throw new RingsteadError(
        "devices-refused",
        `${file} places data on ${config.node}/${unknown.join(", ")}, but [node.${config.node}] has ${config.devices.length} devices`,
      );
    }
  }
};

/** What can be refused about the rings; nothing is written. Throws RingsteadError with the reason. */
export const checkRings = (paths: RuntimePaths, config: ClusterConfig, roles: readonly string[]): void => {
  if (!roles.includes("storage-node") && !roles.includes("proxy")) return;
  if (config.cluster !== undefined) return checkHandedOut(paths, config, roles);
  if (config.devices.length < config.replicas) {
    throw new RingsteadError(
      "too-few-devices",
      `${config.replicas} replicas need ${config.replicas} devices, there are ${config.devices.length}: give --devices ${config.replicas}, or --replicas ${config.devices.length} for a new installation`,
    );
  }
  for (const name of RING_NAMES) {
    requireReadable(paths, name);
    if (existsSync(paths.builderFile(name))) checkAgainst(loadBuilder(paths.builderFile(name)), paths, name, config);
  }
};

/** A rebalance moves one replica of a partition at most; more devices at once take some rounds until nothing moves. */
const REBALANCE_ROUNDS_MAX = 16;

/** Replicas move one by one, each with all that quorums rest on, so `min_part_hours`, which protects those under way, need not hold here. */
const settle = (builder: Builder): void => {
  for (let round = 0; round < REBALANCE_ROUNDS_MAX; round++) {
    builder.movedAtSeconds.fill(0);
    const { moved } = rebalance(builder, { random: seededRandom(random64()), nowMs: systemClock.nowMs() });
    if (moved === 0) return;
  }
};

/** The builder of a ring, with the devices that the configuration has gained, saved. */
const currentBuilder = (paths: RuntimePaths, name: RingName, config: ClusterConfig, hashSeed: bigint): Builder => {
  const file = paths.builderFile(name);
  const exists = existsSync(file);
  const builder = exists
    ? loadBuilder(file)
    : createBuilder({
        partitionPower: config.partitionPower,
        replicas: config.replicas,
        minPartHours: MIN_PART_HOURS,
        seed: hashSeed,
      });
  const had = exists ? deviceCountOf(builder, config.node) : 0;
  if (config.devices.length > had || countHoles(builder) > 0) {
    addDevices(builder, config, had);
    settle(builder);
    saveBuilder(file, builder);
  }
  return builder;
};

/**
 * Makes the rings of a new installation, keeps the first ones as what they are the base of, and puts in place what a builder says that differs from its ring:
 * devices were added, or an operator planned a change. The data follows while the installation serves. Requires: `checkRings` found nothing to refuse, no
 * process of the installation runs. Returns the number of devices that existing rings gained.
 */
export const prepareRings = async (paths: RuntimePaths, config: ClusterConfig, log: Log): Promise<number> => {
  const added = config.cluster === undefined ? makeRings(paths, config, log) : 0;
  for (const name of RING_NAMES) if (existsSync(paths.ringFile(name))) keepBaseRing(paths.ringFile(name));
  return added;
};

const makeRings = (paths: RuntimePaths, config: ClusterConfig, log: Log): number => {
  mkdirSync(paths.ringsDir, { recursive: true, mode: 0o755 });
  let added = 0;
  const first = RING_NAMES.find((name) => existsSync(paths.builderFile(name)));
  const hashSeed = first === undefined ? random64() : loadBuilder(paths.builderFile(first)).hashSeed;
  for (const name of RING_NAMES) {
    const file = paths.ringFile(name);
    // A ring that was handed out to this node; its builder is where the operator keeps it.
    if (existsSync(file) && !existsSync(paths.builderFile(name))) continue;
    const ring = buildRing(currentBuilder(paths, name, config, hashSeed));
    if (!existsSync(file)) {
      saveRing(file, ring);
      continue;
    }
    const before = loadRing(file);
    if (before.version === ring.version) continue;
    added = Math.max(added, ring.devices.filter(Boolean).length - before.devices.filter(Boolean).length);
    log.info("a ring changes", { ring: name, from: before.version, to: ring.version });
    checkSuccessor(loadBaseRing(file), ring);
    // What partitions that never moved stand on is kept before anything says otherwise.
    keepBaseRing(file);
    saveRing(file, ring);
  }
  return added;
};
