import { performance } from "node:perf_hooks";
import { expect, test } from "vitest";
import { createPasswordHasher } from "./password-hasher.ts";

test("a hash says argon2id with the cost that we promise, and verifies only its password", async () => {
  const hasher = await createPasswordHasher({ memoryKib: 19_456, passes: 2 });
  const hash = await hasher.hash("pässword");
  expect(hash).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$/);
  expect(await hasher.verify("pässword", hash)).toBe(true);
  expect(await hasher.verify("password", hash)).toBe(false);
  expect(await hasher.verify("pässword", undefined)).toBe(false);
});

test("beyond two at work and 64 waiting, callers are told to come back, and the queue empties", async () => {
  const hasher = await createPasswordHasher({ memoryKib: 19_456, passes: 2 });
  const results = await Promise.allSettled(Array.from({ length: 70 }, () => hasher.verify("x", undefined)));
  const refused = results.filter((result) => result.status === "rejected");
  expect(refused).toHaveLength(4);
  for (const { reason } of refused) expect(reason).toMatchObject({ code: "too-busy" });
  expect(await hasher.verify("x", undefined)).toBe(false);
});

test("an unknown user costs the same work as a known one", async () => {
  const hasher = await createPasswordHasher({ memoryKib: 19_456, passes: 2 });
  const stored = await hasher.hash("right");
  const samples: Record<"known" | "unknown", number[]> = { known: [], unknown: [] };
  // In turn, so that a busy machine slows both alike.
  for (let index = 0; index < 15; index += 1) {
    for (const kind of ["known", "unknown"] as const) {
      const startedMs = performance.now();
      await hasher.verify("wrong", kind === "known" ? stored : undefined);
      samples[kind].push(performance.now() - startedMs);
    }
  }
  const best = (values: number[]): number => Math.min(...values);
  expect(best(samples.unknown) / best(samples.known)).toBeGreaterThan(0.5);
  expect(best(samples.unknown) / best(samples.known)).toBeLessThan(2);
});
