import { type HybridTimestamp, millisecondsOf } from "../../common/hybrid-clock.ts";
import { type Ballot, timestampIn } from "../../common/ballot.ts";
import type { Configuration, Register } from "../wire.ts";

/**
 * When what says that something was deleted may go ([E2], [E5]), as pure functions. A tombstone, or a deleted row, that one replica forgot would let
 * what it deleted come back from a replica or a message that is behind; so it goes only where every member has it, and its remover refuses from then on
 * whatever is as old.
 *
 *     deleted ──older than the reclaim age──▶ asked of all members ──all hold it──────────────────────────▶ mark raised, entry gone (one commit)
 *        ▲                                         │  └─some have forgotten it──▶ those are asked again ──the same──▶ ┘
 *        │                                         └─one does not confirm, or is away──▶ ┐
 *        └───────────────────────────────────────────────────────────────────────────────┘ the next round
 *
 * What has to hold afterwards, for ever, is that no member who votes holds anything older of the name: then it comes back from nobody. Who holds the deletion
 * holds nothing older until it forgets it itself. Who holds nothing may just be pulling something older from one who has not heard of the deletion yet,
 * and did when it was asked in its turn. So whoever confirmed by its mark is asked again once all have confirmed: that it holds nothing still says that in the
 * moment between nobody held anything older, and with each such answer it throws away what it had asked for before ([E3]).
 *
 * [E6] A device that lost its votes may have lost the deletion and kept what it deleted. Before it votes in a partition it takes over the marks of those
 * that it pulls from, and what it kept goes where R of them, who vote, hold nothing of the name, and it is at or below their mark: it was forgotten, or never
 * established, since W−1 others would have had it and R of N−1 meet one of these. That is what [M4] allows of an emptied device, done to no more than
 * it has to be. Until then nobody takes from it what is at or below his own mark and of which he holds nothing.
 */
export type Doomed = { readonly key: Uint8Array; readonly ballot: Ballot };

const isOlder = (ballot: Ballot, olderThanMs: number): boolean => millisecondsOf(timestampIn(ballot)) < olderThanMs;

/** Whether a register may be asked about: a settled deletion from before that moment. */
export const isReclaimable = (
  register: Pick<Register, "ballot" | "isTombstone" | "state">,
  olderThanMs: number,
): boolean => register.isTombstone && register.state !== "accepted" && isOlder(register.ballot, olderThanMs);

/** The same of a deleted row. */
export const isRowReclaimable = (version: Ballot, olderThanMs: number): boolean => isOlder(version, olderThanMs);

/** What another member says of a deletion that is to go: it holds that or something later, or it holds nothing and takes nothing as old any more; or it must stay. */
export type ReclaimWord = "held" | "forgotten" | "kept";

/** @param held ballot of the register, or version of the row, that it holds under the name */
export const confirmsReclaim = (held: Ballot | undefined, asked: Ballot, mark: HybridTimestamp): ReclaimWord => {
  if (held !== undefined) return held >= asked ? "held" : "kept";
  return isAtOrBelow(asked, mark) ? "forgotten" : "kept";
};

/** Whether something of a name that nothing is held of may be from before a deletion that was forgotten. */
export const isAtOrBelow = (ballot: Ballot, mark: HybridTimestamp): boolean => timestampIn(ballot) <= mark;

/** Who has to confirm: all other members, while nobody comes or goes; undefined where nothing may be removed now. */
export const reclaimWitnesses = ({ next, old }: Configuration, self: string): readonly string[] | undefined => {
  if (next !== undefined || !old.some(({ id }) => id === self)) return undefined;
  return old.flatMap(({ id }) => (id === self ? [] : [id]));
};
