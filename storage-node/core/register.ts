import { type Ballot, maxTimestamp, timestampIn } from "../../common/ballot.ts";
import { type HybridTimestamp, TIMESTAMP_ZERO } from "../../common/hybrid-clock.ts";
import type { Fate, Register, VersionState } from "../wire.ts";

/**
 * One replica's part of one name: PROTOCOL sections 1 and 2 as pure functions.
 *
 *     absent ──ACCEPT──▶ accepted ──CONFIRM──▶ confirmed
 *                            │  ╲──CONFIRM void──▶ void
 *                            └── ACCEPT with a higher ballot replaces any state; what was there is remembered
 */

/** What the disk keeps of a name besides its body. `metadata` is the proxy's, opaque here. */
export type StoredRegister = Register;

/** What memory keeps of a name: a promise, and versions that were overwritten here. */
export type VolatileRegister = {
  promise: Ballot | undefined;
  readonly overwritten: { version: Ballot; state: VersionState }[];
  /** `memoryFloor`: the newest version of this name that was dropped from `overwritten`. */
  floor: HybridTimestamp;
};

/** At most so many overwritten versions are remembered per name; older ones raise the floor. */
const OVERWRITTEN_LIMIT = 8;

/** The record that an ACCEPT proposes. `body: "keep"` stands for a change of metadata only ([A4]). */
export type ProposedRecord = {
  readonly bodyVersion: Ballot;
  readonly isTombstone: boolean;
  readonly bodyLength: number;
  readonly metadata: Uint8Array;
  readonly body: "none" | "given" | "keep";
};

export type AcceptDecision =
  | { readonly kind: "store"; readonly register: StoredRegister; readonly body: "none" | "given" | "keep" }
  | { readonly kind: "repeated" }
  | { readonly kind: "refused"; readonly seen: Ballot }
  | { readonly kind: "nodata" };

/** [A3]: below the floor of a restart, and below what memory dropped, "never" cannot be said. */
export const fateOf = (
  stored: StoredRegister | undefined,
  memory: VolatileRegister | undefined,
  floor: HybridTimestamp,
  version: Ballot,
): Fate => {
  if (stored !== undefined && stored.version === version) return stored.state;
  const overwritten = memory?.overwritten.find((entry) => entry.version === version);
  if (overwritten !== undefined) return overwritten.state;
  const timestamp = timestampIn(version);
  return timestamp <= floor || (memory !== undefined && timestamp <= memory.floor) ? "unknown" : "never";
};

const highestSeen = (
  stored: StoredRegister | undefined,
  memory: VolatileRegister | undefined,
  ballot: Ballot,
): Ballot => {
  let seen = ballot;
  if (stored !== undefined && stored.ballot > seen) seen = stored.ballot;
  if (memory?.promise !== undefined && memory.promise > seen) seen = memory.promise;
  return seen;
};

/**
 * ACCEPT: [A1], [A2], [A4], [D2]. `epochFloor`: that of the partition, at or below which a repetition says nothing either ([M5]). Changes `memory` when it answers "store": what is overwritten is
 * remembered there.
 */
export const decideAccept = (
  stored: StoredRegister | undefined,
  memory: VolatileRegister | undefined,
  floor: HybridTimestamp,
  version: Ballot,
  ballot: Ballot,
  record: ProposedRecord,
  epochFloor: HybridTimestamp = TIMESTAMP_ZERO,
): AcceptDecision => {
  const isBelow = timestampIn(ballot) <= epochFloor;
  if (stored !== undefined && stored.version === version && stored.ballot === ballot && !isBelow)
    return { kind: "repeated" };
  if (
    isBelow ||
    timestampIn(ballot) <= floor ||
    (memory?.promise !== undefined && ballot < memory.promise) ||
    (stored !== undefined && ballot < stored.ballot)
  ) {
    return { kind: "refused", seen: highestSeen(stored, memory, ballot) };
  }
  const isSameVersion = stored !== undefined && stored.version === version;
  let body = record.body;
  if (isSameVersion && record.bodyVersion === stored.bodyVersion && !record.isTombstone && record.bodyLength > 0)
    body = "keep";
  if (body === "keep" && (stored === undefined || stored.isTombstone || stored.bodyVersion !== record.bodyVersion)) {
    return { kind: "nodata" };
  }
  return {
    kind: "store",
    body,
    register: {
      version,
      ballot,
      state: isSameVersion ? stored.state : "accepted",
      bodyVersion: record.bodyVersion,
      isTombstone: record.isTombstone,
      bodyLength: record.bodyLength,
      metadata: record.metadata,
    },
  };
};

/** Remembers that `stored` was overwritten; the oldest one beyond the limit is forgotten, and the name's floor says so. */
export const rememberOverwritten = (memory: VolatileRegister, stored: StoredRegister): void => {
  memory.overwritten.push({ version: stored.version, state: stored.state });
  if (memory.overwritten.length <= OVERWRITTEN_LIMIT) return;
  const dropped = memory.overwritten.shift();
  if (dropped !== undefined) memory.floor = maxTimestamp(memory.floor, timestampIn(dropped.version));
};

export type PrepareDecision = { readonly kind: "promised" } | { readonly kind: "refused"; readonly seen: Ballot };

/** PREPARE: [A2], [D2]. The caller stores the promise when the answer is "promised". */
export const decidePrepare = (
  stored: StoredRegister | undefined,
  memory: VolatileRegister | undefined,
  floor: HybridTimestamp,
  ballot: Ballot,
): PrepareDecision => {
  if (
    timestampIn(ballot) <= floor ||
    (memory?.promise !== undefined && ballot < memory.promise) ||
    (stored !== undefined && ballot <= stored.ballot)
  ) {
    return { kind: "refused", seen: highestSeen(stored, memory, ballot) };
  }
  return { kind: "promised" };
};

/** CONFIRM: [A5]. Returns the register to keep when something changes; a remembered version changes in `memory`. */
export const decideConfirm = (
  stored: StoredRegister | undefined,
  memory: VolatileRegister | undefined,
  version: Ballot,
  isVoid: boolean,
): StoredRegister | undefined => {
  const state: VersionState = isVoid ? "void" : "confirmed";
  if (stored !== undefined && stored.version === version)
    return stored.state === "accepted" ? { ...stored, state } : undefined;
  const overwritten = memory?.overwritten.find((entry) => entry.version === version);
  if (overwritten !== undefined && overwritten.state === "accepted") overwritten.state = state;
  return undefined;
};

/** When memory of a name is dropped, nothing at or below this timestamp may be denied or accepted again. */
export const floorWithout = (memory: VolatileRegister): HybridTimestamp => {
  let floor = memory.promise === undefined ? memory.floor : maxTimestamp(memory.floor, timestampIn(memory.promise));
  for (const { version } of memory.overwritten) floor = maxTimestamp(floor, timestampIn(version));
  return floor;
};
