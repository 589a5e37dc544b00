import type { Clock } from "../../common/clock.ts";
import { identityError } from "../core/identity-error.ts";

const WINDOW_MS = 60_000;
/** Users and addresses remembered; beyond it the oldest are forgotten, which an attacker with that many addresses may have. */
const KEYS_MAX = 20_000;
/** Attempts that wait for the verdict on others; beyond it they are told to come again. */
const WAITING_MAX = 64;

/** A user or an address; with a weight where a wrong guess counts more than once. */
export type LoginKey = string | readonly [key: string, weight: number];

/** An attempt that counts as failed while it is judged. Disposal gives that back, unless it was said to have failed. */
export type LoginAttempt = Disposable & { failed(): void };

/** Failed logins by user and by address within a minute. In memory: a restart forgives. */
export type LoginLimiter = {
  /** Throws `too-many-logins` where one of `keys` has failed too often. */
  assertAllowed(keys: readonly string[]): void;
  /**
   * Begins an attempt that is to be judged. Where others under way would reach the limit if they all failed, it waits for them: a burst gets no
   * more guesses than a row of them, and who knows the password is not refused for coming with many. Throws `too-many-logins`, `too-busy`.
   */
  begin(keys: readonly LoginKey[]): Promise<LoginAttempt>;
};

/** `failures` within the minute that began at `sinceMs`; `pending`: what those under way would add. */
type Count = { failures: number; pending: number; sinceMs: number };

type Charge = { readonly key: string; readonly weight: number };
type Waiting = {
  readonly charges: readonly Charge[];
  resolve(attempt: LoginAttempt): void;
  reject(error: Error): void;
};

/** `failuresPerMinute`: for each key. */
export const createLoginLimiter = (failuresPerMinute: number, clock: Clock): LoginLimiter => {
  const counts = new Map<string, Count>();
  let waiting: Waiting[] = [];

  const forgetOld = (count: Count): void => {
    if (Math.abs(clock.nowMs() - count.sinceMs) >= WINDOW_MS) count.failures = 0;
  };

  const current = (key: string): Count | undefined => {
    const count = counts.get(key);
    if (count === undefined) return undefined;
    forgetOld(count);
    if (count.failures > 0 || count.pending > 0) return count;
    counts.delete(key);
    return undefined;
  };

  const countOf = (key: string): Count => {
    const known = current(key);
    if (known !== undefined) return known;
    const count = { failures: 0, pending: 0, sinceMs: clock.nowMs() };
    counts.set(key, count);
    if (counts.size > KEYS_MAX) {
      for (const oldest of counts.keys()) {
        counts.delete(oldest);
        break;
      }
    }
    return count;
  };

  const assertAllowed: LoginLimiter["assertAllowed"] = (keys) => {
    for (const key of keys) {
      if ((current(key)?.failures ?? 0) < failuresPerMinute) continue;
      throw identityError("too-many-logins", "Too many failed logins. Try again in a minute.", { key });
    }
  };

  const mustWait = ({ key }: Charge): boolean => {
    const { failures, pending } = current(key) ?? { failures: 0, pending: 0 };
    // One at a time is let in whatever it weighs.
    return pending > 0 && failures + pending >= failuresPerMinute;
  };

  const begun = (charges: readonly Charge[]): LoginAttempt => {
    const charged = charges.map(({ key, weight }) => ({ count: countOf(key), weight }));
    for (const { count, weight } of charged) count.pending += weight;
    let isOpen = true;
    const end = (hasFailed: boolean): void => {
      if (!isOpen) return;
      isOpen = false;
      for (const { count, weight } of charged) {
        count.pending -= weight;
        if (!hasFailed) continue;
        forgetOld(count);
        if (count.failures === 0) count.sinceMs = clock.nowMs();
        count.failures += weight;
      }
      // What counts nothing is not remembered.
      for (const { key } of charges) current(key);
      admitWaiting();
    };
    return { failed: () => end(true), [Symbol.dispose]: () => end(false) };
  };

  /** All keys at once or none: nobody waits who holds something that others wait for. */
  const admitWaiting = (): void => {
    const candidates = waiting;
    waiting = [];
    for (const one of candidates) {
      try {
        assertAllowed(one.charges.map(({ key }) => key));
        if (one.charges.some(mustWait)) waiting.push(one);
        else one.resolve(begun(one.charges));
      } catch (thrown) {
        one.reject(thrown as Error);
      }
    }
  };

  return {
    assertAllowed,
    begin: async (keys) => {
      const charges = keys.map((given) =>
        typeof given === "string" ? { key: given, weight: 1 } : { key: given[0], weight: given[1] },
      );
      assertAllowed(charges.map(({ key }) => key));
      if (!charges.some(mustWait)) return begun(charges);
      if (waiting.length >= WAITING_MAX) {
        throw identityError("too-busy", "Too many logins are under way. Try again in a few seconds.");
      }
      return new Promise((resolve, reject) => waiting.push({ charges, resolve, reject }));
    },
  };
};
