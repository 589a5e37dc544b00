import { expect, test } from "vitest";
import type { Account } from "./accounts.ts";
import { MoverLease } from "./mover-lease.ts";

/** One account's headers, changed one writer at a time, as the store does. */
const storeOf = () => {
  let headers: Readonly<Record<string, string>> = {};
  return {
    get: async (): Promise<Account> => ({ headers, changed: undefined }),
    post: async (_account: string, change: (now: typeof headers) => Record<string, string>): Promise<void> => {
      headers = change(headers);
    },
  };
};

const VERSIONS = { object: 4, container: 2 };
const kindOf = async (lease: MoverLease, versions: Readonly<Record<string, number>> = VERSIONS): Promise<string> =>
  (await lease.take(versions)).kind;

test("one proxy has the lease, keeps it as long as it renews it, and another one gets it when it does not", async () => {
  const time = { nowMs: 1_000_000 };
  const clock = { nowMs: () => time.nowMs };
  const store = storeOf();
  const [first, second] = [new MoverLease(store, clock), new MoverLease(store, clock)];
  expect([await kindOf(first), await kindOf(second)]).toEqual(["taken", "held"]);
  for (let turn = 0; turn < 5; turn++) {
    time.nowMs += 2000;
    expect([await kindOf(first), await kindOf(second)]).toEqual(["taken", "held"]);
  }
  time.nowMs += 3001;
  expect([await kindOf(second), await kindOf(first)]).toEqual(["taken", "held"]);
});

test("a lease that was given back is free at once", async () => {
  const clock = { nowMs: () => 1_000_000 };
  const store = storeOf();
  const [first, second] = [new MoverLease(store, clock), new MoverLease(store, clock)];
  expect(await kindOf(first)).toBe("taken");
  await first.give();
  expect(await kindOf(second)).toBe("taken");
  await first.give();
  expect(await kindOf(first)).toBe("held");
});

test("who follows a ring of a lower version than others did never gets the lease, also after it was given back", async () => {
  const time = { nowMs: 1_000_000 };
  const clock = { nowMs: () => time.nowMs };
  const store = storeOf();
  const [first, second] = [new MoverLease(store, clock), new MoverLease(store, clock)];
  expect(await kindOf(first)).toBe("taken");
  expect(await kindOf(first, { object: 5, container: 2 })).toBe("taken");
  await first.give();
  time.nowMs += 60_000;
  expect(await second.take(VERSIONS)).toEqual({ kind: "outdated", ring: "object", version: 5 });
  expect(await kindOf(second, { object: 5, container: 3 })).toBe("taken");
});
