import assert from "node:assert";
import { setTimeout as sleep } from "node:timers/promises";
import type { Kysely, Transaction } from "kysely";
import { databaseUnavailable, isSerializationFailure } from "./sql-errors.ts";

/** With the waits below, under 3 s at the worst: what a client of the API still waits for. */
const ATTEMPTS_MAX = 24;
/** Before the second attempt up to this, then up to twice as long each time: those who collided must not meet again. */
const RETRY_WAIT_MS = 2;
const RETRY_WAIT_MAX_MS = 200;

/**
 * Runs `work` in a transaction that behaves as if no other ran at the same time, and resolves with its result after the commit is on
 * the disk. SQLite takes the write lock at the beginning. On PostgreSQL it is SERIALIZABLE: with less, two requests that each
 * count rows and then add one (quotas, "the last admin") both pass, which no test on SQLite would ever show. Its price is that
 * PostgreSQL may undo a transaction for others' sake; then `work` runs again, a bounded number of times.
 *
 * Requires: `work` uses `transaction` alone (with the handle itself it would wait for itself on SQLite), and what it does besides may be
 * done twice. Only transactions made here are guarded against each other: a decision that depends on rows read belongs into one.
 * After a failed statement a transaction accepts no further one, on both databases.
 *
 * Throws what `work` throws, after a rollback; RingsteadError `database-unavailable` where the database is away or the attempts are used up.
 */
export const withTransaction = async <Schema, T>(
  database: Kysely<Schema>,
  work: (transaction: Transaction<Schema>) => Promise<T>,
): Promise<T> => {
  assert(!database.isTransaction, "a transaction inside a transaction");
  for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt += 1) {
    try {
      return await database.transaction().setIsolationLevel("serializable").execute(work);
    } catch (thrown) {
      if (!isSerializationFailure(thrown)) throw thrown;
    }
    const limitMs = Math.min(RETRY_WAIT_MS * 2 ** (attempt - 1), RETRY_WAIT_MAX_MS);
    await sleep(Math.random() * limitMs);
  }
  throw databaseUnavailable(`a transaction collided with others ${ATTEMPTS_MAX} times`);
};
