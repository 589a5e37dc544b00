import { randomBytes } from "node:crypto";
import { availableParallelism } from "node:os";
import { hash, verify } from "@node-rs/argon2";
import { identityError } from "../core/identity-error.ts";
import { createLimitedWork } from "./limited-work.ts";

/** libuv's own where UV_THREADPOOL_SIZE does not say more. */
const POOL_THREADS_DEFAULT = 4;
/** libuv's threads that are left to files, names and signatures while passwords are hashed. */
const POOL_THREADS_KEPT = 2;
/** Waiting beyond those at work: about two seconds of hashing. Later callers are told to come back. */
const WAITING_MAX = 64;

/**
 * Hashes under way at once: one for each core, 19 MiB each, and never all of libuv's threads. One less would leave a core idle; one more
 * only makes each take longer.
 */
export const concurrentHashes = (cores: number, poolThreads: number): number =>
  Math.max(1, Math.min(cores, poolThreads - POOL_THREADS_KEPT));

export type PasswordHasher = {
  hash(password: string): Promise<string>;
  /**
   * Whether `password` is the one that `stored` was made from. With `stored` undefined (no such user) it does the same
   * work and says no, so that timing does not tell the two apart.
   * Throws RingsteadError `too-busy` when the queue is full.
   */
  verify(password: string, stored: string | undefined): Promise<boolean>;
  /** Whether `stored` was made with less memory or fewer passes than are asked for now. */
  isOutdated(stored: string): boolean;
};

/** Argon2id's cost; identity/config.ts bounds it from below. */
export type PasswordHashCost = { readonly memoryKib: number; readonly passes: number };

/** Hashes with bounded concurrency, so that a login storm costs time and not memory. */
export const createPasswordHasher = async ({ memoryKib, passes }: PasswordHashCost): Promise<PasswordHasher> => {
  const cost = { memoryCost: memoryKib, timeCost: passes, parallelism: 1 };
  const poolThreads = Number(process.env["UV_THREADPOOL_SIZE"] ?? POOL_THREADS_DEFAULT);
  const limited = createLimitedWork({
    concurrentMax: concurrentHashes(availableParallelism(), poolThreads),
    waitingMax: WAITING_MAX,
    refusal: () => identityError("too-busy", "Too many logins are under way. Try again in a few seconds."),
  });
  const nobody = await hash(randomBytes(32), cost);
  return {
    hash: (password) => limited(() => hash(password, cost)),
    verify: (password, stored) =>
      limited(async () => (await verify(stored ?? nobody, password)) && stored !== undefined),
    isOutdated: (stored) => {
      const [, memory, time] = /^\$argon2id\$v=19\$m=(\d+),t=(\d+),p=1\$/.exec(stored) ?? [];
      return memory === undefined || Number(memory) < memoryKib || Number(time) < passes;
    },
  };
};
