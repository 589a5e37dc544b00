/** Anything done at a time. `end` is Infinity where the outcome is unknown: it may take effect at any later time or never. */
type Timed = { readonly start: number; readonly end: number };

/** What a history's operations mean. */
export type Meaning<State, Operation extends Timed> = {
  readonly initial: State;
  /** The state after an operation, or undefined where its known result cannot be had in that state. */
  readonly apply: (state: State, operation: Operation) => State | undefined;
  /** Equal for equal states. */
  readonly keyOf: (state: State) => string;
  /** Operations of unknown outcome whose class is the same have the same effect, whatever the state: only the first of them that is left is tried. */
  readonly classOf: (operation: Operation) => string;
};

export type Verdict = "possible" | "impossible" | "undecided";

/**
 * Whether a history has an order that respects real time and the meaning of its operations (Wing and Gong, 1993, with memoised states), of any
 * length. Where clients do one thing after the other, few operations overlap, and so few sets of done ones are met; those of unknown outcome
 * overlap all that comes later: one is tried only right before another operation that would not be possible, or end otherwise, without it, since
 * where it has no such effect the order is as good without it, or with it later. "undecided" after `limit` states.
 */
export const orderOf = <State, Operation extends Timed>(
  history: readonly Operation[],
  { initial, apply, keyOf, classOf }: Meaning<State, Operation>,
  limit = 400_000,
): Verdict => {
  const known = history.filter(({ end }) => end !== Number.POSITIVE_INFINITY).toSorted((a, b) => a.start - b.start);
  const unknown = history.filter(({ end }) => end === Number.POSITIVE_INFINITY).toSorted((a, b) => a.start - b.start);
  const classes = unknown.map(classOf);
  const failed = new Set<string>();
  const done = new Uint8Array(known.length);
  const used = new Uint8Array(unknown.length);
  let isOver = false;

  const isNeeded = (before: State | undefined, state: State, operation: Operation, next: State): boolean => {
    const without = before === undefined ? undefined : apply(before, operation);
    if (before === undefined || without === undefined) return true;
    const isOverwritten = keyOf(without) === keyOf(next);
    const isIndifferent = keyOf(without) === keyOf(before) && keyOf(next) === keyOf(state);
    return !isOverwritten && !isIndifferent;
  };

  const search = (first: number, state: State, before: State | undefined): boolean => {
    let from = first;
    while (done[from] === 1) from += 1;
    if (from === known.length) return true;
    let firstEnd = Number.POSITIVE_INFINITY;
    const open: number[] = [];
    let ahead = "";
    for (let index = from; index < known.length; index++) {
      const operation = known[index];
      if (operation === undefined || operation.start > firstEnd) break;
      if (done[index] === 1) {
        ahead += `${index} `;
        continue;
      }
      open.push(index);
      firstEnd = Math.min(firstEnd, operation.end);
    }
    const key = `${from} ${ahead}|${used.join("")}|${keyOf(state)}|${before === undefined ? "" : `behind ${keyOf(before)}`}`;
    if (failed.has(key)) return false;
    if (failed.size >= limit) {
      isOver = true;
      return false;
    }
    for (const index of open) {
      const operation = known[index];
      if (operation === undefined || operation.start > firstEnd) continue;
      const next = apply(state, operation);
      if (next === undefined || !isNeeded(before, state, operation, next)) continue;
      done[index] = 1;
      if (search(from, next, undefined)) return true;
      done[index] = 0;
      if (isOver) return false;
    }
    const tried = new Set<string>();
    for (const [index, operation] of unknown.entries()) {
      if (operation.start > firstEnd) break;
      const group = classes[index] ?? "";
      if (used[index] === 1 || tried.has(group)) continue;
      tried.add(group);
      const next = apply(state, operation);
      if (next === undefined || keyOf(next) === keyOf(state)) continue;
      if (!isNeeded(before, state, operation, next)) continue;
      used[index] = 1;
      if (search(from, next, state)) return true;
      used[index] = 0;
      if (isOver) return false;
    }
    failed.add(key);
    return false;
  };
  if (search(0, initial, undefined)) return "possible";
  return isOver ? "undecided" : "impossible";
};
