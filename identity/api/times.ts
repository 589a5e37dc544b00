import { identityError } from "../core/identity-error.ts";

/** A client's time: `2035-01-01T00:00:00.000000Z`, the zone and the fraction may be left out; UTC then. Throws `bad-request`. */
export const timeOf = (text: string, field: string): number => {
  const [, date, zone] = /^(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)(Z|[+-]\d\d:?\d\d)?$/.exec(text) ?? [];
  const atMs = date === undefined ? Number.NaN : Date.parse(`${date.replace(" ", "T")}${zone ?? "Z"}`);
  if (Number.isNaN(atMs))
    throw identityError("bad-request", `Invalid input for field '${field}': '${text}' is not a time.`);
  return atMs;
};

/** A client's time that must lie ahead. Throws `bad-request`. */
export const futureTimeOf = (text: string, field: string, nowMs: number): number => {
  const atMs = timeOf(text, field);
  if (atMs <= nowMs)
    throw identityError("bad-request", `Invalid input for field '${field}': '${text}' lies in the past.`);
  return atMs;
};

/** Keystone's times: six digits of fraction. */
export const isoMicroseconds = (ms: number): string => new Date(ms).toISOString().replace("Z", "000Z");

/** The same without a zone, as columns of Keystone's database are shown. */
export const bareMicroseconds = (ms: number): string => isoMicroseconds(ms).slice(0, -1);

/** Microseconds of a client's time, whose milliseconds `timeOf` gave. */
export const microsecondsOf = (text: string, atMs: number): number => {
  const [, fraction = ""] = /\.(\d{1,9})/.exec(text) ?? [];
  return Math.floor(atMs / 1000) * 1_000_000 + Number(fraction.padEnd(6, "0").slice(0, 6));
};

/** As `bareMicroseconds`, of microseconds. */
export const bareTime = (us: number): string => {
  const seconds = new Date(Math.floor(us / 1_000_000) * 1000).toISOString().slice(0, 19);
  return `${seconds}.${String(us % 1_000_000).padStart(6, "0")}`;
};
