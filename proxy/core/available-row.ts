import type { RowReply } from "../../storage-node/wire.ts";
import { CopyCount } from "./hand-off-keep.ts";
import type { Quorum } from "./quorum.ts";
import type { NoSpace, Unsent } from "./register-write.ts";
import type { RowOutcome } from "./row-write.ts";

export type AvailableRowEffect =
  | { readonly kind: "row"; readonly round: number }
  /** The row to the hand-off at `index`. */
  | { readonly kind: "keep"; readonly round: number; readonly index: number }
  | { readonly kind: "done"; readonly outcome: RowOutcome };

/** Members that say so know more than one that is away. One that is "behind" has not heard of the container, and says nothing of it. */
const OBSTACLES = ["old", "closing", "split", "moved"] as const satisfies readonly RowOutcome[];
type Obstacle = (typeof OBSTACLES)[number];

const obstacleOf = (reply: RowReply | NoSpace | Unsent | undefined): Obstacle | undefined =>
  OBSTACLES.find((obstacle) => obstacle === reply?.kind);

/**
 * One ROW under policy `available` (`hand-off-keep.ts`): at W members, else at hand-offs too, where no member says that it belongs elsewhere.
 *
 *     sending ──W stored──▶ done: stored
 *        └─W impossible──▶ done: what a member says ─── or, where none does ──▶ keeping ──▶ done: kept, or unavailable
 */
export class AvailableRow {
  readonly #handOffCount: number;
  #quorum: Quorum;
  #copies: CopyCount;
  #isDone = false;
  #round = 0;
  #obstacle: Obstacle | undefined;

  constructor(quorum: Quorum, handOffCount: number) {
    this.#quorum = quorum;
    this.#handOffCount = handOffCount;
    this.#copies = new CopyCount(quorum, handOffCount);
  }

  start(): readonly AvailableRowEffect[] {
    this.#round += 1;
    this.#copies = new CopyCount(this.#quorum, this.#handOffCount);
    this.#obstacle = undefined;
    return [{ kind: "row", round: this.#round }];
  }

  /** The partition has another configuration ([M1]): what was sent is sent anew. */
  onEpoch(quorum: Quorum): readonly AvailableRowEffect[] {
    this.#quorum = quorum;
    return this.#isDone ? NOTHING : this.start();
  }

  /** The answer of member `replica`; undefined when it failed, did not answer in time, or is a suspect. It may still store it after that. */
  onReply(
    round: number,
    reply: RowReply | NoSpace | Unsent | undefined,
    replica: number,
  ): readonly AvailableRowEffect[] {
    if (round !== this.#round || this.#isDone) return NOTHING;
    const copies = this.#copies;
    copies.onMember(replica, reply?.kind === "stored");
    this.#obstacle ??= obstacleOf(reply);
    if (copies.isAtMembers) return this.#done("stored");
    if (copies.isPossible) return NOTHING;
    return this.#obstacle === undefined ? this.#keep(copies.wanting()) : this.#done(this.#obstacle);
  }

  /** Whether a hand-off has it durably. */
  onKept(round: number, isKept: boolean): readonly AvailableRowEffect[] {
    return round !== this.#round || this.#isDone ? NOTHING : this.#keep(this.#copies.onHandOff(isKept));
  }

  #keep(asked: readonly number[]): readonly AvailableRowEffect[] {
    if (this.#copies.isKept) return this.#done("kept");
    if (this.#copies.isHopeless) return this.#done("unavailable");
    return asked.map((index) => ({ kind: "keep", round: this.#round, index }));
  }

  #done(outcome: RowOutcome): readonly AvailableRowEffect[] {
    this.#isDone = true;
    return [{ kind: "done", outcome }];
  }
}

const NOTHING: readonly AvailableRowEffect[] = [];
