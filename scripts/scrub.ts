import { messageOf, RingsteadError } from "../common/errors.ts";
import { runtimePaths } from "../common/runtime-paths.ts";
import type { DeviceScrubReport, ScrubAction } from "../storage-node/daemons/scrubber-operations.ts";
import { InstallationDevices } from "./scrub-devices.ts";
import { dataDirOf, parseOptions } from "./up-options.ts";

const HELP = `ringstead scrub [status | start | stop] [--device NAME] [--data DIR] [--json]

  status   when each device was last read from end to end, how far the present round is, what it found
  start    reads every device now, or the named one, as fast as clients leave room for
  stop     gives the present round up; the next one comes when it is due

Each device is read by itself every scrub_days days (cluster.toml; 7 unless said otherwise, 0: never). What is damaged is
healed from another replica, and what could not be is shown here and by "ringstead explain".
`;

const MIB = 1024 * 1024;

type Found = {
  readonly device: string;
  readonly report: DeviceScrubReport | undefined;
  readonly error: string | undefined;
};

const dateOf = (ms: number): string => new Date(ms).toISOString().slice(0, 19).concat("Z");

const sizeOf = (bytes: number): string => `${(bytes / MIB).toFixed(bytes < 10 * MIB ? 1 : 0)} MiB`;

const countOf = (count: number, what: string): string => `${count} ${what}${count === 1 ? "" : "s"}`;

const lastOf = ({ last }: DeviceScrubReport): string => {
  if (last === undefined) return "never read from end to end";
  const took = Math.round((last.endedMs - last.startedMs) / 1000);
  const wrong =
    last.wrongDigests === undefined || last.wrongDigests === 0 ? "" : `, ${last.wrongDigests} wrong sums counted right`;
  return (
    `last read from end to end at ${dateOf(last.endedMs)} in ${took} s: ${sizeOf(last.bytes)}, ${countOf(last.entries, "record")}, ` +
    `${last.damaged === 0 ? "nothing damaged" : `${last.damaged} damaged`}${wrong}`
  );
};

const nowOf = (report: DeviceScrubReport): string => {
  const { state, bytes, totalBytes, bytesPerSecond, damaged, isDemanded, nextMs } = report;
  if (state === "off") return "next when asked for (scrub_days is 0)";
  if (state === "waiting") return `next at ${nextMs === undefined ? "?" : dateOf(nextMs)}`;
  const share = totalBytes === 0 ? "" : `, some ${Math.min(99, Math.floor((100 * bytes) / totalBytes))} %`;
  return (
    `reading now${isDemanded ? "" : " at the pace of its schedule"}: ${sizeOf(bytes)}${share}, ${sizeOf(bytesPerSecond)}/s, ` +
    `${damaged === 0 ? "nothing damaged so far" : `${damaged} damaged so far`}`
  );
};

const linesOf = ({ device, report, error }: Found): string[] => {
  if (report === undefined) return [`${device}  cannot be asked: ${error ?? ""}`];
  const { waitingEntries, unhealedEntries, healedEntries, lastError } = report;
  const indent = " ".repeat(device.length);
  const lines = [`${device}  ${lastOf(report)}`, `${indent}  ${nowOf(report)}`];
  if (healedEntries + waitingEntries > 0)
    lines.push(
      `${indent}  since its start ${healedEntries} healed, ${waitingEntries - unhealedEntries} waiting to be healed`,
    );
  if (unhealedEntries > 0)
    lines.push(
      `${indent}  PROBLEM: ${countOf(unhealedEntries, "damaged record")} for which no replica had what is missing; tried again from time to time. ` +
        "Start what is down; the names are in DIR/logs/storage-node*.log",
    );
  if (lastError !== undefined) lines.push(`${indent}  PROBLEM: ${lastError}; tried again`);
  return lines;
};

const ask = async (devices: InstallationDevices, action: ScrubAction, only: string | undefined): Promise<Found[]> =>
  Promise.all(
    (only === undefined ? devices.all() : [devices.named(only)]).map(async (device) => {
      const name = devices.nameOf(device);
      try {
        return { device: name, report: await devices.peer(device).scrub(action), error: undefined };
      } catch (error) {
        if (!(error instanceof RingsteadError)) throw error;
        return { device: name, report: undefined, error: messageOf(error) };
      }
    }),
  );

const actionOf = (word: string): ScrubAction => {
  if (word === "status" || word === "start" || word === "stop") return word;
  throw new RingsteadError("usage", `there is no "ringstead scrub ${word}" (see: ringstead scrub help)`);
};

/** `ringstead scrub status|start|stop`: exit 0; 1 where a device could not be asked, or has what could not be healed. */
export const scrub = async (argv: readonly string[]): Promise<number> => {
  const options = {
    data: { type: "string" },
    device: { type: "string" },
    json: { type: "boolean" },
    help: { type: "boolean", short: "h" },
  } as const;
  const { values, positionals } = parseOptions(argv, options, true);
  const [word = "status", ...rest] = positionals;
  if (values.help === true || word === "help") {
    process.stdout.write(HELP);
    return 0;
  }
  if (rest.length > 0) throw new RingsteadError("usage", `"${rest.join(" ")}" is too much (see: ringstead scrub help)`);
  using devices = new InstallationDevices(runtimePaths(dataDirOf(values.data)));
  const found = await ask(devices, actionOf(word), values.device);
  process.stdout.write(
    values.json === true ? `${JSON.stringify(found, undefined, 2)}\n` : `${found.flatMap(linesOf).join("\n")}\n`,
  );
  const isWell = found.every(
    ({ report }) => report !== undefined && report.unhealedEntries === 0 && report.lastError === undefined,
  );
  return isWell ? 0 : 1;
};
