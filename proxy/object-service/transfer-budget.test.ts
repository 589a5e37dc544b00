import fc from "fast-check";
import { expect, test } from "vitest";
import { TransferBudget } from "./transfer-budget.ts";

test("never more is out than the budget has, and everybody who waits gets a turn in order", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 10 }), { maxLength: 50 }),
      fc.integer(),
      async (sizes, seed) => {
        const budget = new TransferBudget(10);
        let out = 0;
        let most = 0;
        let random = Math.abs(seed % 1000) + 1;
        const order: number[] = [];
        await Promise.all(
          sizes.map(async (bytes, index) => {
            await budget.take(bytes);
            order.push(index);
            out += bytes;
            most = Math.max(most, out);
            random = (random * 48_271) % 2_147_483_647;
            for (let turn = random % 5; turn >= 0; turn--) await Promise.resolve();
            out -= bytes;
            budget.give(bytes);
          }),
        );
        expect(most).toBeLessThanOrEqual(10);
        expect(order).toEqual(sizes.map((_, index) => index));
        expect(budget.tryTake(10)).toBe(true);
      },
    ),
  );
});

test("nobody overtakes those who wait", () => {
  const budget = new TransferBudget(10);
  expect(budget.tryTake(8)).toBe(true);
  expect(budget.take(5)).toBeInstanceOf(Promise);
  expect(budget.tryTake(1)).toBe(false);
});
