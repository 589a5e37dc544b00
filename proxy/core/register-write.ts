import type { Ballot } from "../../common/ballot.ts";
import type { AcceptReply, Fate, PrepareReply, Register, Row } from "../../storage-node/wire.ts";
import type { Quorum } from "./quorum.ts";

/**
 * One write of one name: PROTOCOL section 3, and the finishing of an unsettled version of section 4 ([R2]), as a state machine.
 *
 *     plain  ──▶ accepting ──W accepted──▶ done: established
 *                 │   └─all refused, all fates never──▶ accepting (a new version)          [W1]
 *                 └─W impossible──▶ preparing; where some failed, or not for the first time, waiting [C4]
 *     plain, cautious ──▶ preparing ──W promises──▶ accepting, or done: no-space, before anybody accepted it
 *     conditional ──▶ preparing ──W promises──▶ (a) an own version is confirmed ──▶ done: established   [W2]
 *                      ▲   │                    (b) the highest is own ──▶ accepting (same version)
 *                      │   │                    (c) none can take effect ──▶ decide ──▶ accepting (a new version)
 *                      │   │                                                    ├──▶ done: stopped       [C2]
 *                      │   │                                                    ├──▶ done: unfinished    [C1]
 *                      │   │                                                    └──▶ done: no-space, where W lacked it
 *                      │   └─(d) cannot tell ──▶ waiting ──▶ preparing, in the end done: unknown          [W3]
 *     finish ──▶ accepting (the version found)  ──▶ done: established, or superseded
 *     inspect ──▶ preparing ──W promises──▶ done: inspected                                             [B5]
 *
 * Where the partition's configuration changes under it ([M1]) the phase begins anew with the new quorum: what was proposed stays proposed, and
 * answers of two epochs are never counted together.
 *
 * While accepting, a replica that answers `nodata` is sent the record once more with its body; it counts when it answers that [A4].
 * A version that was sent to nobody, or refused by who was, is forgotten: after a wait another one is proposed, as if this had been the first.
 *
 * Refusals that name a ballot of a later incarnation end an own write as outdated: nothing of this incarnation can win any more [B6].
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

/** What one replica promised on, with what it knows of the name. */
export type Promised = {
  readonly register: Register | undefined;
  readonly fates: readonly Fate[];
  readonly liveRow: Row | undefined;
};

/** What a write under `ballot` does given the settled base: undefined is a name that nobody wrote. */
type Decide = (base: Register | undefined, ballot: Ballot, promises: readonly Promised[]) => WriteRecord | "stop";

/** Versions that one operation proposed, whose fate is open, with what each of them carries. */
export type Proposed = ReadonlyMap<Ballot, WriteRecord>;

export type WriteMode =
  | { readonly kind: "plain"; readonly record: WriteRecord }
  /** `earlier`: what an earlier write of the same operation proposed before it ended as unfinished; [W2] asks for all of it. */
  | {
      readonly kind: "conditional";
      readonly decide: Decide;
      readonly earlier?: Proposed | undefined;
      /** A base of this version need not be confirmed ([C1]), since what is proposed is the same once more: nothing hangs on whether it took effect. */
      readonly over?: Ballot;
    }
  | { readonly kind: "finish"; readonly version: Ballot; readonly ballot: Ballot; readonly record: WriteRecord }
  /** Writes nothing: what W promising replicas hold, and what became of `version`. */
  | { readonly kind: "inspect"; readonly version: Ballot | undefined };

/** What became of a version, as far as the replicas can tell together: `never` also stands for void. */
export type Verdict = "confirmed" | "never" | "unclear";

export type WriteOutcome =
  | {
      readonly kind: "established";
      readonly version: Ballot;
      readonly ballot: Ballot;
      readonly base: Register | undefined;
      /** Somebody else finished the version: its row is in, and nobody here looked at rows. */
      readonly isConfirmed: boolean;
      /** [H4]: hand-offs counted for it (`hand-off-keep.ts`). */
      readonly isKept?: boolean;
      /** Of a container: the first live row of each replica that accepted, where it has one. Undefined: nobody looked. */
      readonly liveRows: readonly Row[] | undefined;
    }
  /** The register holds a later incarnation. `own`: versions of this write whose fate is open. */
  | { readonly kind: "outdated"; readonly seen: Ballot; readonly own: readonly Ballot[] }
  | {
      readonly kind: "inspected";
      readonly highest: Register | undefined;
      readonly ballot: Ballot;
      readonly verdict: Verdict;
    }
  | { readonly kind: "stopped"; readonly base: Register | undefined }
  /** [C1]: the base is to be finished first. `own`: what the write that begins anew then has proposed `earlier`. */
  | { readonly kind: "unfinished"; readonly base: Register; readonly own: Proposed }
  | { readonly kind: "superseded" }
  /** Too few devices have space, and nothing of this write can take effect. */
  | { readonly kind: "no-space" }
  | { readonly kind: "unknown" };

/**
 * A device that is full, or read-only. That it stored nothing is no proof: the message may come twice, and find space. As with every
 * other failure, the promises decide what became of it.
 */
export type NoSpace = { readonly kind: "no-space" };

/** The message did not go out: nothing was or will be done of it. */
export type Unsent = { readonly kind: "unsent" };

export type WriteEffect =
  | {
      readonly kind: "accept";
      readonly round: number;
      readonly version: Ballot;
      readonly ballot: Ballot;
      readonly record: WriteRecord;
      readonly own: readonly Ballot[];
    }
  /** [A4]: the same ACCEPT again, to this replica alone, with the body of `bodyVersion`. */
  | {
      readonly kind: "supply";
      readonly round: number;
      readonly replica: number;
      readonly version: Ballot;
      readonly ballot: Ballot;
      readonly record: WriteRecord;
      readonly own: readonly Ballot[];
    }
  | { readonly kind: "prepare"; readonly round: number; readonly ballot: Ballot; readonly own: readonly Ballot[] }
  | { readonly kind: "wait"; readonly round: number; readonly atMostMs: number }
  | { readonly kind: "done"; readonly outcome: WriteOutcome };

/** Slow rounds before the outcome is called unknown. */
export const ROUND_LIMIT = 12;
/** What doubles with each of them. */
export const FIRST_WAIT_MS = 4;
/**
 * Rounds in which a message did not go out: a node is away, and back within seconds if it restarts. Many short waits, so that their sum is some ten seconds
 * each time, as no few random ones would be.
 */
export const ABSENCE_LIMIT = 80;
const ABSENCE_WAIT_LIMIT_MS = 250;

export const absenceWaitMs = (absences: number): number =>
  Math.min(FIRST_WAIT_MS * 2 ** absences, ABSENCE_WAIT_LIMIT_MS);

const NO_ROWS: readonly Row[] = [];

const incarnationIn = (ballot: Ballot): string => ballot.slice(0, 24);

type State =
  | {
      readonly kind: "accepting";
      readonly version: Ballot;
      readonly ballot: Ballot;
      /** Who accepted, who did not, and who of these for want of space: tallies of the quorum. */
      accepted: number;
      missing: number;
      withoutSpace: number;
      readonly refusedFates: (readonly Fate[])[];
      failed: number;
      unsent: number;
      /** Nobody was sent this version before. */
      readonly isFirst: boolean;
      liveRows: readonly Row[];
    }
  | {
      readonly kind: "preparing";
      readonly ballot: Ballot;
      readonly promises: Promised[];
      refused: number;
      failed: number;
      unsent: number;
      withoutSpace: number;
    }
  | { readonly kind: "waiting" }
  | { readonly kind: "done" };

type Accepting = Extract<State, { readonly kind: "accepting" }>;

export class RegisterWrite {
  #quorum: Quorum;
  readonly #mode: WriteMode;
  readonly #newBallot: () => Ballot;
  readonly #isCautious: boolean;
  readonly #own: Ballot[] = [];
  readonly #records = new Map<Ballot, WriteRecord>();
  /** The last proposal, kept for replicas that ask for its body, also after W accepted it. */
  #sent: { readonly version: Ballot; readonly ballot: Ballot; readonly record: WriteRecord } | undefined;
  #supplied: Set<number> | undefined;
  #seen: Ballot | undefined;
  #base: Register | undefined;
  #state: State = { kind: "waiting" };
  #round = 0;
  #attempts = 0;
  #absences = 0;
  /** A proposal was refused for a higher ballot's sake. */
  #hasLost = false;
  /** W was impossible for want of space when it was last tried. */
  #lacksSpace = false;
  /** What was proposed may lie with a member that is none any more. */
  #hasMoved = false;

  /**
   * `newBallot` gives ballots above every one that the proxy heard of.
   * @param isCautious a plain write asks for promises first: where too few devices have space it ends before any has accepted it, and where replicas are
   * fresh no version of it is refused whose fate they could not tell
   */
  constructor(quorum: Quorum, mode: WriteMode, newBallot: () => Ballot, isCautious = false) {
    this.#quorum = quorum;
    this.#mode = mode;
    this.#newBallot = newBallot;
    this.#isCautious = isCautious;
  }

  get #writeQuorum(): number {
    return this.#quorum.promiseCount;
  }

  get #readQuorum(): number {
    return this.#quorum.readCount;
  }

  start(): WriteEffect {
    switch (this.#mode.kind) {
      case "plain":
        return this.#isCautious ? this.#prepare() : this.#propose(this.#newBallot(), this.#mode.record);
      case "conditional":
        for (const [version, record] of this.#mode.earlier ?? []) {
          this.#own.push(version);
          this.#records.set(version, record);
        }
        return this.#prepare();
      case "finish":
        this.#own.push(this.#mode.version);
        this.#records.set(this.#mode.version, this.#mode.record);
        return this.#accept(this.#mode.version, this.#mode.ballot);
      case "inspect":
        if (this.#mode.version !== undefined) this.#own.push(this.#mode.version);
        return this.#prepare();
    }
  }

  /** The partition has another configuration: the present phase begins anew. Undefined while nothing is asked. */
  onEpoch(quorum: Quorum): WriteEffect | undefined {
    this.#quorum = quorum;
    if (this.#own.length > 0) this.#hasMoved = true;
    switch (this.#state.kind) {
      case "accepting":
        return this.#accept(this.#state.version, this.#state.ballot);
      case "preparing":
        return this.#prepare();
      case "waiting":
      case "done":
        return undefined;
    }
  }

  /** The answer of `replica` to the ACCEPT of `round`; undefined when it failed or did not answer in time. */
  onAccept(round: number, reply: AcceptReply | NoSpace | Unsent | undefined, replica: number): WriteEffect | undefined {
    if (round !== this.#round) return undefined;
    if (reply?.kind === "nodata") {
      const supply = this.#supply(replica);
      if (supply !== undefined) return supply;
    }
    const state = this.#state;
    if (state.kind !== "accepting") return undefined;
    const quorum = this.#quorum;
    const weight = quorum.weightOf(replica);
    if (reply?.kind === "accepted") {
      state.accepted += weight;
      if (reply.liveRow !== undefined) state.liveRows = [...state.liveRows, reply.liveRow];
      // Too many had refused it already, and this answer was waited for to see whether anybody has it.
      if (!quorum.survives(state.missing)) return this.#afterLoss(state);
      // Of a stable quorum a tally is the number of its members; in a joint phase both sets are looked at [M1].
      if (state.accepted < this.#writeQuorum) return undefined;
      if (quorum.isJoint && !quorum.suffices(state.accepted)) return undefined;
      const { version, ballot, liveRows } = state;
      return this.#done({ kind: "established", version, ballot, base: this.#base, isConfirmed: false, liveRows });
    }
    state.missing += weight;
    if (reply?.kind === "refused") {
      state.refusedFates.push(reply.fates);
      this.#notice(reply.seen);
    } else if (reply?.kind === "unsent") {
      state.unsent += 1;
    } else {
      state.failed += 1;
      if (reply?.kind === "no-space") state.withoutSpace += weight;
    }
    if (quorum.survives(state.missing)) return undefined;
    const areAllNever =
      state.accepted === 0 &&
      state.failed === 0 &&
      state.refusedFates.every((fates) => fates.every((fate) => fate === "never"));
    if (areAllNever && state.unsent > 0 && state.isFirst) {
      if (state.refusedFates.length + state.unsent < quorum.memberCount) return undefined;
      // Nobody has it or will have it: it need not be asked for, which those that restart could not answer ([A3]).
      this.#own.pop();
      this.#records.delete(state.version);
      return this.#waitForAbsent();
    }
    if (areAllNever && state.unsent === 0 && this.#mode.kind === "plain") {
      if (state.refusedFates.length < quorum.memberCount) return undefined;
      const outdated = this.#outdated(state.ballot, []);
      if (outdated !== undefined) return outdated;
      this.#attempts += 1;
      if (this.#attempts < ROUND_LIMIT) return this.#propose(this.#newBallot(), this.#mode.record);
    }
    return this.#afterLoss(state);
  }

  /** W is impossible for the present ACCEPT, and somebody has it or may have it. */
  #afterLoss(state: Accepting): WriteEffect {
    this.#lacksSpace = this.#quorum.survives(state.missing - state.withoutSpace);
    // What failed at once fails again at once, and who lost to other writers twice meets them again in the same step [C4].
    if (state.unsent > 0) return this.#waitForAbsent();
    if (state.failed > 0 || this.#hasLost) return this.#waitAndRetry();
    this.#hasLost = true;
    return this.#prepare();
  }

  /** A replica's answer to the PREPARE of `round`; undefined when it failed or did not answer in time. */
  onPrepare(round: number, reply: PrepareReply | NoSpace | Unsent | undefined): WriteEffect | undefined {
    const state = this.#state;
    const { voterCount } = this.#quorum;
    if (round !== this.#round || state.kind !== "preparing") return undefined;
    if (reply?.kind === "promised") {
      state.promises.push(reply);
      const effect = state.promises.length >= this.#writeQuorum ? this.#judge(state.ballot, state.promises) : undefined;
      if (effect !== undefined) return effect;
    } else if (reply?.kind === "refused") {
      state.refused += 1;
      this.#notice(reply.seen);
    } else {
      state.failed += 1;
      if (reply?.kind === "no-space") state.withoutSpace += 1;
      else if (reply?.kind === "unsent") state.unsent += 1;
    }
    const answered = state.promises.length + state.refused + state.failed;
    const isHopeless = voterCount - state.refused - state.failed < this.#writeQuorum;
    if (answered < voterCount && !isHopeless) return undefined;
    if (this.#mode.kind === "inspect" && state.promises.length >= this.#writeQuorum)
      return this.#inspected(state.ballot, state.promises, "unclear");
    const couldPromise = voterCount - state.refused - state.failed + state.withoutSpace;
    const lacksSpace = isHopeless && couldPromise >= this.#writeQuorum;
    const isWrite = this.#mode.kind === "conditional" || this.#mode.kind === "plain";
    if (lacksSpace && isWrite && this.#own.length === 0) return this.#done({ kind: "no-space" });
    this.#lacksSpace = false;
    const outdated = this.#outdated(state.ballot, this.#own);
    if (outdated !== undefined) return outdated;
    return isHopeless && state.unsent > 0 ? this.#waitForAbsent() : this.#waitAndRetry();
  }

  /** The wait of `round` is over. */
  onTimer(round: number): WriteEffect | undefined {
    return round === this.#round && this.#state.kind === "waiting" ? this.#prepare() : undefined;
  }

  /** [W2] over W or more promises; undefined when more answers could tell more. */
  #judge(ballot: Ballot, promises: readonly Promised[]): WriteEffect | undefined {
    const highest = highestOf(promises);
    const isOwnHighest = highest !== undefined && this.#records.has(highest.version);
    // Who finishes also wants to bring it where it lacks, and to hear what the accepting replicas tell of rows.
    if (isOwnHighest && this.#mode.kind === "finish") return this.#accept(highest.version, ballot);
    for (const [index, version] of this.#own.entries()) {
      if (promises.some((promise) => promise.fates[index] === "confirmed")) {
        if (this.#mode.kind === "inspect") return this.#inspected(ballot, promises, "confirmed");
        const base = this.#base;
        return this.#done({
          kind: "established",
          version,
          ballot: version,
          base,
          isConfirmed: true,
          liveRows: undefined,
        });
      }
    }
    if (isOwnHighest) return this.#accept(highest.version, ballot);
    // Who finishes what is not the highest any more need not know what became of it: he looks again, and meets what is later.
    if (this.#mode.kind === "finish" && highest !== undefined && highest.ballot > this.#mode.ballot)
      return this.#done({ kind: "superseded" });
    const cannotTakeEffect = this.#own.every(
      (_, index) =>
        promises.filter((promise) => promise.fates[index] === "never" || promise.fates[index] === "void").length >=
        this.#readQuorum,
    );
    if (this.#mode.kind === "inspect") return this.#judgeInspection(ballot, promises, cannotTakeEffect);
    if (!cannotTakeEffect) return undefined;
    if (this.#mode.kind === "finish") return this.#done({ kind: "superseded" });
    if (this.#mode.kind === "plain") {
      return this.#lacksSpace ? this.#endWithoutSpace(promises) : this.#propose(ballot, this.#mode.record);
    }
    if (highest !== undefined && highest.state === "accepted" && highest.version !== this.#mode.over)
      return this.#done({ kind: "unfinished", base: highest, own: this.#records });
    const record = this.#mode.decide(highest, ballot, promises);
    if (record === "stop") return this.#done({ kind: "stopped", base: highest });
    if (this.#lacksSpace) return this.#endWithoutSpace(promises);
    this.#base = highest;
    return this.#propose(ballot, record);
  }

  /**
   * Says that there is no space once nothing of this write can take effect. Here [W2] (c) does not suffice: where no version of a higher
   * ballot follows, somebody else may find the one that a single replica accepted, and finish it. Where all promised and none has it, it is gone,
   * unless there are members who were not asked.
   */
  #endWithoutSpace(promises: readonly Promised[]): WriteEffect | undefined {
    const wereAllAsked = !this.#hasMoved && !this.#quorum.isJoint;
    return this.#own.length === 0 || (wereAllAsked && promises.length === this.#quorum.voterCount)
      ? this.#done({ kind: "no-space" })
      : undefined;
  }

  #propose(ballot: Ballot, record: WriteRecord): WriteEffect {
    this.#own.push(ballot);
    this.#records.set(ballot, record);
    return this.#accept(ballot, ballot, true);
  }

  #accept(version: Ballot, ballot: Ballot, isFirst = false): WriteEffect {
    let record = this.#records.get(version);
    if (record === undefined) throw new Error("a version without a record was to be accepted");
    // Where it was accepted before, its body is there, and what was staged for it is used up.
    if (record.body === "given" && version !== ballot) record = { ...record, body: "keep", bodyVersion: version };
    this.#round += 1;
    this.#sent = { version, ballot, record };
    this.#supplied = undefined;
    this.#state = {
      kind: "accepting",
      version,
      ballot,
      accepted: 0,
      missing: 0,
      withoutSpace: 0,
      refusedFates: [],
      failed: 0,
      unsent: 0,
      isFirst,
      liveRows: NO_ROWS,
    };
    return { kind: "accept", round: this.#round, version, ballot, record, own: [...this.#own] };
  }

  /** Once for each replica, also when W others have accepted already: that replica would lack the version until it is repaired. */
  #supply(replica: number): WriteEffect | undefined {
    const sent = this.#sent;
    if (sent === undefined || this.#supplied?.has(replica) === true) return undefined;
    this.#supplied ??= new Set();
    this.#supplied.add(replica);
    const record: WriteRecord = { ...sent.record, body: "given" };
    const { version, ballot } = sent;
    return { kind: "supply", round: this.#round, replica, version, ballot, record, own: [...this.#own] };
  }

  #notice(seen: Ballot): void {
    if (this.#seen === undefined || seen > this.#seen) this.#seen = seen;
  }

  #outdated(ballot: Ballot, own: readonly Ballot[]): WriteEffect | undefined {
    const seen = this.#seen;
    if (seen === undefined || incarnationIn(seen) <= incarnationIn(ballot)) return undefined;
    if (this.#mode.kind === "finish") return this.#done({ kind: "superseded" });
    return this.#done({ kind: "outdated", seen, own: [...own] });
  }

  /** Undefined while more answers could tell more. A version that is still the highest cannot have been confirmed unseen: see [B5]. */
  #judgeInspection(ballot: Ballot, promises: readonly Promised[], cannotTakeEffect: boolean): WriteEffect | undefined {
    const version = this.#own[0];
    const isKnown =
      version === undefined ||
      cannotTakeEffect ||
      highestOf(promises)?.version === version ||
      promises.some(({ fates }) => fates[0] === "void");
    return isKnown || promises.length === this.#quorum.voterCount
      ? this.#inspected(ballot, promises, isKnown ? "never" : "unclear")
      : undefined;
  }

  #inspected(ballot: Ballot, promises: readonly Promised[], verdict: Verdict): WriteEffect {
    return this.#done({ kind: "inspected", highest: highestOf(promises), ballot, verdict });
  }

  #prepare(): WriteEffect {
    this.#round += 1;
    const ballot = this.#newBallot();
    this.#state = { kind: "preparing", ballot, promises: [], refused: 0, failed: 0, unsent: 0, withoutSpace: 0 };
    return { kind: "prepare", round: this.#round, ballot, own: [...this.#own] };
  }

  #waitAndRetry(): WriteEffect {
    this.#attempts += 1;
    if (this.#attempts >= ROUND_LIMIT) return this.#done({ kind: "unknown" });
    this.#round += 1;
    this.#state = { kind: "waiting" };
    return { kind: "wait", round: this.#round, atMostMs: FIRST_WAIT_MS * 2 ** this.#attempts };
  }

  #waitForAbsent(): WriteEffect {
    this.#absences += 1;
    if (this.#absences >= ABSENCE_LIMIT) return this.#done({ kind: "unknown" });
    this.#round += 1;
    this.#state = { kind: "waiting" };
    return { kind: "wait", round: this.#round, atMostMs: absenceWaitMs(this.#absences) };
  }

  #done(outcome: WriteOutcome): WriteEffect {
    this.#state = { kind: "done" };
    return { kind: "done", outcome };
  }
}

const highestOf = (promises: readonly Promised[]): Register | undefined => {
  let highest: Register | undefined;
  for (const { register } of promises) {
    if (register !== undefined && (highest === undefined || register.ballot > highest.ballot)) highest = register;
  }
  return highest;
};
