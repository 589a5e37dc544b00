import type { Ballot, Incarnation } from "../../common/ballot.ts";
import type { HybridTimestamp } from "../../common/hybrid-clock.ts";
import type { ListQuery, ListReply, Register, Row, RowSummary } from "../../storage-node/wire.ts";
import type { WriteMode, WriteOutcome } from "./register-write.ts";
import type { OpenContainer } from "./container-place.ts";
import type { RowOutcome } from "./row-write.ts";

/**
 * A protocol operation that touches several names, as a state machine in the form of a generator: it yields what is to be sent,
 * is resumed with what came of it, and does nothing else. Whoever drives it has the network and the clock; a proxy that dies in
 * the middle is a generator that nobody resumes. `S` names the replicas of one name; the script only hands it back.
 */
export type Script<S, T> = Generator<Effect<S>, T, Answer>;

export type Effect<S> =
  | {
      readonly kind: "write";
      readonly set: S;
      readonly mode: WriteMode;
      /** The first part of the ballots ([B6]). */
      readonly incarnation: Incarnation;
    }
  | { readonly kind: "read"; readonly set: S }
  /** `isPlaced`: the row is in the listing that is to follow this one. */
  | {
      readonly kind: "row";
      readonly set: S;
      readonly incarnation: Incarnation;
      readonly row: Row;
      readonly isPlaced?: boolean;
    }
  /** Copies for a listing that is being filled; `mark`: how late deletions were that those have forgotten whose rows these are ([E5]). */
  | {
      readonly kind: "rows";
      readonly set: S;
      readonly incarnation: Incarnation;
      readonly rows: readonly Row[];
      readonly mark: HybridTimestamp;
    }
  /**
   * What many would do at the same time is done by one of them. "join": what another is about to find out of this register is as good; where nobody is, the task is done, and
   * others may join it. "lead": the task is done, and others may join it. *It may have begun before whoever joins did:* only who can bear what is out of date may join. A task asks for
   * none of the same register.
   */
  | { readonly kind: "share"; readonly set: S; readonly role: "join" | "lead"; readonly task: () => Script<S, Shared> }
  /** Others go first; answered with nothing. */
  | { readonly kind: "pause"; readonly set: S }
  | {
      readonly kind: "list";
      readonly set: S;
      readonly incarnation: Incarnation;
      readonly query: ListQuery;
      /** All R answers with rows; otherwise one with rows and the others with their summary alone. */
      readonly fromAll: boolean;
    }
  /** [B2]: `row` is what replica `from` of the answer lacks. Nobody waits for it. */
  | {
      readonly kind: "repair";
      readonly set: S;
      readonly incarnation: Incarnation;
      readonly replica: number;
      readonly row: Row;
    }
  /** [A5]: nobody waits for it. */
  | { readonly kind: "confirm"; readonly set: S; readonly version: Ballot; readonly isVoid: boolean };

/** What is found out of a container's register, or a shard's. */
export type Shared = OpenContainer | "absent" | "unavailable" | "no-space";

export type ReadAnswer = {
  readonly register: Register | undefined;
  readonly isSettled: boolean;
};

/** R answers to a LIST, or what stood in the way. `replica` is the answering one's place in the set. */
export type ListAnswer =
  | {
      readonly kind: "rows";
      readonly pages: readonly {
        readonly replica: number;
        readonly summary: RowSummary;
        readonly rows: readonly Row[];
        /** Of a copy. */
        readonly mark?: HybridTimestamp;
      }[];
      /** [H5]: what hand-offs keep is among them, or may be missing; nothing is settled by it, and all have their rows, deleted ones too. */
      readonly isPartial?: boolean;
    }
  | { readonly kind: "moved" | "behind" | "split" | "unavailable" };

type ListObstacle = Exclude<ListAnswer["kind"], "rows">;

/** What says most of why there is no listing, last. */
const LIST_OBSTACLES: readonly string[] = ["unavailable", "behind", "split", "moved"] satisfies ListObstacle[];

/** What is in the way of a listing after one more replica gave no rows: it says why, "closing" of none, or did not answer. */
export const obstacleWith = (known: ListObstacle, reply: ListReply["kind"] | undefined): ListObstacle =>
  reply === "moved" || reply === "split" || reply === "behind"
    ? LIST_OBSTACLES.indexOf(reply) > LIST_OBSTACLES.indexOf(known)
      ? reply
      : known
    : known;

/** What became of a shared task. */
export type SharedAnswer = { readonly kind: "shared"; readonly found: Shared };

export type Answer = WriteOutcome | ReadAnswer | RowOutcome | ListAnswer | SharedAnswer | undefined;

/** A read that may be served as it is: [R1], and besides confirmed, so that rows tell the same. */
export const isFinal = ({ isSettled, register }: ReadAnswer): boolean => isSettled && register?.state !== "accepted";

const misdriven = (): Error => new Error("a script was resumed with an answer to something else");

const LIST_ANSWERS: ReadonlySet<string> = new Set<ListAnswer["kind"]>([
  "rows",
  "moved",
  "behind",
  "split",
  "unavailable",
]);

const isListAnswer = (answer: WriteOutcome | ListAnswer | SharedAnswer): answer is ListAnswer =>
  LIST_ANSWERS.has(answer.kind);

export function* write<S>(set: S, mode: WriteMode, incarnation: Incarnation): Script<S, WriteOutcome> {
  const answer = yield { kind: "write", set, mode, incarnation };
  if (typeof answer !== "object" || "isSettled" in answer || isListAnswer(answer) || answer.kind === "shared")
    throw misdriven();
  return answer;
}

/** Does a task once for all who ask for it at the same time. */
export function* share<S, T extends Shared>(
  set: S,
  role: "join" | "lead",
  task: () => Script<S, T>,
): Script<S, Shared> {
  const answer = yield { kind: "share", set, role, task };
  if (typeof answer !== "object" || "isSettled" in answer || answer.kind !== "shared") throw misdriven();
  return answer.found;
}

export function* read<S>(set: S): Script<S, ReadAnswer | undefined> {
  const answer = yield { kind: "read", set };
  if (answer !== undefined && (typeof answer !== "object" || !("isSettled" in answer))) throw misdriven();
  return answer;
}

export function* rows<S>(
  set: S,
  incarnation: Incarnation,
  given: readonly Row[],
  mark: HybridTimestamp,
): Script<S, RowOutcome> {
  const answer = yield { kind: "rows", set, incarnation, rows: given, mark };
  if (typeof answer !== "string") throw misdriven();
  return answer;
}

export function* row<S>(set: S, incarnation: Incarnation, given: Row, isPlaced = false): Script<S, RowOutcome> {
  const answer = yield { kind: "row", set, incarnation, row: given, isPlaced };
  if (typeof answer !== "string") throw misdriven();
  return answer;
}

export function* list<S>(set: S, incarnation: Incarnation, query: ListQuery, fromAll: boolean): Script<S, ListAnswer> {
  const answer = yield { kind: "list", set, incarnation, query, fromAll };
  if (typeof answer !== "object" || "isSettled" in answer || !isListAnswer(answer)) throw misdriven();
  return answer;
}

export function* confirm<S>(set: S, version: Ballot, isVoid = false): Script<S, void> {
  yield { kind: "confirm", set, version, isVoid };
}
