import type { RingDevice } from "./device.ts";

/** Wrong arguments: the help is printed, exit code 2. */
export class UsageError extends Error {}

/** What options a subcommand knows, as `parseArgs` takes it. */
type OptionTable = Readonly<Record<string, { readonly type: "string" | "boolean" }>>;

export type Options = Readonly<Record<string, string | boolean | undefined>>;

export type Subcommand = {
  readonly options: OptionTable;
  /** How many words follow the subcommand. */
  readonly words: readonly [min: number, max: number];
  /** Returns the exit code where it is not 0. */
  run(words: readonly string[], options: Options): number | void;
};

/** Where output goes; tests listen here. */
export type CommandOutput = { out(text: string): void; error(text: string): void };

export const strings = (...names: string[]): OptionTable =>
  Object.fromEntries(names.map((name) => [name, { type: "string" as const }]));

export const text = (options: Options, name: string, fallback?: string): string => {
  const value = options[name] ?? fallback;
  if (typeof value !== "string") throw new UsageError(`--${name} is missing`);
  return value;
};

export const toNumber = (what: string, value: string): number => {
  const number = Number(value);
  if (value.trim() === "" || !Number.isFinite(number)) throw new UsageError(`${what} is no number: "${value}"`);
  return number;
};

export const number = (options: Options, name: string, fallback?: string): number =>
  toNumber(`--${name}`, text(options, name, fallback));

export const describe = (device: RingDevice): string =>
  `device ${device.id} (region ${device.region} zone ${device.zone} ${device.node}/${device.device})`;

/** Columns as wide as their widest cell. */
export const table = (rows: readonly (readonly string[])[]): string => {
  const widths: number[] = [];
  for (const row of rows)
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, cell.length);
  return rows
    .map(
      (row) =>
        `${row
          .map((cell, column) => cell.padEnd(widths[column] ?? 0))
          .join("  ")
          .trimEnd()}\n`,
    )
    .join("");
};
