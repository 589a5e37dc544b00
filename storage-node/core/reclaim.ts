import { type HybridTimestamp, millisecondsOf } from "../../common/hybrid-clock.ts";
import { type Ballot, timestampIn } from "../../common/ballot.ts";
import type { Configuration, Register } from "../wire.ts";

/**
 * When what says that something was deleted may go ([E2], [E5]), as pure functions. A tombstone, or a deleted row, that one replica forgot would let
 * what it deleted come back from a replica or a message that is behind; so it goes only where every member has it, and its remover refuses from then on
 * whatever is as old.
 *
 *     deleted ──older than the reclaim age──▶ asked of all members ──all confirm──▶ mark raised, entry gone (one commit)
 *        ▲                                         └─one does not, or is away──▶ ┐
 *        └───────────────────────────────────────────────────────────────────────┘ the next round
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

/**
 * What another member says of a deletion that is to go: it holds that or something later, or it holds nothing and takes nothing as old any more.
 *
 * @param held ballot of the register, or version of the row, that it holds under the name
 */
export const confirmsReclaim = (held: Ballot | undefined, asked: Ballot, mark: HybridTimestamp): boolean =>
  held === undefined ? timestampIn(asked) <= mark : held >= asked;

/** Who has to confirm: all other members, while nobody comes or goes; undefined where nothing may be removed now. */
export const reclaimWitnesses = ({ next, old }: Configuration, self: string): readonly string[] | undefined => {
  if (next !== undefined || !old.some(({ id }) => id === self)) return undefined;
  return old.flatMap(({ id }) => (id === self ? [] : [id]));
};
