import type { RowReply } from "../../storage-node/wire.ts";

export type RowOutcome = "stored" | "closing" | "moved" | "behind" | "unavailable";

/** Counts the answers to one ROW at N replicas of a row space ([B1]): W stored ones decide, else what stood in the way. */
export class RowQuorum {
  readonly #replicaCount: number;
  readonly #writeQuorum: number;
  #stored = 0;
  #answered = 0;
  #obstacle: "closing" | "moved" | "behind" | undefined;

  constructor(replicaCount: number) {
    this.#replicaCount = replicaCount;
    this.#writeQuorum = Math.floor(replicaCount / 2) + 1;
  }

  /** One replica's answer, undefined when it failed; the outcome once it is decided, exactly once. */
  onReply(reply: RowReply | undefined): RowOutcome | undefined {
    const wasDecided = this.#isDecided();
    this.#answered += 1;
    if (reply?.kind === "stored") this.#stored += 1;
    else if (reply?.kind === "moved" || reply?.kind === "old") this.#obstacle = "moved";
    else if (reply?.kind === "closing" && this.#obstacle !== "moved") this.#obstacle = "closing";
    else if (reply?.kind === "behind") this.#obstacle ??= "behind";
    if (wasDecided || !this.#isDecided()) return undefined;
    return this.#stored >= this.#writeQuorum ? "stored" : (this.#obstacle ?? "unavailable");
  }

  #isDecided(): boolean {
    return this.#stored >= this.#writeQuorum || this.#answered - this.#stored > this.#replicaCount - this.#writeQuorum;
  }
}
