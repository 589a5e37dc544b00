import type { Ballot } from "../../common/ballot.ts";
import type { AcceptReply, Fate, PrepareReply, Register } from "../../storage-node/wire.ts";

/**
 * One write of one name: PROTOCOL section 3, and the finishing of an unsettled version of section 4 ([R2]), as a state machine.
 *
 *     plain  ──▶ accepting ──W accepted──▶ done: established
 *                 │   └─all refused, all fates never──▶ accepting (a new version)          [W1]
 *                 └─W impossible──▶ preparing
 *     conditional ──▶ preparing ──W promises──▶ (a) an own version is confirmed ──▶ done: established   [W2]
 *                      ▲   │                    (b) the highest is own ──▶ accepting (same version)
 *                      │   │                    (c) none can take effect ──▶ decide ──▶ accepting (a new version)
 *                      │   │                                                    ├──▶ done: stopped       [C2]
 *                      │   │                                                    └──▶ done: unfinished    [C1]
 *                      │   └─(d) cannot tell ──▶ waiting ──▶ preparing, in the end done: unknown          [W3]
 *     finish ──▶ accepting (the version found)  ──▶ done: established, or superseded
 */
export type WriteRecord = {
  readonly isTombstone: boolean;
  readonly bodyLength: number;
  readonly metadata: Uint8Array;
  /** "given": the caller's body comes with it; "keep": the body of `bodyVersion` stays where it is ([C3]). */
  readonly body: "none" | "given" | "keep";
  /** Which version brought the body; undefined: this one. */
  readonly bodyVersion: Ballot | undefined;
};

/** What a write under `ballot` does given the settled base: undefined is a name that nobody wrote. */
type Decide = (base: Register | undefined, ballot: Ballot) => WriteRecord | "stop";

export type WriteMode =
  | { readonly kind: "plain"; readonly record: WriteRecord }
  | { readonly kind: "conditional"; readonly decide: Decide }
  | { readonly kind: "finish"; readonly version: Ballot; readonly ballot: Ballot; readonly record: WriteRecord };

export type WriteOutcome =
  | {
      readonly kind: "established";
      readonly version: Ballot;
      readonly ballot: Ballot;
      readonly base: Register | undefined;
    }
  | { readonly kind: "stopped"; readonly base: Register | undefined }
  | { readonly kind: "unfinished"; readonly base: Register }
  | { readonly kind: "superseded" }
  | { readonly kind: "unknown" };

export type WriteEffect =
  | {
      readonly kind: "accept";
      readonly round: number;
      readonly version: Ballot;
      readonly ballot: Ballot;
      readonly record: WriteRecord;
      readonly own: readonly Ballot[];
    }
  | { readonly kind: "prepare"; readonly round: number; readonly ballot: Ballot; readonly own: readonly Ballot[] }
  | { readonly kind: "wait"; readonly round: number; readonly atMostMs: number }
  | { readonly kind: "done"; readonly outcome: WriteOutcome };

/** Slow rounds before the outcome is called unknown. */
const ATTEMPT_LIMIT = 12;
const FIRST_WAIT_MS = 4;

type Promised = { readonly register: Register | undefined; readonly fates: readonly Fate[] };

type State =
  | {
      readonly kind: "accepting";
      readonly version: Ballot;
      readonly ballot: Ballot;
      accepted: number;
      readonly refusedFates: (readonly Fate[])[];
      failed: number;
    }
  | {
      readonly kind: "preparing";
      readonly ballot: Ballot;
      readonly promises: Promised[];
      refused: number;
      failed: number;
    }
  | { readonly kind: "waiting" }
  | { readonly kind: "done" };

export class RegisterWrite {
  readonly #replicaCount: number;
  readonly #writeQuorum: number;
  readonly #readQuorum: number;
  readonly #mode: WriteMode;
  readonly #newBallot: () => Ballot;
  readonly #own: Ballot[] = [];
  readonly #records = new Map<Ballot, WriteRecord>();
  #base: Register | undefined;
  #state: State = { kind: "waiting" };
  #round = 0;
  #attempts = 0;

  /** `newBallot` gives ballots above every one that the proxy heard of. */
  constructor(replicaCount: number, mode: WriteMode, newBallot: () => Ballot) {
    this.#replicaCount = replicaCount;
    this.#writeQuorum = Math.floor(replicaCount / 2) + 1;
    this.#readQuorum = replicaCount - this.#writeQuorum + 1;
    this.#mode = mode;
    this.#newBallot = newBallot;
  }

  start(): WriteEffect {
    switch (this.#mode.kind) {
      case "plain":
        return this.#propose(this.#newBallot(), this.#mode.record);
      case "conditional":
        return this.#prepare();
      case "finish":
        this.#own.push(this.#mode.version);
        this.#records.set(this.#mode.version, this.#mode.record);
        return this.#accept(this.#mode.version, this.#mode.ballot);
    }
  }

  /** A replica's answer to the ACCEPT of `round`; undefined when it failed or did not answer in time. */
  onAccept(round: number, reply: AcceptReply | undefined): WriteEffect | undefined {
    const state = this.#state;
    if (round !== this.#round || state.kind !== "accepting") return undefined;
    if (reply?.kind === "accepted") {
      state.accepted += 1;
      if (state.accepted < this.#writeQuorum) return undefined;
      return this.#done({ kind: "established", version: state.version, ballot: state.ballot, base: this.#base });
    }
    if (reply?.kind === "refused") state.refusedFates.push(reply.fates);
    else state.failed += 1;
    const missing = state.refusedFates.length + state.failed;
    if (missing <= this.#replicaCount - this.#writeQuorum) return undefined;
    const areAllNever =
      state.accepted === 0 &&
      state.failed === 0 &&
      state.refusedFates.every((fates) => fates.every((fate) => fate === "never"));
    if (areAllNever && this.#mode.kind === "plain") {
      if (missing < this.#replicaCount) return undefined;
      this.#attempts += 1;
      if (this.#attempts < ATTEMPT_LIMIT) return this.#propose(this.#newBallot(), this.#mode.record);
    }
    return this.#prepare();
  }

  /** A replica's answer to the PREPARE of `round`; undefined when it failed or did not answer in time. */
  onPrepare(round: number, reply: PrepareReply | undefined): WriteEffect | undefined {
    const state = this.#state;
    if (round !== this.#round || state.kind !== "preparing") return undefined;
    if (reply?.kind === "promised") {
      state.promises.push(reply);
      const effect = state.promises.length >= this.#writeQuorum ? this.#judge(state.ballot, state.promises) : undefined;
      if (effect !== undefined) return effect;
    } else if (reply?.kind === "refused") {
      state.refused += 1;
    } else {
      state.failed += 1;
    }
    const answered = state.promises.length + state.refused + state.failed;
    const isHopeless = this.#replicaCount - state.refused - state.failed < this.#writeQuorum;
    return answered === this.#replicaCount || isHopeless ? this.#waitAndRetry() : undefined;
  }

  /** The wait of `round` is over. */
  onTimer(round: number): WriteEffect | undefined {
    return round === this.#round && this.#state.kind === "waiting" ? this.#prepare() : undefined;
  }

  /** [W2] over W or more promises; undefined when more answers could tell more. */
  #judge(ballot: Ballot, promises: readonly Promised[]): WriteEffect | undefined {
    for (const [index, version] of this.#own.entries()) {
      if (promises.some((promise) => promise.fates[index] === "confirmed")) {
        return this.#done({ kind: "established", version, ballot: version, base: this.#base });
      }
    }
    let highest: Register | undefined;
    for (const { register } of promises) {
      if (register !== undefined && (highest === undefined || register.ballot > highest.ballot)) highest = register;
    }
    if (highest !== undefined && this.#records.has(highest.version)) return this.#accept(highest.version, ballot);
    const cannotTakeEffect = this.#own.every(
      (_, index) =>
        promises.filter((promise) => promise.fates[index] === "never" || promise.fates[index] === "void").length >=
        this.#readQuorum,
    );
    if (!cannotTakeEffect) return undefined;
    if (this.#mode.kind === "finish") return this.#done({ kind: "superseded" });
    if (this.#mode.kind === "plain") return this.#propose(ballot, this.#mode.record);
    if (highest !== undefined && highest.state === "accepted") return this.#done({ kind: "unfinished", base: highest });
    const record = this.#mode.decide(highest, ballot);
    if (record === "stop") return this.#done({ kind: "stopped", base: highest });
    this.#base = highest;
    return this.#propose(ballot, record);
  }

  #propose(ballot: Ballot, record: WriteRecord): WriteEffect {
    this.#own.push(ballot);
    this.#records.set(ballot, record);
    return this.#accept(ballot, ballot);
  }

  #accept(version: Ballot, ballot: Ballot): WriteEffect {
    const record = this.#records.get(version);
    if (record === undefined) throw new Error("a version without a record was to be accepted");
    this.#round += 1;
    this.#state = { kind: "accepting", version, ballot, accepted: 0, refusedFates: [], failed: 0 };
    return { kind: "accept", round: this.#round, version, ballot, record, own: [...this.#own] };
  }

  #prepare(): WriteEffect {
    this.#round += 1;
    const ballot = this.#newBallot();
    this.#state = { kind: "preparing", ballot, promises: [], refused: 0, failed: 0 };
    return { kind: "prepare", round: this.#round, ballot, own: [...this.#own] };
  }

  #waitAndRetry(): WriteEffect {
    this.#attempts += 1;
    if (this.#attempts >= ATTEMPT_LIMIT) return this.#done({ kind: "unknown" });
    this.#round += 1;
    this.#state = { kind: "waiting" };
    return { kind: "wait", round: this.#round, atMostMs: FIRST_WAIT_MS * 2 ** this.#attempts };
  }

  #done(outcome: WriteOutcome): WriteEffect {
    this.#state = { kind: "done" };
    return { kind: "done", outcome };
  }
}
