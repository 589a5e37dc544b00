import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { messageOf, RingsteadError } from "../common/errors.ts";
import { installPackages, versionOf } from "./debian-packages.ts";
import { machineFacts } from "./report.ts";
import { balanceOf, fewestMoves, type LifeTable, movedBetween, outOfBoundsOf } from "./ring-life-figures.ts";
import { RingsteadRing } from "./ring-life-ringstead.ts";
import { type LifeStep, ringLife } from "./ring-life-script.ts";
import { SwiftRing, type SwiftVerdict } from "./ring-life-swift.ts";

/**
 * One scripted life of a ring through our builder and Debian's swift-ring-builder, each by its command line, a table of what came of it.
 * `node bench/ring-life.ts [--power 18] [--nodes 10] [--devices 20]`: nodes to a zone, devices to a node.
 *
 * Time is CPU time, user and system, of the rebalance command alone: it starts, reads the builder, rebalances, writes builder and ring.
 * A step takes as many rebalances as change anything, with `min_part_hours` passed between them; one that only finds that nothing is left
 * (or, with Swift, less than it saves) is not counted on either side, unless it is the first. Another replica count is set by the command line too,
 * and its time counts: one contender gives up replicas then, the other when it rebalances. Devices are added and changed unmeasured.
 */
const ROUNDS_MAX = 8;
/** swift-ring-builder's exit code 2; 1 is a warning: nothing to do, too little to save it, or saved and not perfect. */
const SWIFT_ERROR = 2;

type Outcome = {
  readonly balance: number;
  readonly verdict: SwiftVerdict;
  readonly outOfBounds: number;
  readonly moved: number;
  readonly fewest: number;
  readonly rounds: number;
  readonly cpuSeconds: number;
};

type Contender = {
  readonly ring: RingsteadRing | SwiftRing;
  readonly beforeRound: () => void;
  readonly exitCodeMax: number;
  readonly env: NodeJS.ProcessEnv;
};

/** Runs a command in `env` and returns what CPU time it took. */
const cpuSecondsOf = (command: readonly [string, ...string[]], exitCodeMax: number, env: NodeJS.ProcessEnv): number => {
  const script = 'TIMEFORMAT="cpu %U %S"; time "$@"';
  const { stderr, status } = spawnSync("bash", ["-c", script, "bash", ...command], { encoding: "utf8", env });
  const [, user, system] = /cpu ([0-9.]+) ([0-9.]+)\s*$/.exec(stderr) ?? [];
  if (status === null || status > exitCodeMax || user === undefined || system === undefined)
    throw new RingsteadError("bench-failed", `${command.join(" ")}: exit code ${status}: ${stderr}`);
  return Number(user) + Number(system);
};

const isSame = (one: LifeTable, other: LifeTable): boolean =>
  one.cells.length === other.cells.length && one.cells.every((cell, slot) => cell === other.cells[slot]);

const live = (contender: Contender, step: LifeStep, judge: (table: LifeTable) => SwiftVerdict): Outcome => {
  const { ring, beforeRound, exitCodeMax } = contender;
  const before = ring.table();
  let moved = 0;
  let rounds = 0;
  let cpuSeconds = 0;
  const command = ring.commandFor(step.change);
  if (command === undefined) ring.apply(step.change);
  else cpuSeconds += cpuSecondsOf(command, 0, contender.env);
  let table = ring.table();
  for (let origin = before; rounds < ROUNDS_MAX; origin = table) {
    beforeRound();
    const seconds = cpuSecondsOf(ring.rebalanceCommand, exitCodeMax, contender.env);
    const next = ring.table();
    if (rounds > 0 && isSame(next, table)) break;
    moved += movedBetween(origin, next);
    table = next;
    rounds += 1;
    cpuSeconds += seconds;
  }
  return {
    balance: balanceOf(table),
    verdict: judge(table),
    outOfBounds: outOfBoundsOf(table),
    moved,
    fewest: fewestMoves(before, table),
    rounds,
    cpuSeconds,
  };
};

const COLUMNS = ["balance %", "dispersion", "out of bounds", "moved", "fewest", "ratio", "rounds", "CPU s"];

const cellsOf = (outcome: Outcome): string[] => [
  outcome.balance.toFixed(3),
  outcome.verdict.dispersion.toFixed(3),
  outcome.outOfBounds.toFixed(3),
  String(outcome.moved),
  String(outcome.fewest),
  outcome.fewest === 0 ? "-" : (outcome.moved / outcome.fewest).toFixed(3),
  String(outcome.rounds),
  outcome.cpuSeconds.toFixed(2),
];

const printRow = (title: string, cells: readonly string[]): void => {
  console.log(`${title.padEnd(38)}${cells.map((cell) => cell.padStart(14)).join("")}`);
};

/** Moves beyond 5 % of the fewest count as too many, but not single ones where hardly anything has to move. */
const MOVES_RATIO_MAX = 1.05;
const MOVES_GRACE = 20;
/** Figures of both are compared as they are printed. */
const PRINTED_DIGITS = 3;

/** What is wanted of a ring and is not so; empty where all is. */
const shortfalls = (step: LifeStep, ours: Outcome, swift: Outcome): string[] => {
  const worse = (what: string, one: number, other: number): string[] =>
    Number(one.toFixed(PRINTED_DIGITS)) > Number(other.toFixed(PRINTED_DIGITS))
      ? [`${step.title}: ${what} ${one.toFixed(PRINTED_DIGITS)}, Swift ${other.toFixed(PRINTED_DIGITS)}`]
      : [];
  return [
    ...worse("balance", ours.balance, swift.balance),
    ...worse("dispersion", ours.verdict.dispersion, swift.verdict.dispersion),
    ...worse("out of bounds", ours.outOfBounds, swift.outOfBounds),
    ...worse("moved", ours.moved, Math.max(ours.fewest * MOVES_RATIO_MAX, ours.fewest + MOVES_GRACE)),
    ...worse("CPU seconds", ours.cpuSeconds, swift.cpuSeconds),
  ];
};

const main = (): number => {
  const { values } = parseArgs({
    options: {
      power: { type: "string", default: "18" },
      nodes: { type: "string", default: "10" },
      devices: { type: "string", default: "20" },
    },
  });
  const life = ringLife({
    partitionPower: Number(values.power),
    nodesPerZone: Number(values.nodes),
    devicesPerNode: Number(values.devices),
  });
  installPackages(["swift"]);
  using cleanup = new DisposableStack();
  const folder = mkdtempSync(join(tmpdir(), "ringstead-ring-life-"));
  cleanup.defer(() => rmSync(folder, { recursive: true, force: true }));
  const swift = new SwiftRing(folder, life);
  const ours = new RingsteadRing(folder, life);
  const contenders: readonly [Contender, Contender] = [
    {
      ring: ours,
      beforeRound: () => {},
      exitCodeMax: 0,
      // Python keeps compiled code too.
      env: { ...process.env, NODE_COMPILE_CACHE: join(folder, "compiled") },
    },
    { ring: swift, beforeRound: () => swift.passTime(), exitCodeMax: SWIFT_ERROR - 1, env: process.env },
  ];
  console.log(`${JSON.stringify(machineFacts())}, Swift ${versionOf("swift")}, partition power ${life.partitionPower}`);
  printRow("", COLUMNS);
  const missed: string[] = [];
  let totals: readonly [number, number] = [0, 0];
  for (const step of life.steps) {
    // Swift's ring has to have the devices of the step before it can judge ours.
    const theirs = live(contenders[1], step, (table) => swift.judge(table));
    const own = live(contenders[0], step, (table) => swift.judge(table));
    printRow(`${step.title}: Ringstead`, cellsOf(own));
    printRow(`${" ".repeat(step.title.length)}  Swift`, cellsOf(theirs));
    missed.push(...shortfalls(step, own, theirs));
    totals = [totals[0] + own.cpuSeconds, totals[1] + theirs.cpuSeconds];
  }
  console.log(`CPU time in all: Ringstead ${totals[0].toFixed(1)} s, Swift ${totals[1].toFixed(1)} s`);
  for (const line of missed) console.log(`falls short: ${line}`);
  return missed.length === 0 ? 0 : 1;
};

try {
  process.exitCode = main();
} catch (thrown) {
  console.error(messageOf(thrown));
  process.exitCode = 1;
}
