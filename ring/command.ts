import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { parseArgs, type ParseArgsOptionsConfig } from "node:util";
import { systemClock } from "../common/clock.ts";
import { codeOf, messageOf, RingsteadError } from "../common/errors.ts";
import { seededRandom } from "../common/random.ts";
import { addDevice, buildRing, createBuilder, removeDevice, setWeight } from "./builder.ts";
import { loadBuilder, saveBuilder } from "./builder-file.ts";
import type { RingDevice } from "./device.ts";
import { rebalance } from "./rebalance.ts";
import { loadRing, saveRing } from "./ring-file.ts";
import type { Ring } from "./ring.ts";
import { showFile } from "./show.ts";

const HELP = `ringstead ring: where the data lies

  ring create BUILDER --partition-power N --replicas N [--min-part-hours N] [--overload F] [--hash-seed HEX]
  ring add BUILDER --node NAME --device NAME --weight W [--region N] [--zone N] [--meta TEXT]
  ring weight BUILDER ID WEIGHT        0 empties the device over the next rebalances
  ring remove BUILDER ID               the device is lost: its replicas are placed elsewhere at once
  ring rebalance BUILDER [--ring RING] [--seed N] [--force] [--plan]
                                       few moves, then writes RING (default: BUILDER with .ring for .builder);
                                       --force does not wait for min_part_hours to pass; --plan writes no RING: in the
                                       DIR of "ringstead up" the next start does, after it has moved the data
  ring show FILE [--json]              a builder or a ring file
  ring lookup RING ACCOUNT [CONTAINER [OBJECT]]
  ring handoffs RING PARTITION | ACCOUNT [CONTAINER [OBJECT]] [--count N]

Changes go into the builder file; services see them once "rebalance" has written the ring file.
`;

/** Defaults of options that need not be given. */
const DEFAULTS = { minPartHours: "1", overload: "0", region: "1", zone: "1", handoffCount: "10" } as const;

/** Wrong arguments: the help is printed, exit code 2. */
class UsageError extends Error {}

type Options = Readonly<Record<string, string | boolean | undefined>>;
type Subcommand = {
  readonly options: ParseArgsOptionsConfig;
  /** How many words follow the subcommand. */
  readonly words: readonly [min: number, max: number];
  run(words: readonly string[], options: Options): void;
};

/** Where output goes; tests listen here. */
export type CommandOutput = { out(text: string): void; error(text: string): void };

const standardOutput: CommandOutput = {
  out: (text) => void process.stdout.write(text),
  error: (text) => void process.stderr.write(text),
};

/** `ringstead ring …`. Resolves to the exit code: 0 done, 1 refused (the reason is on stderr), 2 wrong usage. */
export const ringCommand = async (argv: string[], output: CommandOutput = standardOutput): Promise<number> => {
  const [name = "", ...rest] = argv;
  if (name === "help" || name === "--help" || name === "-h") {
    output.out(HELP);
    return 0;
  }
  try {
    const subcommand = subcommands(output)[name];
    if (subcommand === undefined)
      throw new UsageError(name === "" ? "which ring command?" : `no ring command "${name}"`);
    const { values, positionals } = parse(rest, subcommand.options);
    const [min, max] = subcommand.words;
    if (positionals.length < min || positionals.length > max)
      throw new UsageError(
        `ring ${name} takes ${min === max ? min : `${min} to ${max}`} arguments, not ${positionals.length}`,
      );
    subcommand.run(positionals, values);
    return 0;
  } catch (error) {
    if (error instanceof UsageError) {
      output.error(`${error.message}\n\n${HELP}`);
      return 2;
    }
    if (!(error instanceof RingsteadError)) throw error;
    output.error(`${error.message}\n`);
    return 1;
  }
};

const parse = (args: string[], options: ParseArgsOptionsConfig): { values: Options; positionals: string[] } => {
  try {
    const { values, positionals } = parseArgs({ args, options, allowPositionals: true });
    return { values: values as Options, positionals };
  } catch (error) {
    if (codeOf(error)?.startsWith("ERR_PARSE_ARGS") === true) throw new UsageError(messageOf(error));
    throw error;
  }
};

const strings = (...names: string[]): ParseArgsOptionsConfig =>
  Object.fromEntries(names.map((name) => [name, { type: "string" }]));

const text = (options: Options, name: string, fallback?: string): string => {
  const value = options[name] ?? fallback;
  if (typeof value !== "string") throw new UsageError(`--${name} is missing`);
  return value;
};

const toNumber = (what: string, value: string): number => {
  const number = Number(value);
  if (value.trim() === "" || !Number.isFinite(number)) throw new UsageError(`${what} is no number: "${value}"`);
  return number;
};

const number = (options: Options, name: string, fallback?: string): number =>
  toNumber(`--${name}`, text(options, name, fallback));

const seed = (value: string | boolean | undefined, pattern: RegExp, radixPrefix: string, what: string): bigint => {
  if (typeof value !== "string") return randomBytes(8).readBigUInt64LE();
  if (!pattern.test(value)) throw new UsageError(`${what}, not "${value}"`);
  return BigInt(`${radixPrefix}${value}`);
};

const describe = (device: RingDevice): string =>
  `device ${device.id} (region ${device.region} zone ${device.zone} ${device.node}/${device.device})`;

const subcommands = (output: CommandOutput): Readonly<Record<string, Subcommand | undefined>> => ({
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
      output.out(`${path}: ${2 ** builder.partitionPower} partitions, ${builder.replicas} replicas\n`);
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
  rebalance: {
    options: { ...strings("ring", "seed"), force: { type: "boolean" }, plan: { type: "boolean" } },
    words: [1, 1],
    run: ([path = ""], options) => {
      const ringPath = text(options, "ring", `${path.replace(/\.builder$/, "")}.ring`);
      const random = seededRandom(seed(options["seed"], /^[0-9]{1,19}$/, "", "--seed takes a whole number"));
      const builder = loadBuilder(path);
      if (options["force"] === true) builder.movedAtSeconds.fill(0);
      const { moved, balance, dispersion } = rebalance(builder, { random, nowMs: systemClock.nowMs() });
      const isPlan = options["plan"] === true;
      if (!isPlan) refuseRingInUse(ringPath, buildRing(builder));
      // The builder first: a crash before the ring is written is mended by rebalancing again, which then moves nothing.
      saveBuilder(path, builder);
      if (!isPlan) saveRing(ringPath, buildRing(builder));
      output.out(
        `${isPlan ? path : ringPath}: version ${builder.version}, ${moved} replicas moved, balance ${balance.toFixed(2)} %, ` +
          `${dispersion.toFixed(2)} % of partitions not as far apart as possible\n`,
      );
    },
  },
  show: {
    options: { json: { type: "boolean" } },
    words: [1, 1],
    run: ([path = ""], options) => output.out(showFile(path, options["json"] === true)),
  },
  lookup: {
    options: {},
    words: [2, 4],
    run: ([path = "", ...names]) => {
      const ring = loadRing(path);
      const { partition, hash32 } = placementOf(ring, names);
      output.out(`partition ${partition}, hash ${hash32.toString(16).padStart(8, "0")}…\n`);
      for (const [replica, device] of ring.primaries(partition).entries())
        output.out(`  replica ${replica}: ${describe(device)}\n`);
    },
  },
  handoffs: {
    options: strings("count"),
    words: [2, 4],
    run: ([path = "", ...names], options) => {
      const ring = loadRing(path);
      const [first = ""] = names;
      const isNumber = names.length === 1 && /^[0-9]+$/.test(first);
      const partition = isNumber ? Number(first) : placementOf(ring, names).partition;
      if (partition >= ring.partitionCount) throw new UsageError(`the ring has ${ring.partitionCount} partitions`);
      const count = number(options, "count", DEFAULTS.handoffCount);
      output.out(`partition ${partition}\n`);
      let shown = 0;
      for (const device of ring.handoffs(partition)) {
        if (shown >= count) break;
        shown += 1;
        output.out(`  hand-off ${shown}: ${describe(device)}\n`);
      }
    },
  },
});

/** The ring that an installation serves from says where its data is: only who moves the data may change it. */
const refuseRingInUse = (ringPath: string, next: Ring): void => {
  if (!existsSync(ringPath) || !existsSync(join(dirname(ringPath), "..", "layout-version"))) return;
  const { assignments } = loadRing(ringPath);
  if (assignments.length === next.assignments.length && assignments.every((id, slot) => id === next.assignments[slot]))
    return;
  throw new RingsteadError(
    "ring-in-use",
    `${ringPath} is in use by an installation, and data would have to move: with --plan only the builder changes, and the next start moves the data`,
    { path: ringPath },
  );
};

const placementOf = (ring: Ring, names: readonly string[]): { hash32: number; partition: number } => {
  const [account = "", container, object] = names;
  if (account.includes("/") || container?.includes("/") === true)
    throw new UsageError('account and container are separate arguments without "/"');
  return ring.placementOf(account, container, object);
};
