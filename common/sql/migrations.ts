import assert from "node:assert";
import { setTimeout as sleep } from "node:timers/promises";
import { type Kysely, sql, type Transaction } from "kysely";
import { RingsteadError } from "../errors.ts";
import { isPostgres } from "./dialect.ts";
import { databaseUnavailable } from "./sql-errors.ts";

/** One step of a schema. `up` sees the schema as the steps before it left it, so it is typed by none. */
export type Migration = {
  /** Unique and for ever: it is what the database remembers. Starts with its number, such as `0001-domains`. */
  readonly name: string;
  /** Runs within a transaction, on SQLite and on PostgreSQL; `dialect.ts` says what of it may depend on which. */
  up(database: Kysely<unknown>): Promise<void>;
};

/** The table of steps that were done, one in each service's database. */
export const MIGRATION_LEDGER = "ringstead_migrations";

/** Of PostgreSQL's advisory locks: "Ringstea" in ASCII. One for all services, whose first start makes their schemas. */
const MIGRATION_LOCK = "5938398974262404449";
/** How long a node waits for another one's steps; more than a step may take, which is the statement time-out. */
const LOCK_WAIT_MAX_MS = 120_000;
const LOCK_POLL_MS = 50;

/**
 * PostgreSQL: one node at a time, until the transaction ends. False where another one is at it. Each statement here sees what others
 * committed before it, which the default isolation level guarantees.
 */
const takeLock = async (transaction: Transaction<unknown>): Promise<boolean> => {
  const lock = sql<{ taken: number }>`SELECT pg_try_advisory_xact_lock(${sql.raw(MIGRATION_LOCK)}) AS taken`;
  if ((await lock.execute(transaction)).rows[0]?.taken !== 1) return false;
  const schema = sql<{ path: string; current: string | null }>`
    SELECT current_setting('search_path') AS path, current_schema() AS current`;
  const row = (await schema.execute(transaction)).rows[0];
  if (row?.current === null) await sql`CREATE SCHEMA ${sql.id(row.path)}`.execute(transaction);
  return true;
};

/** The steps that the database has had. Throws `database-too-new`. */
const appliedCount = async (transaction: Transaction<unknown>, migrations: readonly Migration[]): Promise<number> => {
  await transaction.schema
    .createTable(MIGRATION_LEDGER)
    .ifNotExists()
    .addColumn("name", "text", (column) => column.primaryKey())
    .addColumn("applied_at_ms", "bigint", (column) => column.notNull())
    .execute();
  const names = sql<{ name: string }>`SELECT name FROM ${sql.table(MIGRATION_LEDGER)}`;
  // Sorted here: databases differ in how they order letters and signs.
  const applied = (await names.execute(transaction)).rows.map(({ name }) => name).sort();
  applied.forEach((name, index) => {
    if (migrations[index]?.name !== name) {
      throw new RingsteadError("database-too-new", `the database has migration ${name}, which this program lacks`, {
        name,
      });
    }
  });
  return applied.length;
};

type Step = { readonly applied: string } | "busy" | "done";

const applyNext = async (
  transaction: Transaction<unknown>,
  migrations: readonly Migration[],
  nowMs: number,
): Promise<Step> => {
  if (isPostgres(transaction) && !(await takeLock(transaction))) return "busy";
  const next = migrations[await appliedCount(transaction, migrations)];
  if (next === undefined) return "done";
  await next.up(transaction);
  const ledger = sql.table(MIGRATION_LEDGER);
  await sql`INSERT INTO ${ledger} (name, applied_at_ms) VALUES (${next.name}, ${nowMs})`.execute(transaction);
  return { applied: next.name };
};

/**
 * Applies, in order, the steps of `migrations` that the database has not had; each in its own transaction together with its
 * ledger entry, so that a crash leaves a step either done or not begun. Processes that do this at the same time take turns: each step is
 * done by one of them. Returns the names applied by this call.
 *
 * Throws RingsteadError `database-too-new` where the ledger has a step that is unknown or in another place: an older
 * program must not write into a newer schema; `database-unavailable` where another process does not come to an end. Requires: names ascending.
 */
export const runMigrations = async <Schema>(
  handle: Kysely<Schema>,
  migrations: readonly Migration[],
  nowMs: number,
): Promise<string[]> => {
  // The tables that `Schema` promises are what the steps are about to make.
  const database = handle as unknown as Kysely<unknown>;
  migrations.forEach((migration, index) => {
    assert(index === 0 || (migrations[index - 1]?.name ?? "") < migration.name, `order of ${migration.name}`);
  });
  const applied: string[] = [];
  let waitedMs = 0;
  for (;;) {
    const step = await database.transaction().execute((transaction) => applyNext(transaction, migrations, nowMs));
    if (step === "done") return applied;
    if (step === "busy") {
      if (waitedMs >= LOCK_WAIT_MAX_MS)
        throw databaseUnavailable("another process has been migrating the database for too long");
      await sleep(LOCK_POLL_MS);
      waitedMs += LOCK_POLL_MS;
    } else {
      applied.push(step.applied);
      waitedMs = 0;
    }
  }
};
