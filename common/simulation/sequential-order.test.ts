import { expect, test } from "vitest";
import { seededRandom } from "../random.ts";
import { isLinearizable, type RegisterOperation } from "./linearizability.ts";
import { type Meaning, orderOf } from "./sequential-order.ts";

const UNKNOWN = Number.POSITIVE_INFINITY;

const write = (start: number, end: number, value: string): RegisterOperation => {
  return { start, end, kind: "write", value, expected: undefined, succeeded: true };
};
const read = (start: number, end: number, expected: string | undefined): RegisterOperation => {
  return { start, end, kind: "read", value: undefined, expected, succeeded: undefined };
};

const REGISTER: Meaning<{ readonly value: string | undefined }, RegisterOperation> = {
  initial: { value: undefined },
  keyOf: ({ value }) => value ?? " ",
  classOf: ({ kind, value }) => `${kind} ${value}`,
  apply: (state, { expected, kind, value }) => {
    if (kind === "write") return { value };
    return state.value === expected ? state : undefined;
  },
};

test("a write of unknown outcome may take effect at any later time, or never, but not twice", () => {
  const lost = write(0, UNKNOWN, "lost");
  expect(orderOf([lost, read(1, 2, undefined), read(3, 4, undefined)], REGISTER)).toBe("possible");
  expect(orderOf([lost, read(1, 2, undefined), read(3, 4, "lost")], REGISTER)).toBe("possible");
  const between = [read(1, 2, "lost"), write(3, 4, "a"), read(5, 6, "a")];
  expect(orderOf([lost, ...between], REGISTER)).toBe("possible");
  expect(orderOf([lost, ...between, read(7, 8, "lost")], REGISTER)).toBe("impossible");
});

test("a history is possible exactly where the exhaustive search for short ones says so", () => {
  const random = seededRandom(11n);
  const seen = { possible: 0, impossible: 0 };
  for (let round = 0; round < 2000; round++) {
    const history = Array.from({ length: 3 + random.below(6) }, (): RegisterOperation => {
      const start = random.below(12);
      const end = random.below(5) === 0 ? UNKNOWN : start + 1 + random.below(5);
      const value = "abc"[random.below(3)] ?? "";
      if (random.below(2) === 0 || end === UNKNOWN) return write(start, end, value);
      return read(start, end, random.below(4) === 0 ? undefined : value);
    });
    const verdict = orderOf(history, REGISTER);
    expect(verdict).toBe(isLinearizable(history) ? "possible" : "impossible");
    if (verdict !== "undecided") seen[verdict] += 1;
  }
  expect(Math.min(seen.possible, seen.impossible)).toBeGreaterThan(200);
});

test("hundreds of operations of which many are unknown are decided", () => {
  const history: RegisterOperation[] = [];
  for (let index = 0; index < 300; index++) {
    history.push(write(index * 10, index % 5 === 0 ? UNKNOWN : index * 10 + 15, `v${index}`));
    if (index % 5 !== 0) history.push(read(index * 10 + 16, index * 10 + 18, `v${index}`));
  }
  expect(orderOf(history, REGISTER)).toBe("possible");
  history.push(read(5000, 5001, "v3"));
  expect(orderOf(history, REGISTER)).toBe("impossible");
});
