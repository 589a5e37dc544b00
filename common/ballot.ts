import type { HybridTimestamp } from "./hybrid-clock.ts";

/**
 * The incarnation of a container: the timestamp and process number of the ballot that made it (PROTOCOL [B6]), 24 hexadecimal digits.
 */
export type Incarnation = string & { readonly brand: "Incarnation" };

/**
 * A ballot of the quorum protocol: incarnation (24 digits), hybrid timestamp (16), process number (8), in lower-case hexadecimal.
 * Fixed width makes JavaScript's `<` on the text the protocol's order; on disk and on the wire it is 24 bytes.
 *
 * Nobody proposes a ballot that is longer; a version that a hand-off kept may be *stored* under one (`ballotOver`). Versions are never longer.
 */
export type Ballot = string & { readonly brand: "Ballot" };

/** Digits in a ballot; half as many bytes. */
const BALLOT_DIGITS = 48;
export const BALLOT_BYTES = BALLOT_DIGITS / 2;

/** The incarnation of what has none: containers in their account, accounts themselves. */
export const NO_INCARNATION = "0".repeat(24) as Incarnation;

/** Puts a ballot together. Requires: `process` is 8 hexadecimal digits. */
export const ballotOf = (incarnation: Incarnation, timestamp: HybridTimestamp, process: string): Ballot =>
  (incarnation + timestamp + process) as Ballot;

/** The hybrid timestamp in a ballot. */
export const timestampIn = (ballot: Ballot): HybridTimestamp => ballot.slice(24, 40) as HybridTimestamp;

/** The incarnation that a container gets when it is made under `ballot`. */
export const incarnationMadeBy = (ballot: Ballot): Incarnation => ballot.slice(24) as Incarnation;

/**
 * The ballot under which a version is stored over an earlier one that is held under `held`: that ballot's digits, and the version's behind them. In the order of texts it
 * lies above `held` and below every ballot that anybody proposes above that; of two versions over one ballot the later is higher; and since the version is part of it, no
 * other can ever be stored under it.
 */
export const ballotOver = (held: Ballot, version: Ballot): Ballot => (proposedBallotIn(held) + version) as Ballot;

/** The ballot that was proposed, of one that a version was stored over. */
export const proposedBallotIn = (ballot: Ballot): Ballot =>
  ballot.length === BALLOT_DIGITS ? ballot : (ballot.slice(0, BALLOT_DIGITS) as Ballot);

/** The version that `ballotOver` put into a ballot; undefined of one that was proposed. */
export const versionStoredOver = (ballot: Ballot): Ballot | undefined =>
  ballot.length === BALLOT_DIGITS ? undefined : (ballot.slice(BALLOT_DIGITS) as Ballot);

/** The later of two timestamps. */
export const maxTimestamp = (left: HybridTimestamp, right: HybridTimestamp): HybridTimestamp =>
  left < right ? right : left;

/** The last text that was found to be one: a register names its ballot three times, and replicas name the same. */
let lastBallot = "";

/** True of text that has a ballot's form; what comes from the wire is checked with it. */
export const isBallot = (text: unknown): text is Ballot => {
  if (typeof text !== "string") return false;
  if (text === lastBallot) return lastBallot !== "";
  if (!/^[0-9a-f]{48}$/.test(text)) return false;
  lastBallot = text;
  return true;
};

/** The same of one that something is stored under: it may be one of `ballotOver`. */
export const isStoredBallot = (text: unknown): text is Ballot =>
  isBallot(text) || (typeof text === "string" && /^[0-9a-f]{96}$/.test(text));

/** True of text that has an incarnation's form. */
export const isIncarnation = (text: unknown): text is Incarnation =>
  typeof text === "string" && /^[0-9a-f]{24}$/.test(text);

/** True of a hybrid timestamp's form. */
export const isTimestamp = (text: unknown): text is HybridTimestamp =>
  typeof text === "string" && /^[0-9a-f]{16}$/.test(text);
