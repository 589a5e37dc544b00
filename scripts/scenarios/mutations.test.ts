import { expect, test } from "vitest";
import { MUTATIONS } from "../mutations/mutations.ts";
import { MutatedCheckout } from "../mutations/mutated-checkout.ts";
import { isEverything } from "./is-everything.ts";

/** Of the mistakes so many are made in every run: those are found in some seconds. */
const USUAL_COUNT = 3;

for (const mutation of isEverything ? MUTATIONS : MUTATIONS.slice(0, USUAL_COUNT)) {
  test(`a simulation finds that ${mutation.title}`, { timeout: 1_800_000 }, async () => {
    using checkout = new MutatedCheckout(mutation);
    const { isFound, output } = await checkout.find();
    expect(isFound, output).toBe(true);
  });
}

test("nothing is found in sources without a mistake", { timeout: 600_000 }, async () => {
  const [first] = MUTATIONS;
  if (first === undefined) throw new Error("there is nothing to find");
  using checkout = new MutatedCheckout({ ...first, to: first.from });
  const { isFound, output } = await checkout.find(50);
  expect(isFound, output).toBe(false);
  expect(output).toContain("1 passed");
});
