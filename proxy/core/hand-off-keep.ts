import type { Quorum } from "./quorum.ts";

/** Devices that stand in for absent members, at most: so many are asked for one write, and for one read. */
export const handOffLimit = (memberCount: number): number => 2 * memberCount;

/** Whether hand-offs may keep an object's version and its rows ([H3], [H8]): where its container is of policy `available`, and the write has no condition. */
export const mayBeKept = (isAvailable: boolean, write: "plain" | "conditional"): boolean =>
  isAvailable && write === "plain";

/**
 * Hand-offs: devices that keep what absent members of a partition should, under policy `available` alone (PROTOCOL section 9).
 *
 *     members: W impossible, nobody refused ──▶ asking, one hand-off for each copy that lacks ──all kept──▶ done: kept
 *                                                  │  └─one fails──▶ the next of the order is asked
 *                                                  └─none is left──▶ done: not kept (503, unknown)
 *
 *     hand-off:  nothing ──KEEP──▶ kept ──each member of the newest epoch: taken, or has later, or forgot a later deletion──▶ dropped
 *                                   ▲ └─ one member fails, refuses, or is of another epoch: the next round begins anew
 *                                   └── KEEP of a higher ballot replaces it, one of a lower is refused
 *
 *     member:    TAKE ──its version is later──▶ accepted, whatever was promised; whoever finishes it writes its row and confirms it ([B7])
 *                  └──else──▶ nothing changes, and the hand-off may drop its copy
 *
 * The rules, with what goes wrong without each:
 *
 * - [H1] A hand-off is a device that is no member, in the order of the ring, devices on nodes without a member before others; at most `handOffLimit`. What it keeps lies
 *   under keys of its own: it is never listed, read, promised or compared as a member's. *Else: a copy votes.*
 * - [H2] One is asked when so many members failed, lack space or are suspects that W is impossible. Whoever *refuses*, a member or a hand-off that keeps a higher ballot,
 *   and however late, lets the write begin anew with a ballot above it. *Else: a write is acknowledged below what is there already, and never seen.*
 * - [H3] A copy counts towards W of a plain write and its rows, never of a condition, a promise, or what is finished. *Else: two conditions hold.*
 * - [H4] What a hand-off counted for is not confirmed by its writer: whoever finishes it later does that with W members and W rows. *Else: a confirmed object without a
 *   row, which no listing ever shows.*
 * - [H5] A read asks members; where fewer than R answer, it goes on with all hand-offs, and gives the highest ballot of what it hears from R devices, one of them a member for
 *   what is a container's record. That nothing is there, R members say, never hand-offs. *Else: an acknowledged write cannot be read while those are away for whom it was
 *   kept, or what they hold is answered 404.*
 * - [H6] A copy is dropped after every member of one epoch, the newest that any of them knows, has said durably that it has it or a later version, and nobody holds a promise to finish an earlier one over it. *Else: the only copy goes.*
 * - [H7] Where a member holds nothing of a name and its mark of forgotten deletions is at or above the copy, the copy counts as overtaken: it was on its way for longer than
 *   the reclaim age. *Else: what was deleted comes back.*
 * - [H8] Under `strong` nobody asks a hand-off for anything.
 */
export class HandOffKeep {
  readonly #count: number;
  #wanted = 0;
  #kept = 0;
  #underWay = 0;
  #next = 0;

  /** @param count hand-offs that there are */
  constructor(count: number) {
    this.#count = count;
  }

  /** Copies that are durable. */
  get kept(): number {
    return this.#kept;
  }

  /** Whether fewer copies can be had than are wanted. */
  get isExhausted(): boolean {
    return this.#kept + this.#underWay < this.#wanted;
  }

  /** So many copies are wanted in all. Gives the hand-offs that are to be asked now, by their places in the partition's order. */
  want(copies: number): readonly number[] {
    this.#wanted = copies;
    return this.#ask();
  }

  /** One that was asked has it durably, or not. Gives those that are to be asked now. */
  onReply(isKept: boolean): readonly number[] {
    this.#underWay -= 1;
    if (isKept) this.#kept += 1;
    return this.#ask();
  }

  #ask(): readonly number[] {
    const asked: number[] = [];
    while (this.#kept + this.#underWay < this.#wanted && this.#next < this.#count) {
      asked.push(this.#next);
      this.#next += 1;
      this.#underWay += 1;
    }
    return asked;
  }
}

/**
 * Who has what one write under `available` sends: members that have it, members that were given up, which may yet have it, and hand-offs.
 */
export class CopyCount {
  readonly #quorum: Quorum;
  readonly #keep: HandOffKeep;
  /** A tally of the quorum. */
  #had = 0;
  readonly #having = new Set<number>();
  readonly #missed = new Set<number>();

  constructor(quorum: Quorum, handOffCount: number) {
    this.#quorum = quorum;
    // A partition on its way to other members is waited for.
    this.#keep = new HandOffKeep(quorum.isJoint ? 0 : handOffCount);
  }

  /** Whether W members have it. */
  get isAtMembers(): boolean {
    return this.#quorum.suffices(this.#had);
  }

  /** Whether W devices have it. */
  get isKept(): boolean {
    return !this.#quorum.isJoint && this.#having.size + this.#keep.kept >= this.#quorum.promiseCount;
  }

  /** Whether W members can have it yet. */
  get isPossible(): boolean {
    return this.#quorum.survives(this.#lackingTally);
  }

  get isHopeless(): boolean {
    return !this.isPossible && (this.#quorum.isJoint || this.#keep.isExhausted);
  }

  onMember(member: number, hasIt: boolean): void {
    if (!hasIt) this.#missed.add(member);
    else if (!this.#having.has(member)) {
      this.#having.add(member);
      this.#had += this.#quorum.weightOf(member);
    }
  }

  /** Hand-offs that are to be asked for copies which members will not have. */
  wanting(): readonly number[] {
    const { memberCount, promiseCount } = this.#quorum;
    return this.#keep.want(promiseCount - (memberCount - this.#lacking.length));
  }

  onHandOff(isKept: boolean): readonly number[] {
    return this.#keep.onReply(isKept);
  }

  get #lacking(): readonly number[] {
    return [...this.#missed].filter((member) => !this.#having.has(member));
  }

  get #lackingTally(): number {
    return this.#lacking.reduce((tally, member) => tally + this.#quorum.weightOf(member), 0);
  }
}
