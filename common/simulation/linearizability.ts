/** Anything done at a time. `end` is Infinity where the outcome is unknown: it may take effect at any later time or never. */
type Timed = { readonly start: number; readonly end: number };

/**
 * Whether a history has an order that respects real time and the meaning of its operations (Wing and Gong, 1993, with memoised states).
 * `apply` gives the state after an operation, or undefined where its known result cannot be had in that state.
 * Requires: at most 30 operations, since the set of done ones is a bit mask; equal states have equal `keyOf`.
 */
export const hasSequentialOrder = <State, Operation extends Timed>(
  history: readonly Operation[],
  initial: State,
  apply: (state: State, operation: Operation) => State | undefined,
  keyOf: (state: State) => string,
): boolean => {
  const failed = new Set<string>();
  const whole = 2 ** history.length - 1;
  const search = (done: number, state: State): boolean => {
    let firstEnd = Number.POSITIVE_INFINITY;
    let isFinished = true;
    for (const [index, operation] of history.entries()) {
      if (done & (1 << index)) continue;
      if (operation.end !== Number.POSITIVE_INFINITY) isFinished = false;
      if (operation.end < firstEnd) firstEnd = operation.end;
    }
    if (isFinished || done === whole) return true;
    const key = `${done} ${keyOf(state)}`;
    if (failed.has(key)) return false;
    for (const [index, operation] of history.entries()) {
      if (done & (1 << index) || operation.start > firstEnd) continue;
      const next = apply(state, operation);
      if (next !== undefined && search(done | (1 << index), next)) return true;
    }
    failed.add(key);
    return false;
  };
  return search(0, initial);
};

/** One operation on a register, in a history. */
export type RegisterOperation = Timed & {
  readonly kind: "write" | "read" | "compare-and-set";
  /** What a write or a successful compare-and-set leaves behind; undefined is "absent". */
  readonly value: string | undefined;
  /** What a read saw, or what a compare-and-set expects. */
  readonly expected: string | undefined;
  /** Of a compare-and-set: whether it took effect. Undefined for an unknown outcome. */
  readonly succeeded: boolean | undefined;
};

type RegisterState = { readonly value: string | undefined };

const applyToRegister = (state: RegisterState, operation: RegisterOperation): RegisterState | undefined => {
  const isAsExpected = operation.expected === state.value;
  switch (operation.kind) {
    case "read":
      return isAsExpected ? state : undefined;
    case "write":
      return { value: operation.value };
    case "compare-and-set":
      if (operation.succeeded === false) return isAsExpected ? undefined : state;
      return isAsExpected ? { value: operation.value } : undefined;
  }
};

/** Whether a history of one register, absent at first, is linearizable. Requires: at most 30 operations. */
export const isLinearizable = (history: readonly RegisterOperation[]): boolean =>
  hasSequentialOrder(history, { value: undefined }, applyToRegister, ({ value }) => value ?? "");
