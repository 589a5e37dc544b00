import { existsSync, mkdirSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { systemClock } from "../common/clock.ts";
import { type ClusterConfig, deviceName } from "../common/config.ts";
import { RingsteadError } from "../common/errors.ts";
import { seededRandom } from "../common/random.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import { addDevice, type Builder, buildRing, createBuilder } from "../ring/builder.ts";
import { loadBuilder, saveBuilder } from "../ring/builder-file.ts";
import { rebalance } from "../ring/rebalance.ts";
import { loadRing, saveRing } from "../ring/ring-file.ts";

/** One ring per kind of thing that is stored; `object-0` is that of the first storage policy. */
export const RING_NAMES = ["object-0", "container", "account"] as const;

const MIN_PART_HOURS = 1;
const DEVICE_WEIGHT = 100;

const random64 = (): bigint => randomBytes(8).readBigUInt64LE();

const addDevices = (builder: Builder, config: ClusterConfig, from: number): void => {
  for (const index of config.devices.keys()) {
    if (index < from) continue;
    addDevice(builder, { region: 1, zone: 1, node: config.node, device: deviceName(index), weight: DEVICE_WEIGHT });
  }
};

const save = (paths: RuntimePaths, name: string, builder: Builder): void => {
  rebalance(builder, { random: seededRandom(random64()), nowMs: systemClock.nowMs() });
  // The builder first: what a crash leaves undone in between, the next start does again.
  saveBuilder(paths.builderFile(name), builder);
  saveRing(paths.ringFile(name), buildRing(builder));
};

/** The highest number in a name of `node`'s devices: devices are numbered without gaps, from d1. */
const deviceCountOf = (builder: Builder, node: string): number =>
  Math.max(0, ...builder.devices.map((device) => (device?.node === node ? Number(device.device.slice(1)) : 0)));

/** Throws RingsteadError `devices-refused` or `replicas-refused` where the configuration asks for what only a ring command may do. */
const checkAgainst = (builder: Builder, paths: RuntimePaths, config: ClusterConfig): void => {
  const builderFile = paths.builderFile("object-0");
  const had = deviceCountOf(builder, config.node);
  if (config.devices.length < had) {
    const id = builder.devices.findLastIndex((device) => device?.node === config.node);
    throw new RingsteadError(
      "devices-refused",
      `${paths.dataDir} has ${had} devices, ${config.devices.length} are asked for: first take the last one out of each ring ` +
        `(${RING_NAMES.join(", ")}): "./scripts/ringstead ring weight ${builderFile} ${id} 0" and "ring rebalance ${builderFile}" until it ` +
        `holds nothing, then "ring remove ${builderFile} ${id}"`,
      { had, asked: config.devices.length },
    );
  }
  if (config.replicas !== builder.replicas) {
    throw new RingsteadError(
      "replicas-refused",
      `${paths.dataDir} keeps ${builder.replicas} replicas, ${config.replicas} are asked for; a ring keeps its replica count: start an ` +
        `installation of its own, ./scripts/start --data DIR2 --replicas ${config.replicas}, and copy the objects with rclone`,
      { had: builder.replicas, asked: config.replicas },
    );
  }
};

/**
 * Makes the rings of a new installation, or adds devices that the configuration has gained. With `dryRun` nothing is written and
 * only the refusals happen. Returns the number of devices added to existing rings.
 */
export const prepareRings = (paths: RuntimePaths, config: ClusterConfig, dryRun = false): number => {
  if (config.devices.length < config.replicas) {
    throw new RingsteadError(
      "too-few-devices",
      `${config.replicas} replicas need ${config.replicas} devices, there are ${config.devices.length}: give --devices ${config.replicas}, or --replicas ${config.devices.length} for a new installation`,
    );
  }
  const exists = RING_NAMES.map((name) => existsSync(paths.builderFile(name)));
  const first = exists.indexOf(true);
  if (first >= 0) checkAgainst(loadBuilder(paths.builderFile(RING_NAMES[first] ?? "object-0")), paths, config);
  if (dryRun) return 0;
  mkdirSync(paths.ringsDir, { recursive: true, mode: 0o755 });
  let added = 0;
  const hashSeed = first >= 0 ? loadBuilder(paths.builderFile(RING_NAMES[first] ?? "object-0")).hashSeed : random64();
  for (const [index, name] of RING_NAMES.entries()) {
    if (exists[index] === true) {
      const builder = loadBuilder(paths.builderFile(name));
      const had = deviceCountOf(builder, config.node);
      added = Math.max(added, config.devices.length - had);
      if (config.devices.length > had) {
        addDevices(builder, config, had);
        save(paths, name, builder);
      } else if (!existsSync(paths.ringFile(name))) {
        save(paths, name, builder);
      } else {
        // A damaged ring file is told here, once and by name, rather than by whichever process meets it.
        loadRing(paths.ringFile(name));
      }
      continue;
    }
    if (existsSync(paths.ringFile(name))) {
      // A ring that was handed out to this node; its builder is where the operator keeps it.
      loadRing(paths.ringFile(name));
      continue;
    }
    const builder = createBuilder({
      partitionPower: config.partitionPower,
      replicas: config.replicas,
      minPartHours: MIN_PART_HOURS,
      seed: hashSeed,
    });
    addDevices(builder, config, 0);
    save(paths, name, builder);
  }
  return added;
};
