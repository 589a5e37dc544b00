import { RingsteadError } from "../common/errors.ts";
import { logInAsAdmin, readReady } from "./admin-login.ts";
import { dataDirOf, parseOptions } from "./up-options.ts";

const ANSWER_TIMEOUT_MS = 30_000;
const UNITS: Readonly<Record<string, number>> = { m: 60, h: 3_600, d: 86_400, w: 604_800 };
const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

const usage = (words: string): RingsteadError => new RingsteadError("usage", `${words} (see: ringstead volume help)`);

/** `30m`, `6h`, `1d`, `2w`. Throws `usage`. */
const secondsOf = (text: string): number => {
  const [, count = "", unit = ""] = /^(\d{1,5})([mhdw])$/.exec(text) ?? [];
  const seconds = Number(count) * (UNITS[unit] ?? 0);
  if (seconds > 0) return seconds;
  throw usage(`backups are made every 30m, 6h, 1d or 2w, for example, not every "${text}"`);
};

type Schedule = {
  readonly every_seconds: number;
  readonly keep: number;
  readonly next_backup_at: string;
  readonly failure: string | null;
};

const lineOf = ({ every_seconds: every, keep, next_backup_at: next, failure }: Schedule): string =>
  `every ${every} s, the latest ${keep} are kept, the next one at ${next.slice(0, 19)}Z${failure === null ? "" : `; the last one was not made: ${failure}`}\n`;

/** `ringstead volume schedule ID [--every TIME --keep N | --off]`: asks the block service. Prints the schedule as it is then. */
export const volumeSchedule = async (argv: readonly string[]): Promise<number> => {
  const options = {
    data: { type: "string" },
    every: { type: "string" },
    keep: { type: "string" },
    off: { type: "boolean" },
  } as const;
  const { values, positionals } = parseOptions(argv, options, true);
  const [id = "", ...rest] = positionals;
  if (!ID.test(id) || rest.length > 0) throw usage("ringstead volume schedule takes the id of one volume");
  const { every, keep, off = false } = values;
  if ((every === undefined) !== (keep === undefined) || (off && every !== undefined))
    throw usage("a schedule takes --every and --keep, or --off, or nothing, which shows it");
  if (keep !== undefined && !/^\d{1,4}$/.test(keep)) throw usage(`"${keep}" is no number of backups`);
  const ready = readReady(dataDirOf(values.data));
  const { block } = ready.endpoints;
  if (block === undefined) throw new RingsteadError("not-running", "the block service does not run there");
  const wanted = every === undefined ? undefined : { every_seconds: secondsOf(every), keep: Number(keep) };
  const response = await fetch(`${block}/volumes/${id}/backup-schedule`, {
    method: off ? "DELETE" : wanted === undefined ? "GET" : "PUT",
    headers: { "x-auth-token": (await logInAsAdmin(ready)).token, "content-type": "application/json" },
    ...(wanted === undefined ? {} : { body: JSON.stringify({ backup_schedule: wanted }) }),
    signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
  });
  if (response.status === 204) return 0;
  const answer = (await response.json()) as {
    readonly backup_schedule?: Schedule;
    readonly [error: string]: { readonly message?: string } | Schedule | undefined;
  };
  if (answer.backup_schedule !== undefined) {
    process.stdout.write(lineOf(answer.backup_schedule));
    return 0;
  }
  const [error] = Object.values(answer);
  const words = error !== undefined && "message" in error ? error.message : undefined;
  throw new RingsteadError("refused", words ?? `the block service answered ${response.status}`);
};
