import type { Measurement } from "./contest.ts";
import type { Row } from "./rows.ts";

/** What figures depend on of a row. */
type MeasuredRow = Pick<Row, "beside"> & { readonly action: string; readonly set: Pick<Row["set"], "sizeBytes"> };

/** What one contender reached in one row, over all its runs. */
export type Figures = {
  readonly requests: number;
  readonly requestsPerSecond: number;
  /** 0 where no bodies are moved. */
  readonly mebibytesPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Of all serving processes; undefined where no request was answered, and beside another load, whose share cannot be told apart. */
  readonly serverCpuUsPerRequest: number | undefined;
  /** Of the load generator, likewise. */
  readonly clientCpuUsPerRequest: number | undefined;
  readonly rssBytes: number;
  readonly pssBytes: number;
  /** Of the listed container. */
  readonly names: number | undefined;
  readonly deletedNames: number | undefined;
  readonly besidePerSecond: number | undefined;
  readonly failed: number;
  readonly firstFailure: string | undefined;
  /** Requests per second of each run, in order: how steady the machine was. */
  readonly runs: readonly number[];
};

const MIB = 1024 * 1024;

const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0);

const rounded = (number: number, digits = 2): number => Number(number.toFixed(digits));

/** Nearest rank; 0 for an empty list. Requires: ascending. */
export const percentile = (ascending: readonly number[], share: number): number =>
  ascending[Math.min(ascending.length - 1, Math.max(0, Math.ceil(ascending.length * share) - 1))] ?? 0;

/** A listing's run also holds a PUT for each listing, which is not timed: only the time inside listings counts. */
const timedMs = (row: MeasuredRow, run: Measurement): number =>
  row.action === "list" ? sum(run.latenciesUs) / 1000 : run.elapsedMs;

const rateOf = (row: MeasuredRow, runs: readonly Measurement[]): number => {
  const ms = sum(runs.map((run) => timedMs(row, run)));
  return ms === 0 ? 0 : (sum(runs.map((run) => run.latenciesUs.length)) * 1000) / ms;
};

/** All runs of one contender in one row, as one. Requires: at least one run. */
export const figuresOf = (row: MeasuredRow, runs: readonly Measurement[]): Figures => {
  const latenciesUs = runs.flatMap((run) => run.latenciesUs).toSorted((left, right) => left - right);
  const answered = sum(runs.map((run) => run.answered));
  const perRequestUs = (ms: (run: Measurement) => number): number | undefined =>
    answered === 0 || row.beside !== undefined ? undefined : Math.round((sum(runs.map(ms)) * 1000) / answered);
  const rate = rateOf(row, runs);
  const carriesBody = row.action === "put" || row.action === "get" || row.action === "overwrite";
  const besideMs = sum(runs.map((run) => run.elapsedMs));
  return {
    requests: latenciesUs.length,
    requestsPerSecond: rounded(rate),
    mebibytesPerSecond: carriesBody ? rounded((rate * row.set.sizeBytes) / MIB) : 0,
    p50Ms: rounded(percentile(latenciesUs, 0.5) / 1000),
    p99Ms: rounded(percentile(latenciesUs, 0.99) / 1000),
    serverCpuUsPerRequest: perRequestUs((run) => run.serverCpuMs),
    clientCpuUsPerRequest: perRequestUs((run) => run.clientCpuMs),
    rssBytes: Math.max(...runs.map((run) => run.memory.rssBytes)),
    pssBytes: Math.max(...runs.map((run) => run.memory.pssBytes)),
    names: runs.find((run) => run.names !== undefined)?.names,
    deletedNames: runs.find((run) => run.deletedNames !== undefined)?.deletedNames,
    besidePerSecond:
      row.beside === undefined || besideMs === 0
        ? undefined
        : rounded((sum(runs.map((run) => run.backgroundAnswered)) * 1000) / besideMs),
    failed: sum(runs.map((run) => run.failed)),
    firstFailure: runs.find((run) => run.firstFailure !== undefined)?.firstFailure,
    runs: runs.map((run) => rounded(rateOf(row, [run]))),
  };
};
