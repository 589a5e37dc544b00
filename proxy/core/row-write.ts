import type { RowReply } from "../../storage-node/wire.ts";
import type { Quorum } from "./quorum.ts";
import {
  ABSENCE_LIMIT,
  absenceWaitMs,
  FIRST_WAIT_MS,
  type NoSpace,
  ROUND_LIMIT,
  type Unsent,
} from "./register-write.ts";

/** `kept`: [H4], at W devices, hand-offs among them. `old`: [E5], those that hold no row of the name may have removed a later deletion. `split`: the name is listed elsewhere by now, or will be in a moment. */
export type RowOutcome = "stored" | "kept" | "closing" | "moved" | "behind" | "old" | "split" | "unavailable";

type Obstacle = Exclude<RowReply["kind"], "stored">;

/** What says most of where the row should go instead. */
const OBSTACLES: readonly (Obstacle | undefined)[] = [undefined, "behind", "old", "closing", "split", "moved"];

const rankOf = (obstacle: Obstacle | undefined): number => OBSTACLES.indexOf(obstacle);

export type RowEffect =
  | { readonly kind: "row"; readonly round: number }
  | { readonly kind: "wait"; readonly round: number; readonly atMostMs: number }
  | { readonly kind: "done"; readonly outcome: RowOutcome };

/**
 * One ROW at N replicas of a row space ([B1]): W stored ones decide, else what stood in the way. Where too few answered it is sent again
 * after a wait, as long as a register's write is: a row may come any number of times, and its version is established already.
 *
 *     sending ──W stored, or an answer in the way of W──▶ done
 *        ▲  └─W impossible, nothing in the way──▶ waiting
 *        └───────────────────────────────────────────┘      the last time, or where W lacked space: done, unavailable
 */
export class RowWrite {
  #quorum: Quorum;
  #round = 0;
  #isSending = false;
  #stored = 0;
  #missing = 0;
  #absences = 0;
  #isAbsent = false;
  #lacksSpace = false;
  #obstacle: Obstacle | undefined;

  constructor(quorum: Quorum) {
    this.#quorum = quorum;
  }

  /** The partition has another configuration ([M1]): what was sent is sent anew. Undefined while nothing is. */
  onEpoch(quorum: Quorum): RowEffect | undefined {
    this.#quorum = quorum;
    return this.#isSending ? this.start() : undefined;
  }

  start(): RowEffect {
    this.#round += 1;
    this.#isSending = true;
    this.#stored = 0;
    this.#missing = 0;
    this.#isAbsent = false;
    this.#lacksSpace = false;
    this.#obstacle = undefined;
    return { kind: "row", round: this.#round };
  }

  /** The answer of `replica` to the ROW of `round`, undefined when it failed or did not answer in time. */
  onReply(round: number, reply: RowReply | NoSpace | Unsent | undefined, replica: number): RowEffect | undefined {
    if (round !== this.#round || !this.#isSending) return undefined;
    if (reply?.kind === "stored") {
      this.#stored += this.#quorum.weightOf(replica);
      return this.#quorum.suffices(this.#stored) ? this.#done("stored") : undefined;
    }
    this.#missing += this.#quorum.weightOf(replica);
    if (reply?.kind === "no-space") this.#lacksSpace = true;
    else if (reply?.kind === "unsent") this.#isAbsent = true;
    else if (reply !== undefined && rankOf(reply.kind) > rankOf(this.#obstacle)) this.#obstacle = reply.kind;
    if (this.#quorum.survives(this.#missing)) return undefined;
    if (this.#obstacle !== undefined) return this.#done(this.#obstacle);
    if (this.#isAbsent) this.#absences += 1;
    const attempts = this.#round - this.#absences;
    if (this.#lacksSpace || attempts >= ROUND_LIMIT || this.#absences >= ABSENCE_LIMIT)
      return this.#done("unavailable");
    this.#isSending = false;
    const atMostMs = this.#isAbsent ? absenceWaitMs(this.#absences) : FIRST_WAIT_MS * 2 ** attempts;
    return { kind: "wait", round: this.#round, atMostMs };
  }

  /** The wait of `round` is over. */
  onTimer(round: number): RowEffect | undefined {
    return round === this.#round && !this.#isSending ? this.start() : undefined;
  }

  #done(outcome: RowOutcome): RowEffect {
    // Later answers belong to a round that is over.
    this.#round += 1;
    this.#isSending = false;
    return { kind: "done", outcome };
  }
}
