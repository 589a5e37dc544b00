import { type Ballot, ballotOver, type Incarnation } from "../../common/ballot.ts";
import type { HybridTimestamp } from "../../common/hybrid-clock.ts";
import type { Register, RowReply } from "../wire.ts";
import { isAtOrBelow } from "./reclaim.ts";
import type { KnownContainer } from "./row-admission.ts";

const LIFE_DIGITS = 24;

const lifeIn = (ballot: Ballot): Incarnation => ballot.slice(0, LIFE_DIGITS) as Incarnation;

/** Whether a hand-off stores what it is given beside what it keeps of the same name: the higher ballot is what goes home. */
export const isNewsToKeeper = (kept: Ballot | undefined, given: Ballot): boolean => kept === undefined || kept < given;

/**
 * What a member does with a register that a hand-off kept for it, whatever it promised: under policy `available` the later *version* wins when they meet
 * (`proxy/core/hand-off-keep.ts`). Not the higher ballot: who finished an earlier version did so under a ballot of his own, maybe after this one was acknowledged, and has not
 * asked hand-offs. *Else: an acknowledged write is overtaken by what it overwrote.*
 *
 * - `has`: it holds that version, or a later one, or something of a later life of the container.
 * - `forgotten`: [H7] it holds nothing of the name, and has forgotten deletions as late.
 * - `take`: it stores the version as accepted, under `ballotOfTake`; who finishes it writes its row.
 *
 * @param mark how late deletions were that the member has forgotten in the partition
 */
export const decideTake = (
  stored: Register | undefined,
  mark: HybridTimestamp,
  copy: Pick<Register, "version" | "ballot">,
): "has" | "forgotten" | "take" => {
  if (stored === undefined) return isAtOrBelow(copy.ballot, mark) ? "forgotten" : "take";
  return stored.version >= copy.version || lifeIn(stored.ballot) > lifeIn(copy.version) ? "has" : "take";
};

/**
 * Under which ballot a member stores what it takes: its own where that is above what the member holds, else the one that is held with the copy's version behind it
 * (`ballotOver`). Who accepted the earlier version under the ballot that is held had W promises for it, so what took effect below that ballot is older still; what took
 * effect since is above it, and stays above, since no ballot that anybody proposes lies in between.
 *
 * Two versions never have one ballot, whatever copies members take over what, and in whichever order: who proposes a ballot sends one version under it, and what is stored
 * over a ballot has its version in its own. *Else: W members accept one ballot, each of them another version, and readers take that for a decision.*
 */
export const ballotOfTake = (copy: Pick<Register, "version" | "ballot">, held: Ballot | undefined): Ballot =>
  held === undefined || held < copy.ballot ? copy.ballot : ballotOver(held, copy.version);

/** "wanted": with its body, please. "unsettled": offer it again. "settled": it is not needed any more as far as this member goes. */
export type TakeAnswer = "settled" | "unsettled" | "wanted";
export type Taken = { readonly answer: TakeAnswer; readonly hasUsedBody: boolean };

/**
 * [H6] Whether a member that holds a version, or a later one than what was kept, holds it for good. Who has a promise of a higher ballot may have had it before that version came, and
 * finish an earlier one over it. Whoever finishes what is held goes above the promise.
 */
export const isTakeSettled = (held: Pick<Register, "ballot" | "state">, promise: Ballot | undefined): boolean =>
  held.state !== "accepted" || promise === undefined || promise <= held.ballot;

/**
 * [H7] Whether a container's life is over for a row that was kept, where a member that votes holds nothing of the container: deletions as late as the life's beginning are
 * forgotten there. So it began longer ago than the reclaim age, and who votes has heard of what lives so long. *Else: the row of a container that is gone is kept for ever.*
 * A writer is not answered so: to it, a member that has yet to hear of something says nothing of it.
 */
export const isLifeForgotten = (
  known: KnownContainer | undefined,
  incarnation: Incarnation,
  mark: HybridTimestamp,
): boolean => known === undefined && (incarnation.slice(0, 16) as HybridTimestamp) <= mark;

/**
 * [H6] Whether what a member says to a kept row lets the hand-off drop it as far as this member goes. "moved" and "old" say that it is over; "split" that names are listed
 * elsewhere by now, where whoever finishes the object writes the row, since its version is not confirmed ([H4]). A member that is "behind", or whose container is closing, is
 * asked again.
 */
export const isRowSettled = (reply: RowReply["kind"]): boolean => reply !== "behind" && reply !== "closing";
