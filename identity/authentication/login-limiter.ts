import type { Clock } from "../../common/clock.ts";
import { identityError } from "../core/identity-error.ts";

const WINDOW_MS = 60_000;
/** Users and addresses remembered; beyond it the oldest are forgotten, which an attacker with that many addresses may have. */
const KEYS_MAX = 20_000;

type Count = { failures: number; sinceMs: number };

/** Failed logins by user and by address within a minute. In memory: a restart forgives. */
export type LoginLimiter = {
  /** Throws `too-many-logins` where one of `keys` has failed too often. */
  assertAllowed(keys: readonly string[]): void;
  failed(keys: readonly string[]): void;
};

/** `failuresPerMinute`: for each key. */
export const createLoginLimiter = (failuresPerMinute: number, clock: Clock): LoginLimiter => {
  const counts = new Map<string, Count>();

  const current = (key: string): Count | undefined => {
    const count = counts.get(key);
    if (count === undefined) return undefined;
    if (Math.abs(clock.nowMs() - count.sinceMs) < WINDOW_MS) return count;
    counts.delete(key);
    return undefined;
  };

  return {
    assertAllowed: (keys) => {
      for (const key of keys) {
        if ((current(key)?.failures ?? 0) < failuresPerMinute) continue;
        throw identityError("too-many-logins", "Too many failed logins. Try again in a minute.", { key });
      }
    },
    failed: (keys) => {
      for (const key of keys) {
        const count = current(key);
        if (count !== undefined) {
          count.failures += 1;
          continue;
        }
        counts.set(key, { failures: 1, sinceMs: clock.nowMs() });
        if (counts.size <= KEYS_MAX) continue;
        for (const oldest of counts.keys()) {
          counts.delete(oldest);
          break;
        }
      }
    },
  };
};
