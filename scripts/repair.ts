import { existsSync } from "node:fs";
import { loadConfig } from "../common/config.ts";
import { RingsteadError } from "../common/errors.ts";
import { type RuntimePaths, runtimePaths } from "../common/runtime-paths.ts";
import {
  readRepairSettings,
  type RepairSettings,
  writeRepairSettings,
} from "../storage-node/repair/repair-settings.ts";
import { type DeviceStatus, devicesOf, type RepairFailure, repairFailures } from "./device-status.ts";
import { progressText, type RepairProgress, repairProgress, sizeText } from "./repair-progress.ts";
import { readSupervisorState } from "./supervisor.ts";
import { lockHolder } from "./supervisor-lock.ts";
import { dataDirOf, parseOptions } from "./up-options.ts";

const HELP = `ringstead repair COMMAND [--data DIR]

  status    what each device still lacks and pulls from the others, how fast, for how long; --json
  pause     nothing more is pulled until resume; a device that has not caught up does not vote
  resume    goes on
  limit     --bytes-per-second N | none, --operations-per-second N | none: of each device; without options it says what they are

Whatever the limits, repair gives way to requests of clients. What is said here is kept in DIR/repair.json, is followed within
a second, and holds after a restart; with several nodes each has its own.
`;

type DeviceRepair = {
  readonly device: string;
  readonly state: DeviceStatus["state"];
  readonly progress: RepairProgress | undefined;
  readonly lastFailure: RepairFailure | undefined;
};

type RepairStatus = {
  readonly paused: boolean;
  readonly bytesPerSecondLimit: number | undefined;
  readonly operationsPerSecondLimit: number | undefined;
  readonly devices: readonly DeviceRepair[];
};

const statusOf = async (paths: RuntimePaths): Promise<RepairStatus> => {
  const { isPaused, bytesPerSecond, operationsPerSecond } = readRepairSettings(paths.repairSettings);
  const holder = lockHolder(paths.supervisorLock);
  const known = readSupervisorState(paths);
  if (holder === undefined || known?.supervisor.pid !== holder.pid) {
    throw new RingsteadError(
      "not-running",
      `nothing runs on ${paths.dataDir}: start it with ./scripts/start --data ${paths.dataDir}`,
    );
  }
  const nodes = known.processes.filter(({ role, state }) => role === "storage-node" && state === "ready");
  const names = nodes.map(({ processRole }) => processRole);
  const { devices } = loadConfig(paths.dataDir, known.config.node);
  const found = await devicesOf(paths, devices, names);
  const failures = await repairFailures(paths, names);
  return {
    paused: isPaused,
    bytesPerSecondLimit: bytesPerSecond,
    operationsPerSecondLimit: operationsPerSecond,
    devices: found.map(({ device, state, figures }) => ({
      device,
      state,
      progress: repairProgress(figures),
      lastFailure: failures.get(device),
    })),
  };
};

const limitText = (bytesPerSecond: number | undefined, operationsPerSecond: number | undefined): string => {
  const limits = [
    ...(bytesPerSecond === undefined ? [] : [`${sizeText(bytesPerSecond)}/s`]),
    ...(operationsPerSecond === undefined ? [] : [`${operationsPerSecond.toLocaleString("en-US")} entries/s`]),
  ];
  return limits.length === 0
    ? "as fast as requests of clients leave room"
    : `at most ${limits.join(" and ")} for each device`;
};

const deviceLine = ({ device, state, progress, lastFailure }: DeviceRepair): string => {
  const head = `device        ${device.padEnd(13)} ${state.padEnd(11)} `;
  if (progress === undefined) return `${head}nothing is known of its repair: see ./scripts/ringstead status`;
  const pulled = `pulled ${progress.repairedEntries.toLocaleString("en-US")} entries, ${sizeText(progress.repairedBytes)}, since its start`;
  const isDone = progress.partitionsLeft === 0 && progress.joiningPartitions === 0;
  const doing = isDone
    ? "in agreement with the others"
    : `${progress.partitionsLeft.toLocaleString("en-US")} partitions left, without a vote in ${progress.joiningPartitions.toLocaleString("en-US")}; ${progressText(progress)}`;
  const failed = lastFailure === undefined ? "" : `; last failure at ${lastFailure.at}: ${lastFailure.reason}`;
  const { handOffsLeft } = progress;
  const kept =
    handOffsLeft === 0
      ? ""
      : `; keeps ${handOffsLeft.toLocaleString("en-US")} objects and rows for replicas that are away`;
  return `${head}${doing}; ${pulled}${kept}${failed}`;
};

const lines = (status: RepairStatus): string[] => [
  `repair        ${status.paused ? "paused: ./scripts/ringstead repair resume" : "goes on"}, ${limitText(status.bytesPerSecondLimit, status.operationsPerSecondLimit)}`,
  ...status.devices.map(deviceLine),
];

/** A limit as it was typed; "none" takes it away, nothing leaves it as it is. */
const limitOf = (name: string, text: string | undefined, now: number | undefined): number | undefined => {
  if (text === undefined) return now;
  if (text === "none") return undefined;
  const number = Number(text);
  if (/^\d{1,15}$/.test(text) && number > 0) return number;
  throw new RingsteadError("usage", `--${name} takes a whole number above 0, or none, not "${text}"`);
};

const OPTIONS = {
  data: { type: "string" },
  json: { type: "boolean" },
  help: { type: "boolean", short: "h" },
  "bytes-per-second": { type: "string" },
  "operations-per-second": { type: "string" },
} as const;

type Values = Readonly<{ json?: boolean; "bytes-per-second"?: string; "operations-per-second"?: string }>;

const change = (paths: RuntimePaths, settings: RepairSettings): void => {
  if (!existsSync(paths.clusterToml))
    throw new RingsteadError("not-an-installation", `${paths.dataDir} is no installation: it has no cluster.toml`);
  writeRepairSettings(paths.repairSettings, settings);
  const { isPaused, bytesPerSecond, operationsPerSecond } = settings;
  process.stdout.write(
    `repair ${isPaused ? "is paused" : "goes on"}, ${limitText(bytesPerSecond, operationsPerSecond)}\n`,
  );
};

const COMMANDS: Readonly<Record<string, (paths: RuntimePaths, values: Values) => Promise<void> | void>> = {
  status: async (paths, { json }) => {
    const status = await statusOf(paths);
    process.stdout.write(json === true ? `${JSON.stringify(status, undefined, 2)}\n` : `${lines(status).join("\n")}\n`);
  },
  pause: (paths) => change(paths, { ...readRepairSettings(paths.repairSettings), isPaused: true }),
  resume: (paths) => change(paths, { ...readRepairSettings(paths.repairSettings), isPaused: false }),
  limit: (paths, values) => {
    const now = readRepairSettings(paths.repairSettings);
    const bytesPerSecond = limitOf("bytes-per-second", values["bytes-per-second"], now.bytesPerSecond);
    const operationsPerSecond = limitOf(
      "operations-per-second",
      values["operations-per-second"],
      now.operationsPerSecond,
    );
    change(paths, { ...now, bytesPerSecond, operationsPerSecond });
  },
};

/** `ringstead repair …`: exit 0, or what is wrong in one sentence. Throws RingsteadError `usage`, `not-running`, `bad-repair-settings`. */
export const repair = async (argv: readonly string[]): Promise<number> => {
  const { values, positionals } = parseOptions(argv, OPTIONS, true);
  const [name = "help", ...more] = positionals;
  if (name === "help" || values.help === true) {
    process.stdout.write(HELP);
    return 0;
  }
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command === undefined || more.length > 0)
    throw new RingsteadError(
      "usage",
      `there is no command "repair ${positionals.join(" ")}" (see: ringstead repair help)`,
    );
  await command(runtimePaths(dataDirOf(values.data)), values);
  return 0;
};
