import type { Ballot } from "../../common/ballot.ts";
import type { Row } from "../../storage-node/wire.ts";

/**
 * The index of due times: one row for each version of an object that has one, named by the due time and the object's path and versioned
 * by the object's version, in a row space apart. It is written with the container's row, before the answer; it only says where to look.
 * What is deleted, and whether, the object's register alone decides.
 */
const TIME_DIGITS = 12;
const NOTHING = new Uint8Array();

const timeText = (seconds: number): string => String(seconds).padStart(TIME_DIGITS, "0");

/** The row that says: look at `path` (with its leading slash) at `deleteAt` seconds since 1970. */
export const dueRow = (deleteAt: number, path: string, version: Ballot): Row => ({
  name: timeText(deleteAt) + path,
  version,
  isDeleted: false,
  objects: 1,
  bytes: 0,
  payload: NOTHING,
});

/** Names below this one are due at `nowMs`. */
export const dueBefore = (nowMs: number): string => timeText(Math.floor(nowMs / 1000) + 1);

/** The row's removal: it outruns exactly this version of it, and no later one. */
export const handledRow = ({ name, version }: Row): Row => ({
  name,
  version: (BigInt(`0x${version}`) + 1n).toString(16).padStart(version.length, "0") as Ballot,
  isDeleted: true,
  objects: 0,
  bytes: 0,
  payload: NOTHING,
});

/** What a row of the index names; undefined for what nobody here wrote. */
export const dueObjectOf = (
  row: Row,
):
  | { readonly deleteAt: number; readonly account: string; readonly container: string; readonly name: string }
  | undefined => {
  const [, time, account, container, name] = /^(\d{12})\/([^/]+)\/([^/]+)\/(.+)$/su.exec(row.name) ?? [];
  if (time === undefined || account === undefined || container === undefined || name === undefined) return undefined;
  return { deleteAt: Number(time), account, container, name };
};

/** Whether an object that says `deleteAt` is to go now because of a row for `expected`: not where the time was changed meanwhile. */
export const isDue = (deleteAt: number | undefined, expected: number, nowMs: number): boolean =>
  deleteAt === expected && deleteAt * 1000 <= nowMs;
