import { randomBytes } from "node:crypto";
import { type Ballot, ballotOf, type Incarnation, timestampIn } from "../../common/ballot.ts";
import { type HybridClock, type HybridTimestamp, millisecondsOf, TIMESTAMP_ZERO } from "../../common/hybrid-clock.ts";
import type { Clock } from "../../common/clock.ts";

/** What is heard further ahead than this is not followed: one wrong clock must not drag all others along. */
const FOLLOW_LIMIT_MS = 30_000;

/** The ballots of one proxy process: unique by a random process number, above all that it heard of. */
export class Ballots {
  readonly #hybrid: HybridClock;
  readonly #clock: Clock;
  readonly #process = randomBytes(4).toString("hex");
  /** The latest timestamp that was followed: most of what is heard is older. */
  #heard: HybridTimestamp = TIMESTAMP_ZERO;

  constructor(hybrid: HybridClock, clock: Clock) {
    this.#hybrid = hybrid;
    this.#clock = clock;
  }

  next(incarnation: Incarnation): Ballot {
    return ballotOf(incarnation, this.#hybrid.next(), this.#process);
  }

  /** What is not above it is refused from now on. */
  passed(floor: HybridTimestamp): void {
    this.#follow(floor);
  }

  heard(ballot: Ballot, floor?: HybridTimestamp): void {
    this.#follow(timestampIn(ballot));
    if (floor !== undefined) this.#follow(floor);
  }

  #follow(timestamp: HybridTimestamp): void {
    if (timestamp <= this.#heard) return;
    this.#heard = timestamp;
    if (millisecondsOf(timestamp) - this.#clock.nowMs() < FOLLOW_LIMIT_MS) this.#hybrid.advancePast(timestamp);
  }
}
