import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { BenchOptions } from "./bench-options.ts";
import type { Measurement } from "./contest.ts";
import { figuresOf } from "./figures.ts";
import { machineFacts, type Report, type RowReport, rowReport } from "./report.ts";
import { isFlawless, printRow, writeReport } from "./results.ts";
import { commitOf, startRingstead } from "./ringstead-contender.ts";
import { TOKENS, TokenContest } from "./token-contest.ts";
import type { TokenRow } from "./token-rows.ts";

/** Until the code is as fast as it gets, and each token has been seen: what the first time costs is a row of its own. */
const WARM_UP_MS = 8000;

type Runs = { readonly many: readonly Measurement[]; readonly one: readonly Measurement[] };

/** With many tokens and with one, in turn: A B B A, so that a machine which becomes faster or slower favours neither. */
const measureHeads = async (
  row: TokenRow,
  contest: TokenContest,
  { rounds, seconds }: BenchOptions,
  signal: AbortSignal,
): Promise<Runs> => {
  await contest.measureHeads(row, TOKENS, WARM_UP_MS);
  const many: Measurement[] = [];
  const one: Measurement[] = [];
  const runs = [
    { tokens: TOKENS, measured: many },
    { tokens: 1, measured: one },
  ];
  for (let round = 0; round < rounds; round += 1) {
    for (const { tokens, measured } of round % 2 === 0 ? runs : runs.toReversed()) {
      signal.throwIfAborted();
      measured.push(await contest.measureHeads(row, tokens, seconds * 1000));
    }
  }
  return { many, one };
};

const measureColdChecks = async (
  contest: TokenContest,
  { rounds, seconds }: BenchOptions,
  signal: AbortSignal,
): Promise<Runs> => {
  const many: Measurement[] = [];
  for (let round = 0; round < rounds; round += 1) {
    signal.throwIfAborted();
    many.push(await contest.measureColdChecks(seconds * 1000));
  }
  return { many, one: [] };
};

const measureRow = async (
  row: TokenRow,
  contest: TokenContest,
  options: BenchOptions,
  signal: AbortSignal,
): Promise<RowReport> => {
  const { many, one } =
    row.action === "head"
      ? await measureHeads(row, contest, options, signal)
      : await measureColdChecks(contest, options, signal);
  const measured = { action: row.action, set: { sizeBytes: 0 }, beside: undefined };
  const figures = [many, one].map((runs) => (runs.length === 0 ? undefined : figuresOf(measured, runs)));
  return rowReport(row, figures);
};

/** The object store with 10,000 tokens and with one, in turn, and tokens that it has not seen. Whether every request succeeded. */
export const benchTokens = async (options: BenchOptions, signal: AbortSignal): Promise<boolean> => {
  await using cleanup = new AsyncDisposableStack();
  const folder = mkdtempSync(join(options.folder, "ringstead-bench-"));
  cleanup.defer(() => rmSync(folder, { recursive: true, force: true }));
  const store = cleanup.use(await startRingstead(folder));
  const contest = new TokenContest(store);
  const idleShare = await contest.measureIdle();
  await contest.prepare();
  const rows: RowReport[] = [];
  for (const row of options.tokenRows) {
    const report = await measureRow(row, contest, options, signal);
    printRow(report);
    rows.push(report);
  }
  const { version } = store;
  const { seconds, rounds, names, full } = options;
  const contenders = [`${TOKENS.toLocaleString("en-US")} tokens`, "one token"];
  const report: Report = {
    title: "Object storage: many tokens",
    commit: commitOf(),
    time: new Date().toISOString(),
    machine: machineFacts(),
    settings: { seconds, rounds, names, full, firstTouch: false },
    contenders: contenders.map((name) => ({ name, version, idleShare })),
    rows,
  };
  writeReport(report, "tokens", options.keep);
  return isFlawless(rows);
};
