import { randomBytes } from "node:crypto";
import { hash, verify } from "@node-rs/argon2";
import { identityError } from "../core/identity-error.ts";

/** Hashes under way at once: 2 × 19 MiB, and two of libuv's threads left to everything else. */
const CONCURRENT_MAX = 2;
/** Waiting beyond these: about two seconds of hashing. Later callers are told to come back. */
const WAITING_MAX = 64;

export type PasswordHasher = {
  hash(password: string): Promise<string>;
  /**
   * Whether `password` is the one that `stored` was made from. With `stored` undefined (no such user) it does the same
   * work and says no, so that timing does not tell the two apart.
   * Throws RingsteadError `too-busy` when the queue is full.
   */
  verify(password: string, stored: string | undefined): Promise<boolean>;
};

/** Argon2id's cost; identity/config.ts bounds it from below. */
export type PasswordHashCost = { readonly memoryKib: number; readonly passes: number };

/** Hashes with bounded concurrency, so that a login storm costs time and not memory. */
export const createPasswordHasher = async ({ memoryKib, passes }: PasswordHashCost): Promise<PasswordHasher> => {
  const cost = { memoryCost: memoryKib, timeCost: passes, parallelism: 1 };
  const waiting: (() => void)[] = [];
  let running = 0;

  const limited = async <Result>(work: () => Promise<Result>): Promise<Result> => {
    if (running >= CONCURRENT_MAX) {
      if (waiting.length >= WAITING_MAX) {
        throw identityError("too-busy", "Too many logins are under way. Try again in a few seconds.");
      }
      // Who ends hands its place on: `running` stays as it is.
      await new Promise<void>((resolve) => waiting.push(resolve));
    } else {
      running += 1;
    }
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next === undefined) running -= 1;
      else next();
    }
  };

  const nobody = await hash(randomBytes(32), cost);
  return {
    hash: (password) => limited(() => hash(password, cost)),
    verify: (password, stored) =>
      limited(async () => (await verify(stored ?? nobody, password)) && stored !== undefined),
  };
};
