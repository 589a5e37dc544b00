import type { Ballot } from "../../common/ballot.ts";
import type { HybridTimestamp } from "../../common/hybrid-clock.ts";
import type { Register } from "../wire.ts";
import { decideAccept, type StoredRegister, type VolatileRegister } from "./register.ts";

/**
 * What a replica does with a register that it pulled from another ([E1]). One that is settled is installed if its ballot is higher,
 * whatever was promised here: it is, or will be, what every reader finds. One of open outcome only as an ACCEPT would be, since a minority's
 * write that spreads would break a condition judged in between; but a replica that does not vote has promised nothing to anyone.
 */
export const decideInstall = (
  stored: StoredRegister | undefined,
  memory: VolatileRegister | undefined,
  floor: HybridTimestamp,
  pulled: Register,
  isVoting: boolean,
): "install" | "confirm" | "skip" => {
  if (stored !== undefined && stored.ballot >= pulled.ballot) {
    const isNews = stored.version === pulled.version && stored.state === "accepted" && pulled.state !== "accepted";
    return isNews ? "confirm" : "skip";
  }
  if (pulled.state !== "accepted" || !isVoting) return "install";
  const proposed = { ...pulled, body: "given" as const };
  const { kind } = decideAccept(stored, memory, floor, pulled.version, pulled.ballot, proposed);
  return kind === "store" ? "install" : "skip";
};

/** An entry as replicas compare it: what it is, and how far it has come. `stamp`: the ballot of a register, the version of a row. */
export type EntryStamp = { readonly key: string; readonly stamp: Ballot; readonly isSettled: boolean };

/**
 * Keys that another replica holds in a later state than this one, in order. Both lists are of the same range and sorted by key; keys compare
 * as their bytes.
 */
export const laterThere = (here: readonly EntryStamp[], there: readonly EntryStamp[]): string[] => {
  const wanted: string[] = [];
  let at = 0;
  for (const { key, stamp, isSettled } of there) {
    while (at < here.length && (here[at]?.key ?? "") < key) at += 1;
    const own = here[at]?.key === key ? here[at] : undefined;
    if (own === undefined || own.stamp < stamp || (own.stamp === stamp && isSettled && !own.isSettled))
      wanted.push(key);
  }
  return wanted;
};

/** Those of some keys that lack nothing here but that they are settled: the same was accepted here. */
export const settledThere = (
  keys: readonly string[],
  here: readonly EntryStamp[],
  there: readonly EntryStamp[],
): ReadonlySet<string> => {
  const stamps = new Map(here.map(({ key, stamp }) => [key, stamp]));
  const asked = new Set(keys);
  return new Set(there.filter(({ key, stamp }) => asked.has(key) && stamps.get(key) === stamp).map(({ key }) => key));
};

/** What another member of a partition said of it: whether it votes there, how many entries it holds, and whether its device ever voted on anything, and whether it began together with this one. */
export type MemberAnswer = {
  readonly isVoting: boolean;
  readonly entries: number;
  readonly hasPromised: boolean;
  readonly isFounder: boolean;
};

export type JoinVerdict =
  /** Too few members have been read since this replica lost its vote. */
  | { readonly kind: "pulling" }
  /** All is here that the other members have; they are too few who vote to know that the partition was not moved to others. */
  | { readonly kind: "unheard" }
  /** All is here; promises that were forgotten may still be out. */
  | { readonly kind: "waiting" }
  /** `isFounding`: nobody has ever voted on anything. */
  | { readonly kind: "joined"; readonly isFounding: boolean };

/** R of so many. */
export const readQuorumOf = (replicaCount: number): number => replicaCount - Math.floor(replicaCount / 2);

/**
 * [M4] Whether a replica that does not vote may begin to: after it has pulled from R members that vote, or from all others, whatever they
 * are, since more than that exists nowhere among them; and not before every promise that it may have forgotten is too old to be kept. Where nobody has
 * ever held anything nobody has promised anything either: that is how an installation begins. Members of whom too few vote may all have lost that
 * the partition has others by now: then all devices there are must have been asked first.
 *
 * @param pulledFrom the members that everything was pulled from
 * @param isSafe the time for forgotten promises is over
 * @param hasHeardAll every device there is was asked whether it knows of later members
 */
export const judgeJoin = (
  replicaCount: number,
  ownEntries: number,
  pulledFrom: readonly MemberAnswer[],
  isSafe: boolean,
  hasHeardAll: boolean,
): JoinVerdict => {
  const readQuorum = readQuorumOf(replicaCount);
  const voting = pulledFrom.filter(({ isVoting }) => isVoting).length;
  const isWhole = pulledFrom.length >= replicaCount - 1;
  if (voting < readQuorum && !isWhole) return { kind: "pulling" };
  if (voting < readQuorum && !hasHeardAll) return { kind: "unheard" };
  const isFounding = isWhole && ownEntries === 0 && pulledFrom.every((one) => one.entries === 0 && !one.hasPromised);
  // One that began when nobody had voted, this replica neither: since then it has not voted either.
  const hasNeverVoted = isFounding || pulledFrom.some(({ isFounder }) => isFounder);
  return isSafe || hasNeverVoted ? { kind: "joined", isFounding } : { kind: "waiting" };
};
