import { expect, test } from "vitest";
import { ByteBudget } from "./byte-budget.ts";

const forever = new AbortController().signal;

/** Who was given bytes, in order. */
const takers = (budget: ByteBudget) => {
  const given: string[] = [];
  const take = async (name: string, bytes: number, signal = forever): Promise<void> => {
    await budget.take(bytes, signal);
    given.push(name);
  };
  return { given, take };
};

test("no more is given than there is, and nobody overtakes who waits", async () => {
  const budget = new ByteBudget(10);
  const { given, take } = takers(budget);
  await take("a", 6);
  const waiting = [take("b", 8), take("c", 1)];
  budget.give(1);
  await Promise.resolve();
  expect(given).toEqual(["a"]);
  budget.give(5);
  await waiting[0];
  await waiting[1];
  expect(given).toEqual(["a", "b", "c"]);
});

test("who leaves lets those behind it through, and takes nothing", async () => {
  const budget = new ByteBudget(10);
  const { given, take } = takers(budget);
  await take("a", 6);
  const leaving = new AbortController();
  const left = take("b", 8, leaving.signal);
  const behind = take("c", 4);
  leaving.abort(new Error("it is gone"));
  await expect(left).rejects.toThrow("it is gone");
  await behind;
  expect(given).toEqual(["a", "c"]);
  await expect(take("d", 1, leaving.signal)).rejects.toThrow("it is gone");
  budget.give(10);
  await take("e", 10);
  expect(given).toEqual(["a", "c", "e"]);
});
