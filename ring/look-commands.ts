import { existsSync } from "node:fs";
import { systemClock } from "../common/clock.ts";
import { RingsteadError } from "../common/errors.ts";
import type { Builder } from "./builder.ts";
import { loadBuilder } from "./builder-file.ts";
import {
  type CommandOutput,
  describe,
  number,
  strings,
  type Subcommand,
  table,
  text,
  UsageError,
} from "./command-words.ts";
import { type DispersionReport, dispersionReport } from "./dispersion.ts";
import { loadRing } from "./ring-file.ts";
import type { Ring } from "./ring.ts";
import { showFile } from "./show.ts";
import { validateBuilder } from "./validate.ts";

const HANDOFF_COUNT = "10";

/** Subcommands that change nothing. */
export const lookCommands = (output: CommandOutput): Readonly<Record<string, Subcommand | undefined>> => ({
  show: {
    options: { json: { type: "boolean" } },
    words: [1, 1],
    run: ([path = ""], options) => output.out(showFile(path, options["json"] === true)),
  },
  dispersion: {
    options: { nodes: { type: "boolean" }, json: { type: "boolean" } },
    words: [1, 1],
    run: ([path = ""], options) => {
      const report = dispersionReport(requireRebalanced(loadBuilder(path)));
      output.out(
        options["json"] === true ? `${JSON.stringify(report, undefined, 2)}\n` : reportText(report, options["nodes"]),
      );
    },
  },
  validate: {
    options: strings("ring"),
    words: [1, 1],
    run: ([path = ""], options) => {
      const ringPath = text(options, "ring", `${path.replace(/\.builder$/, "")}.ring`);
      // A ring that is asked for by name has to be there.
      const ring = options["ring"] !== undefined || existsSync(ringPath) ? loadRing(ringPath) : undefined;
      const findings = validateBuilder(loadBuilder(path), ring, systemClock.nowMs());
      for (const { isProblem, text: words } of findings) output.out(`${isProblem ? "wrong" : "note"}: ${words}\n`);
      const problems = findings.filter(({ isProblem }) => isProblem).length;
      output.out(problems === 0 ? `${path} is right\n` : `${path}: ${problems} to put right\n`);
      return problems === 0 ? 0 : 1;
    },
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
      const count = number(options, "count", HANDOFF_COUNT);
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

const requireRebalanced = (builder: Builder): Builder => {
  const usable = builder.devices.filter((device) => device !== undefined && device.weight > 0).length;
  if (usable >= builder.replicas) return builder;
  throw new RingsteadError(
    "ring-too-few-devices",
    `${builder.replicas} replicas cannot be spread over the devices with weight, of which there are ${usable}`,
    { replicas: builder.replicas, devices: usable },
  );
};

const reportText = (report: DispersionReport, withNodes: string | boolean | undefined): string => {
  const { balance, dispersion, overload, overloadToSpread, tiers } = report;
  const shown = tiers.filter(({ level, outOfBounds }) => level !== "node" || withNodes === true || outOfBounds > 0);
  const width = Math.max(...tiers.map(({ partitions }) => partitions.length));
  const head = ["", "should hold", "out of bounds", ...Array.from({ length: width }, (_, n) => `with ${n}`)];
  const rows = shown.map(({ name, atLeast, atMost, outOfBounds, partitions }) => [
    name,
    atLeast === atMost ? `${atLeast}` : `${atLeast} to ${atMost}`,
    ...[outOfBounds, ...partitions].map(String),
  ]);
  const spread =
    overloadToSpread === 0
      ? "the weights allow what the devices allow"
      : `with overload ${overloadToSpread.toFixed(4)} they would be as far apart as the devices allow`;
  return (
    `balance ${balance.toFixed(2)} %, overload ${overload}\n` +
    `${dispersion.toFixed(2)} % of partitions are not as far apart as the weights allow; ${spread}\n` +
    `partitions by how many of their replicas a region or zone holds:\n${table([head, ...rows])}`
  );
};

const placementOf = (ring: Ring, names: readonly string[]): { hash32: number; partition: number } => {
  const [account = "", container, object] = names;
  if (account.includes("/") || container?.includes("/") === true)
    throw new UsageError('account and container are separate arguments without "/"');
  return ring.placementOf(account, container, object);
};
