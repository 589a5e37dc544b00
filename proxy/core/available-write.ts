import type { Ballot } from "../../common/ballot.ts";
import type { AcceptReply, Register } from "../../storage-node/wire.ts";
import { CopyCount } from "./hand-off-keep.ts";
import type { Quorum } from "./quorum.ts";
import type { NoSpace, Unsent, WriteOutcome, WriteRecord } from "./register-write.ts";

/** Ballots that one write takes before its outcome is called unknown: each was refused for a higher one's sake. */
const BALLOT_LIMIT = 6;

/** What became of one KEEP. `refused`: the hand-off keeps a higher ballot of the name. */
export type KeepReply = "kept" | "refused" | "failed";

export type AvailableEffect =
  | { readonly kind: "accept"; readonly round: number; readonly version: Ballot; readonly record: WriteRecord }
  /** One copy to the hand-off at `index`. */
  | {
      readonly kind: "keep";
      readonly round: number;
      readonly index: number;
      readonly version: Ballot;
      readonly record: WriteRecord;
    }
  | { readonly kind: "done"; readonly outcome: WriteOutcome };

/** What a hand-off is given to keep of a version. */
export const copyToKeep = (version: Ballot, record: WriteRecord): Register => {
  const { bodyLength, bodyVersion = version, isTombstone, metadata } = record;
  return { version, ballot: version, state: "accepted", bodyVersion, isTombstone, bodyLength, metadata };
};

/**
 * One plain write under policy `available` (`hand-off-keep.ts` has the rules):
 *
 *     accepting ──W accepted──▶ done: established
 *         │  ├─W impossible, a member refused──▶ accepting, a new version above what it told of     [H2]
 *         │  └─the same, for a later life of the container──▶ done: outdated
 *         └─W impossible──▶ keeping ──W members and hand-offs──▶ done: established, kept            [H3]
 *                              │ └─a member or a hand-off refused──▶ accepting, a new version       [H2]
 *                              └─too few──▶ done: unknown
 *
 * It never asks for promises: nothing hangs on whether an earlier version of the same write takes effect, since a later one of the same content covers it.
 */
export class AvailableWrite {
  readonly #record: WriteRecord;
  readonly #newBallot: () => Ballot;
  readonly #handOffCount: number;
  #quorum: Quorum;
  #copies: CopyCount;
  #isDone = false;
  #version: Ballot;
  /** Which version the body belongs to that came first: it lies with some under that name. */
  readonly #first: Ballot;
  #round = 0;
  /** In which the version was sent first: refusals of all rounds since then are its own. */
  #versionRound = 1;
  #ballots = 1;
  #isRefused = false;
  /** The highest ballot that a refusing member told of. */
  #seen: Ballot | undefined;
  /** Every version that it proposed. */
  readonly #own: Ballot[];

  constructor(quorum: Quorum, record: WriteRecord, newBallot: () => Ballot, handOffCount: number) {
    this.#quorum = quorum;
    this.#record = record;
    this.#newBallot = newBallot;
    this.#handOffCount = handOffCount;
    this.#copies = new CopyCount(quorum, handOffCount);
    this.#version = newBallot();
    this.#first = this.#version;
    this.#own = [this.#version];
  }

  start(): readonly AvailableEffect[] {
    this.#round += 1;
    this.#copies = new CopyCount(this.#quorum, this.#handOffCount);
    return [{ kind: "accept", round: this.#round, version: this.#version, record: this.#proposed() }];
  }

  /** The partition has another configuration ([M1]): what was sent is sent anew. */
  onEpoch(quorum: Quorum): readonly AvailableEffect[] {
    this.#quorum = quorum;
    return this.#isDone ? NOTHING : this.start();
  }

  /** The answer of member `replica`; undefined when it failed, did not answer in time, or is a suspect. It may still accept after that. */
  onAccept(
    round: number,
    reply: AcceptReply | NoSpace | Unsent | undefined,
    replica: number,
  ): readonly AvailableEffect[] {
    if (this.#isDone) return NOTHING;
    const copies = this.#copies;
    // [H2]: who refuses it holds a higher ballot, be it as a member of an epoch before, or asked for an earlier version.
    const isRefusal = reply?.kind === "refused" && (round >= this.#versionRound || reply.seen > this.#version);
    if (isRefusal) {
      this.#isRefused = true;
      if (this.#seen === undefined || reply.seen > this.#seen) this.#seen = reply.seen;
    }
    if (round === this.#round) copies.onMember(replica, reply?.kind === "accepted");
    else if (!isRefusal) return NOTHING;
    if (copies.isAtMembers) return this.#established(false);
    if (copies.isPossible) return NOTHING;
    return this.#isRefused ? this.#anew() : this.#keep(copies.wanting());
  }

  /**
   * The answer of a hand-off that was asked.
   * @param kept the ballot that it keeps, where it refused
   */
  onKept(round: number, reply: KeepReply, kept?: Ballot): readonly AvailableEffect[] {
    if (this.#isDone) return NOTHING;
    const asked = round === this.#round ? this.#copies.onHandOff(reply === "kept") : NOBODY;
    const isRefusal = reply === "refused" && (round >= this.#versionRound || (kept ?? "") > this.#version);
    if (isRefusal) this.#isRefused = true;
    else if (round !== this.#round) return NOTHING;
    if (!this.#isRefused) return this.#keep(asked);
    // Below what is there already only W members make it a success: who was given up may have answered meanwhile.
    return this.#copies.isPossible ? NOTHING : this.#anew();
  }

  #anew(): readonly AvailableEffect[] {
    // No ballot of this life is above one of a later life: the container that it is for is gone.
    if (this.#seen !== undefined && lifeIn(this.#seen) > lifeIn(this.#version))
      return this.#done({ kind: "outdated", seen: this.#seen, own: this.#own });
    if (this.#ballots >= BALLOT_LIMIT) return this.#done({ kind: "unknown" });
    this.#ballots += 1;
    this.#version = this.#newBallot();
    this.#own.push(this.#version);
    this.#versionRound = this.#round + 1;
    this.#isRefused = false;
    return this.start();
  }

  #proposed(): WriteRecord {
    const isFirst = this.#version === this.#first;
    return isFirst || this.#record.body === "none" ? this.#record : { ...this.#record, bodyVersion: this.#first };
  }

  #keep(asked: readonly number[]): readonly AvailableEffect[] {
    if (this.#copies.isKept) return this.#established(true);
    if (this.#copies.isHopeless) return this.#done({ kind: "unknown" });
    const record = this.#proposed();
    return asked.map((index) => ({ kind: "keep", round: this.#round, index, version: this.#version, record }));
  }

  #established(isKept: boolean): readonly AvailableEffect[] {
    const version = this.#version;
    return this.#done({
      kind: "established",
      version,
      ballot: version,
      base: undefined,
      isConfirmed: false,
      isKept,
      liveRows: undefined,
    });
  }

  #done(outcome: WriteOutcome): readonly AvailableEffect[] {
    this.#isDone = true;
    return [{ kind: "done", outcome }];
  }
}

const NOTHING: readonly AvailableEffect[] = [];
const NOBODY: readonly number[] = [];

const lifeIn = (ballot: Ballot): string => ballot.slice(0, 24);
