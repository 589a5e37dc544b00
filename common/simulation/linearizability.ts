/** One operation on a register, in a history. `end` is Infinity where the outcome is unknown: it may take effect at any later time or never. */
export type RegisterOperation = {
  readonly start: number;
  readonly end: number;
  readonly kind: "write" | "read" | "compare-and-set";
  /** What a write or a successful compare-and-set leaves behind; undefined is "absent". */
  readonly value: string | undefined;
  /** What a read saw, or what a compare-and-set expects. */
  readonly expected: string | undefined;
  /** Of a compare-and-set: whether it took effect. Undefined for an unknown outcome. */
  readonly succeeded: boolean | undefined;
};

/**
 * Whether a history of one register has an order that respects real time and the register's meaning (Wing and Gong, 1993, with
 * memoised states). Requires: at most 30 operations, since the set of done ones is a bit mask.
 */
export const isLinearizable = (history: readonly RegisterOperation[]): boolean => {
  const failed = new Set<string>();
  const whole = 2 ** history.length - 1;
  const search = (done: number, value: string | undefined): boolean => {
    let firstEnd = Number.POSITIVE_INFINITY;
    let isFinished = true;
    for (const [index, operation] of history.entries()) {
      if (done & (1 << index)) continue;
      if (operation.end !== Number.POSITIVE_INFINITY) isFinished = false;
      if (operation.end < firstEnd) firstEnd = operation.end;
    }
    if (isFinished || done === whole) return true;
    const state = `${done} ${value ?? ""}`;
    if (failed.has(state)) return false;
    for (const [index, operation] of history.entries()) {
      if (done & (1 << index) || operation.start > firstEnd) continue;
      const next = done | (1 << index);
      if (operation.kind === "read") {
        if (operation.expected === value && search(next, value)) return true;
      } else if (operation.kind === "write") {
        if (search(next, operation.value)) return true;
      } else if (operation.succeeded !== false && operation.expected === value) {
        if (search(next, operation.value)) return true;
      } else if (operation.succeeded === false && operation.expected !== value && search(next, value)) {
        return true;
      }
    }
    failed.add(state);
    return false;
  };
  return search(0, undefined);
};
