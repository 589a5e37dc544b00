import { orderOf, type Verdict } from "../../common/simulation/sequential-order.ts";
import type { Operation } from "../../proxy/core/containers-simulation/history.ts";
import { meaningOfObject } from "../../proxy/core/containers-simulation/long-history.ts";

/** What one request of a client was, and what it was answered. */
export type HttpOperation = {
  /** Milliseconds, of one clock for all clients. */
  readonly start: number;
  /** When its answer was read to the end, or it was given up. */
  readonly end: number;
  /** `create` is a PUT with `If-None-Match: *`. */
  readonly kind: "put" | "create" | "delete" | "read" | "list";
  /** Of the object; of a listing the prefix. */
  readonly name: string;
  /** The MD5 of what was written, or of the bytes that were read; all that is written is different. Else empty. */
  readonly value: string;
  /** Undefined where no whole answer came. */
  readonly status: number | undefined;
  /** By which proxy. */
  readonly door: number;
  /** Why no whole answer came, or what is wrong with the answer in itself. */
  readonly complaint?: string;
  /** What a listing shows: the MD5 of each name. */
  readonly rows?: Readonly<Record<string, string>>;
};

/** 503: the outcome is unknown, or no quorum is there; 507: too few devices have room. */
const REFUSALS: readonly number[] = [503, 507];

const ANSWERS: Readonly<Record<HttpOperation["kind"], readonly number[]>> = {
  put: [201],
  create: [201, 412],
  delete: [204, 404],
  read: [200, 404],
  list: [200],
};

const isAnswered = ({ kind, status }: HttpOperation): boolean => status !== undefined && ANSWERS[kind].includes(status);

/** Those that got nothing of what they asked for: no answer, or that it cannot be done now. */
export const failuresOf = (history: readonly HttpOperation[]): readonly HttpOperation[] =>
  history.filter((operation) => !isAnswered(operation));

const isWrite = ({ kind }: HttpOperation): boolean => kind === "put" || kind === "create" || kind === "delete";

/** As the simulations tell it, whose checker is used; undefined where it says nothing of the object. */
const asSimulated = (operation: HttpOperation): Operation | undefined => {
  const { start, end, kind, name, value, status } = operation;
  const kinds = { put: "put", create: "create-object", delete: "delete", read: "get", list: undefined } as const;
  const told = kinds[kind];
  if (told === undefined) return undefined;
  if (!isAnswered(operation)) {
    if (!isWrite(operation)) return undefined;
    return { start, end: Number.POSITIVE_INFINITY, kind: told, name, value, status: undefined };
  }
  return { start, end, kind: told, name, value, status: status === 404 || status === 412 ? status : 200 };
};

/** Whether the history of one object is that of a linearizable register, absent at first (P2). */
export const orderOfObject = (history: readonly HttpOperation[], name: string): Verdict => {
  const about = history.filter((operation) => operation.name === name).flatMap((it) => asSimulated(it) ?? []);
  return orderOf(about, meaningOfObject(about));
};

/** Whether it certainly took effect, and had done so before `time`. */
const isDoneBefore = (operation: HttpOperation, time: number): boolean =>
  isWrite(operation) && [201, 204].includes(operation.status ?? 0) && operation.end < time;

/** What may have made a name absent, or given it the value that a listing shows. */
const mayHaveMade = (write: HttpOperation, shown: string | undefined): boolean => {
  if (write.status === 404 || write.status === 412) return false;
  return shown === undefined ? write.kind === "delete" : write.kind !== "delete" && write.value === shown;
};

/** P3: a listing shows of a name what some write left that no other one, acknowledged before the listing began, had certainly replaced. */
const listingProblem = (history: readonly HttpOperation[], list: HttpOperation): string | undefined => {
  const writes = history.filter((operation) => isWrite(operation) && operation.name.startsWith(list.name));
  const names = new Set([...writes.map(({ name }) => name), ...Object.keys(list.rows ?? {})]);
  for (const name of names) {
    const shown = list.rows?.[name];
    const own = writes.filter((write) => write.name === name);
    const before = own.filter((write) => isDoneBefore(write, list.start));
    if (shown === undefined && before.length === 0) continue;
    const makers = own.filter((write) => write.start < list.end && mayHaveMade(write, shown));
    const isExplained = makers.some((maker) => {
      const end = isAnswered(maker) ? maker.end : Number.POSITIVE_INFINITY;
      return !before.some((later) => later !== maker && later.start > end);
    });
    if (isExplained) continue;
    const what = shown === undefined ? `lacks ${name}` : `shows ${name} as ${shown}`;
    return `a listing by door ${list.door} at ${Math.round(list.start)} ${what}, which was otherwise before it began`;
  }
  return undefined;
};

/** What no client may ever meet, in words; empty where all is as promised. */
export const problemsOf = (history: readonly HttpOperation[]): readonly string[] => {
  const problems: string[] = [];
  for (const operation of history) {
    const { kind, name, status, complaint, door } = operation;
    if (status !== undefined && !isAnswered(operation) && !REFUSALS.includes(status))
      problems.push(`${kind} of ${name} by door ${door} was answered ${status}: ${complaint ?? ""}`);
    else if (isAnswered(operation) && complaint !== undefined) problems.push(`${kind} of ${name}: ${complaint}`);
  }
  for (const name of new Set(history.filter(({ kind }) => kind !== "list").map((operation) => operation.name))) {
    const verdict = orderOfObject(history, name);
    if (verdict !== "possible") problems.push(`an order of what was done with ${name} is ${verdict}`);
  }
  for (const list of history)
    if (list.kind === "list" && isAnswered(list)) problems.push(...[listingProblem(history, list) ?? []].flat());
  return problems;
};

/** For who reads a run's output: how many there were, how many failed and why, and the slowest. */
export const summaryOf = (history: readonly HttpOperation[]): string => {
  const reasons = new Map<string, number>();
  for (const { kind, status, complaint = "" } of failuresOf(history)) {
    const reason = `${kind} ${status ?? "unanswered"} ${complaint.replaceAll(/<[^>]*>/g, " ").trim()}`;
    reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
  }
  const slowest = history.toSorted((a, b) => b.end - b.start - (a.end - a.start))[0];
  const slowMs = slowest === undefined ? 0 : slowest.end - slowest.start;
  const lines = [...reasons].map(([reason, count]) => `\n    ${count} × ${reason}`);
  return `${history.length} requests, slowest ${slowest?.kind} ${slowMs.toFixed()} ms${lines.join("")}`;
};
