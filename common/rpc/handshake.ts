import { createHmac, timingSafeEqual } from "node:crypto";

/** Bytes of each side's random challenge. */
export const CHALLENGE_BYTES = 32;

/** The wire versions that a side speaks, both ends included (FORMAT.md, Versions). */
export type WireVersions = { readonly oldest: number; readonly newest: number };

export const WIRE_VERSIONS: WireVersions = { oldest: 1, newest: 1 };

/** Clocks of two nodes may differ by this: twice what a node without time service drifts in a month would be refused, jitter would not. */
const CLOCK_LIMIT_MS = 30_000;

/** What a side says of itself in its hello. */
type Introduction = {
  readonly versions: WireVersions;
  /** Its time when it sent this; undefined from a side that does not tell. */
  readonly nowMs: number | undefined;
};

/** Why two sides that know the same key do not talk to each other, and what to do about it. */
export type HelloRefusal = {
  readonly code: "rpc-versions" | "clock-off";
  readonly reason: string;
  readonly remedy: string;
};

/**
 * What a side sends to show that it knows the cluster key (FORMAT.md, Hello). `binding` ties it to the TLS connection that it travels in, so that
 * nobody can pass it on into another one; empty on a Unix socket.
 */
export const proofOf = (
  clusterKey: Buffer,
  side: "client" | "server",
  serverChallenge: Buffer,
  clientChallenge: Buffer,
  binding: Buffer,
): Buffer =>
  createHmac("sha256", clusterKey)
    .update(side)
    .update(serverChallenge)
    .update(clientChallenge)
    .update(binding)
    .digest();

/** Compares in constant time. */
export const isProof = (given: Buffer, expected: Buffer): boolean =>
  given.length === expected.length && timingSafeEqual(given, expected);

/** The header of a hello. */
export const helloHeader = ({ oldest, newest }: WireVersions, nowMs: number): readonly unknown[] => [
  oldest,
  newest,
  nowMs,
];

const isVersion = (value: unknown): value is number =>
  typeof value === "number" && Number.isInteger(value) && value >= 1 && value <= 0xffff;

/** Reads a hello's header; whoever says nothing speaks version 1. Fields behind the known ones are of later versions. */
export const readIntroduction = ([oldest, newest, nowMs]: readonly unknown[]): Introduction => ({
  versions: isVersion(oldest) && isVersion(newest) && oldest <= newest ? { oldest, newest } : { oldest: 1, newest: 1 },
  nowMs: typeof nowMs === "number" && Number.isFinite(nowMs) ? nowMs : undefined,
});

/** The highest version that both speak; undefined where there is none. */
export const commonVersion = (own: WireVersions, theirs: WireVersions): number | undefined => {
  const highest = Math.min(own.newest, theirs.newest);
  return highest >= Math.max(own.oldest, theirs.oldest) ? highest : undefined;
};

/**
 * By how much the peer's clock is certainly ahead of ours (negative: behind), 0 where it may be right: it told `theirMs` at some moment between
 * our `fromMs` and `untilMs`, so that a slow network or a stopped process never looks like a wrong clock.
 */
const clockDifference = (theirMs: number, fromMs: number, untilMs: number): number => {
  if (theirMs > untilMs) return theirMs - untilMs;
  return theirMs < fromMs ? theirMs - fromMs : 0;
};

const rangeText = ({ oldest, newest }: WireVersions): string =>
  oldest === newest ? `version ${oldest}` : `versions ${oldest} to ${newest}`;

/** What speaks against the peer, if anything. `fromMs` and `untilMs`: see `clockDifference`. */
export const refusalOf = (
  own: WireVersions,
  theirs: Introduction,
  fromMs: number,
  untilMs: number,
): HelloRefusal | undefined => {
  if (commonVersion(own, theirs.versions) === undefined) {
    const isOlder = theirs.versions.newest < own.oldest;
    return {
      code: "rpc-versions",
      reason: `it speaks ${rangeText(theirs.versions)} of the wire format, this node ${rangeText(own)}`,
      remedy: `upgrade ${isOlder ? "it" : "this node"} to a version of Ringstead that speaks both`,
    };
  }
  const offMs = theirs.nowMs === undefined ? 0 : clockDifference(theirs.nowMs, fromMs, untilMs);
  if (Math.abs(offMs) <= CLOCK_LIMIT_MS) return undefined;
  const seconds = Math.round(Math.abs(offMs) / 1000);
  return {
    code: "clock-off",
    reason: `its clock is ${seconds} s ${offMs > 0 ? "ahead of" : "behind"} this node's, more than ${CLOCK_LIMIT_MS / 1000} s`,
    remedy: "set the clock of the node that is wrong, and keep it with chrony or another NTP client",
  };
};
