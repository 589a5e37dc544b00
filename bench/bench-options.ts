import { tmpdir } from "node:os";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { RingsteadError } from "../common/errors.ts";
import { IDENTITY_ROWS, type IdentityRow } from "./identity-rows.ts";
import { ROWS, type Row } from "./rows.ts";
import { TOKEN_ROWS, type TokenRow } from "./token-rows.ts";

/** What `npm run bench` was asked for. */
export type BenchOptions = {
  readonly compare: "swift" | "keystone" | "tokens" | undefined;
  /** Of the object store; not measured in a comparison with Keystone, or of tokens. */
  readonly rows: readonly Row[];
  /** Of identity; measured in a comparison with Keystone alone. */
  readonly identityRows: readonly IdentityRow[];
  /** Of many tokens and one; measured in that comparison alone. */
  readonly tokenRows: readonly TokenRow[];
  /** How long each run of a row lasts. */
  readonly seconds: number;
  /** How many runs each row has for each contender. */
  readonly rounds: number;
  /** Long rows for Swift too. */
  readonly full: boolean;
  /** Names in the container whose pages are listed. */
  readonly names: number;
  /** Writing what a row needs ends after so long. */
  readonly fillSeconds: number;
  readonly skipFirstTouch: boolean;
  /** Results go to bench/results/, else to a temporary folder. */
  readonly keep: boolean;
  /** Below it everything is stored while the bench runs. */
  readonly folder: string;
};

const SECONDS_MAX = 3600;
const ROUNDS_MAX = 100;
const FILL_SECONDS_MAX = 86_400;
/** As many as names of INDEX_DIGITS digits go. */
const NAMES_MAX = 10_000_000;

const usage = (message: string): never => {
  throw new RingsteadError("usage", message);
};

const numberWithin = (name: string, text: string, maximum: number): number => {
  const number = Number(text);
  return number > 0 && number <= maximum ? number : usage(`--${name} takes a number up to ${maximum}, not "${text}"`);
};

const rowsOf = <Of extends { readonly id: string }>(all: readonly Of[], text: string | undefined): readonly Of[] => {
  if (text === undefined) return all;
  const ids = text.split(",");
  const unknown = ids.find((id) => !all.some((row) => row.id === id));
  if (unknown !== undefined) usage(`there is no row "${unknown}"; rows are ${all.map(({ id }) => id).join(",")}`);
  return all.filter((row) => ids.includes(row.id));
};

const compareOf = (text: string | undefined): BenchOptions["compare"] => {
  if (text === undefined || text === "swift" || text === "keystone" || text === "tokens") return text;
  return usage(`--compare takes swift, keystone or tokens, not "${text}"`);
};

/** Throws RingsteadError `usage`, or what parseArgs throws. */
export const parseBenchOptions = (argv: readonly string[]): BenchOptions => {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      compare: { type: "string" },
      rows: { type: "string" },
      seconds: { type: "string", default: "8" },
      rounds: { type: "string", default: "2" },
      full: { type: "boolean", default: false },
      names: { type: "string", default: "1000000" },
      "fill-seconds": { type: "string", default: "900" },
      keep: { type: "boolean", default: false },
      "skip-first-touch": { type: "boolean", default: false },
      folder: { type: "string", default: tmpdir() },
    },
  });
  const compare = compareOf(values.compare);
  return {
    compare,
    rows: compare === undefined || compare === "swift" ? rowsOf(ROWS, values.rows) : [],
    identityRows: compare === "keystone" ? rowsOf(IDENTITY_ROWS, values.rows) : [],
    tokenRows: compare === "tokens" ? rowsOf(TOKEN_ROWS, values.rows) : [],
    seconds: numberWithin("seconds", values.seconds, SECONDS_MAX),
    rounds: Math.ceil(numberWithin("rounds", values.rounds, ROUNDS_MAX)),
    full: values.full,
    names: Math.ceil(numberWithin("names", values.names, NAMES_MAX)),
    fillSeconds: numberWithin("fill-seconds", values["fill-seconds"], FILL_SECONDS_MAX),
    keep: values.keep,
    skipFirstTouch: values["skip-first-touch"],
    folder: resolve(values.folder),
  };
};
