import type { Ballot } from "../../common/ballot.ts";
import { entryDigests } from "../store/entry-digest.ts";
import type { Name, Row } from "../wire.ts";

export const identity = { clusterId: "cluster", node: "node1", device: "d1" };
/** Whatever its key is, the scheme is the real one; this load's keys are no storage node's, and most are counted nowhere. */
export const DIGESTS = entryDigests(Buffer.alloc(32, 7));
export const rowSeeds = [3n, 5n] as const;
export const containers: readonly Name[] = [7, 9].map((hash32) => ({
  space: "container",
  hash32,
  path: `/a/c${hash32}`,
}));

/** So that the index's own memory fills, and is written out, long before the next checkpoint. */
const WIDE_KEY_BYTES = 4000;

/** What is stored under a name says itself which version it is and what the body must be. */
export type Stored = {
  readonly name: string;
  readonly version: number;
  readonly bodyVersion: number;
  readonly bodyLength: number;
  readonly padding: number;
};

export const keyOf = (name: string): Buffer =>
  Buffer.from(`o/${name.startsWith("wide") ? name.padEnd(WIDE_KEY_BYTES, ".") : name}`);

/** The keys of `keyOf`. */
export const allKeys = { gte: Buffer.from("o/"), lt: Buffer.from("o0") };

export const nameOf = (key: Uint8Array): string => Buffer.from(key).toString().slice(2).replace(/\.+$/, "");

export const valueOf = (stored: Stored): Buffer =>
  Buffer.from(`${JSON.stringify(stored)}\n${"v".repeat(stored.padding)}`);

/** Throws where a value is torn. */
export const storedIn = (value: Uint8Array): Stored => {
  const stored = JSON.parse(Buffer.from(value).toString().split("\n")[0] ?? "") as Stored;
  if (!valueOf(stored).equals(value)) throw new Error(`the value of ${stored.name} is torn`);
  return stored;
};

export const bodyOf = (name: string, bodyVersion: number, length: number): Buffer =>
  length === 0 ? Buffer.alloc(0) : Buffer.alloc(length, `${name}#${bodyVersion};`);

export const rowOf = (name: string, version: number, isDeleted: boolean): Row => ({
  name,
  version: version.toString(16).padStart(48, "0") as Ballot,
  isDeleted,
  objects: isDeleted ? 0 : 1,
  bytes: isDeleted ? 0 : version % 1000,
  payload: Buffer.from(`${name}#${version}`),
});

export const versionOf = (row: Row): number => Number.parseInt(row.version, 16);

/** How a row is called in the book of promises. */
export const rowTitle = (owner: Name, name: string): string => `${owner.path} ${name}`;
