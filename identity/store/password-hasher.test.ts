import { availableParallelism } from "node:os";
import { performance } from "node:perf_hooks";
import { expect, test } from "vitest";
import { concurrentHashes, createPasswordHasher } from "./password-hasher.ts";

test("a hash says argon2id with the cost that we promise, and verifies only its password", async () => {
  const hasher = await createPasswordHasher({ memoryKib: 19_456, passes: 2 });
  const hash = await hasher.hash("pässword");
  expect(hash).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$/);
  expect(await hasher.verify("pässword", hash)).toBe(true);
  expect(await hasher.verify("password", hash)).toBe(false);
  expect(await hasher.verify("pässword", undefined)).toBe(false);
});

test("as many hashes run as there are cores, and two of libuv's threads are left to others", () => {
  expect([concurrentHashes(1, 4), concurrentHashes(2, 4), concurrentHashes(8, 4)]).toEqual([1, 2, 2]);
  expect([concurrentHashes(8, 16), concurrentHashes(8, 1)]).toEqual([8, 1]);
});

test("beyond those at work and 64 waiting, callers are told to come back, and the queue empties", async () => {
  const hasher = await createPasswordHasher({ memoryKib: 19_456, passes: 2 });
  const poolThreads = Number(process.env["UV_THREADPOOL_SIZE"] ?? 4);
  const accepted = concurrentHashes(availableParallelism(), poolThreads) + 64;
  const results = await Promise.allSettled(Array.from({ length: accepted + 4 }, () => hasher.verify("x", undefined)));
  const refused = results.filter((result) => result.status === "rejected");
  expect(refused).toHaveLength(4);
  for (const { reason } of refused) expect(reason).toMatchObject({ code: "too-busy" });
  expect(await hasher.verify("x", undefined)).toBe(false);
});

test("what was hashed with less than is asked for now is outdated, and so is what is no hash of this kind", async () => {
  const hasher = await createPasswordHasher({ memoryKib: 20_000, passes: 2 });
  expect(hasher.isOutdated(await hasher.hash("x"))).toBe(false);
  expect(hasher.isOutdated("$argon2id$v=19$m=40000,t=3,p=1$c2FsdHNhbHQ$aGFzaA")).toBe(false);
  expect(hasher.isOutdated("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaA")).toBe(true);
  expect(hasher.isOutdated("$argon2id$v=19$m=20000,t=1,p=1$c2FsdHNhbHQ$aGFzaA")).toBe(true);
  expect(hasher.isOutdated("$2b$12$something")).toBe(true);
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
