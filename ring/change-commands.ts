import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { systemClock } from "../common/clock.ts";
import { RingsteadError } from "../common/errors.ts";
import { seededRandom } from "../common/random.ts";
import { checkSuccessor, damagedRingRemedy, loadBaseRing } from "./base-ring.ts";
import { addDevice, type Builder, buildRing, createBuilder, removeDevice, setOverload, setWeight } from "./builder.ts";
import { loadBuilder, saveBuilder } from "./builder-file.ts";
import {
  type CommandOutput,
  number,
  type Options,
  strings,
  type Subcommand,
  text,
  toNumber,
  UsageError,
} from "./command-words.ts";
import { readMoveStatus } from "./move-status.ts";
import { increasePartPower } from "./part-power.ts";
import { rebalance } from "./rebalance.ts";
import { ringDifference } from "./ring-difference.ts";
import { loadRing, saveRing } from "./ring-file.ts";
import type { Ring } from "./ring.ts";
import { setReplicas } from "./set-replicas.ts";
import { tableShape } from "./table-shape.ts";

/** Defaults of options that need not be given. */
const DEFAULTS = { minPartHours: "1", overload: "0", region: "1", zone: "1" } as const;

const seed = (value: string | boolean | undefined, pattern: RegExp, radixPrefix: string, what: string): bigint => {
  if (typeof value !== "string") return randomBytes(8).readBigUInt64LE();
  if (!pattern.test(value)) throw new UsageError(`${what}, not "${value}"`);
  return BigInt(`${radixPrefix}${value}`);
};

/** Subcommands that change a builder, and those that write a ring. */
export const changeCommands = (output: CommandOutput): Readonly<Record<string, Subcommand | undefined>> => ({
  create: {
    options: strings("partition-power", "replicas", "min-part-hours", "overload", "hash-seed"),
    words: [1, 1],
    run: ([path = ""], options) => {
      if (existsSync(path)) throw new RingsteadError("ring-file-exists", `${path} exists already`, { path });
      const builder = createBuilder({
        partitionPower: number(options, "partition-power"),
        replicas: number(options, "replicas"),
        minPartHours: number(options, "min-part-hours", DEFAULTS.minPartHours),
        overload: number(options, "overload", DEFAULTS.overload),
        seed: seed(options["hash-seed"], /^[0-9a-f]{1,16}$/, "0x", "--hash-seed takes up to 16 hex digits"),
      });
      saveBuilder(path, builder);
      output.out(`${path}: ${2 ** builder.partitionPower} partitions, ${replicasOf(builder)}\n`);
    },
  },
  add: {
    options: strings("region", "zone", "node", "device", "weight", "meta"),
    words: [1, 1],
    run: ([path = ""], options) => {
      const builder = loadBuilder(path);
      const meta = options["meta"];
      const id = addDevice(builder, {
        region: number(options, "region", DEFAULTS.region),
        zone: number(options, "zone", DEFAULTS.zone),
        node: text(options, "node"),
        device: text(options, "device"),
        weight: number(options, "weight"),
        ...(typeof meta === "string" ? { meta } : {}),
      });
      saveBuilder(path, builder);
      output.out(`device ${id} added; it gets data with the next rebalance\n`);
    },
  },
  weight: {
    options: {},
    words: [3, 3],
    run: ([path = "", id = "", weight = ""]) => {
      const builder = loadBuilder(path);
      setWeight(builder, toNumber("the device id", id), toNumber("the weight", weight));
      saveBuilder(path, builder);
      output.out(`device ${id} has weight ${weight}, in force with the next rebalance\n`);
    },
  },
  remove: {
    options: {},
    words: [2, 2],
    run: ([path = "", id = ""]) => {
      const builder = loadBuilder(path);
      removeDevice(builder, toNumber("the device id", id));
      saveBuilder(path, builder);
      output.out(`device ${id} removed; rebalance now, until then its replicas have no place\n`);
    },
  },
  "set-replicas": {
    options: {},
    words: [2, 2],
    run: ([path = "", replicas = ""]) => {
      const builder = loadBuilder(path);
      const had = builder.replicas;
      setReplicas(builder, toNumber("the replica count", replicas));
      saveBuilder(path, builder);
      output.out(`${path}: ${replicasOf(builder)} instead of ${had}, in force with the next rebalance\n`);
    },
  },
  "set-overload": {
    options: {},
    words: [2, 2],
    run: ([path = "", overload = ""]) => {
      const builder = loadBuilder(path);
      setOverload(builder, toNumber("the overload", overload));
      saveBuilder(path, builder);
      output.out(`a device may take ${100 * builder.overload} % over its share, in force with the next rebalance\n`);
    },
  },
  rebalance: {
    options: {
      ...strings("ring", "seed"),
      force: { type: "boolean" },
      plan: { type: "boolean" },
      rewrite: { type: "boolean" },
    },
    words: [1, 1],
    run: ([path = ""], options) => {
      const random = seededRandom(seed(options["seed"], /^[0-9]{1,19}$/, "", "--seed takes a whole number"));
      const builder = loadBuilder(path);
      if (options["force"] === true) builder.movedAtSeconds.fill(0);
      const { moved, balance, dispersion } = rebalance(builder, { random, nowMs: systemClock.nowMs() });
      const written = publish(builder, path, options);
      output.out(
        `${written}: version ${builder.version}, ${moved} replicas moved, balance ${balance.toFixed(2)} %, ` +
          `${dispersion.toFixed(2)} % of partitions not as far apart as possible\n`,
      );
    },
  },
  "increase-part-power": {
    options: { ...strings("ring"), plan: { type: "boolean" } },
    words: [1, 1],
    run: ([path = ""], options) => {
      const builder = loadBuilder(path);
      increasePartPower(builder);
      const written = publish(builder, path, options);
      output.out(`${written}: version ${builder.version}, partition power ${builder.partitionPower}, nothing moves\n`);
    },
  },
});

const replicasOf = ({ partitionPower, replicas }: Builder): string => {
  const { partitionCount, width, fullRows } = tableShape(partitionPower, replicas);
  if (Number.isInteger(replicas)) return `${replicas} replicas`;
  return `${replicas} replicas (${width} of ${fullRows} partitions, ${width - 1} of ${partitionCount - fullRows})`;
};

/**
 * Writes the builder and, unless there is `--plan`, the ring that follows from it. Returns the path to speak of. Every ring that is written
 * has a higher version than the one before, also where the builder is an older copy.
 */
const publish = (builder: Builder, path: string, options: Options): string => {
  const ringPath = text(options, "ring", `${path.replace(/\.builder$/, "")}.ring`);
  if (options["plan"] === true) {
    saveBuilder(path, builder);
    return path;
  }
  const current = existsSync(ringPath) ? currentRing(ringPath, path, options["rewrite"] === true) : undefined;
  if (current === "damaged") {
    checkSuccessor(loadBaseRing(ringPath), buildRing(builder));
    builder.version = Math.max(builder.version, countedVersion(ringPath)) + 1;
  } else if (current !== undefined) {
    const { moves } = ringDifference(current, buildRing(builder));
    if (isServing(ringPath)) checkSuccessor(loadBaseRing(ringPath), buildRing(builder));
    const isSame = moves.length === 0 && current.partitionPower === builder.partitionPower;
    if (current.version > builder.version || (current.version === builder.version && !isSame))
      builder.version = current.version + 1;
  }
  // The builder first: a crash before the ring is written is mended by rebalancing again, which then moves nothing.
  saveBuilder(path, builder);
  saveRing(ringPath, buildRing(builder));
  return ringPath;
};

const DAMAGED: ReadonlySet<string | undefined> = new Set(["ring-file-damaged", "ring-file-foreign"]);

/**
 * The ring that the new one takes the place of; a damaged one is none where no installation stands on it. Where one does, which version it had is not known, and
 * it is written anew only where that is asked for: what is in the builder is to count from then on.
 */
const currentRing = (ringPath: string, builderPath: string, mayRewrite: boolean): Ring | "damaged" | undefined => {
  try {
    return loadRing(ringPath);
  } catch (error) {
    if (!(error instanceof RingsteadError) || !DAMAGED.has(error.code)) throw error;
    if (!isServing(ringPath)) {
      if (error.code === "ring-file-damaged") return undefined;
      throw error;
    }
    if (mayRewrite) return "damaged";
    throw new RingsteadError(error.code, `${error.message}; ${damagedRingRemedy(builderPath)}`, error.fields);
  }
};

/** The version that the installation's proxy counts as the last one. */
const countedVersion = (ringPath: string): number =>
  readMoveStatus(join(dirname(ringPath), "moves.json"))?.rings[basename(ringPath, ".ring")]?.version ?? 0;

const isServing = (ringPath: string): boolean => existsSync(join(dirname(ringPath), "..", "layout-version"));
