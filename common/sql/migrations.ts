import assert from "node:assert";
import { type Kysely, sql } from "kysely";
import { RingsteadError } from "../errors.ts";

/** One step of a schema. `up` sees the schema as the steps before it left it, so it is typed by none. */
export type Migration = {
  /** Unique and for ever: it is what the database remembers. Starts with its number, such as `0001-domains`. */
  readonly name: string;
  up(database: Kysely<unknown>): Promise<void>;
};

const LEDGER = "ringstead_migrations";

/**
 * Applies, in order, the steps of `migrations` that the database has not had; each in its own transaction together with its
 * ledger entry, so that a crash leaves a step either done or not begun. Returns the names applied now.
 *
 * Throws RingsteadError `database-too-new` where the ledger has a step that is unknown or in another place: an older
 * program must not write into a newer schema. Requires: names ascending.
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
  await database.schema
    .createTable(LEDGER)
    .ifNotExists()
    .addColumn("name", "text", (column) => column.primaryKey())
    .addColumn("applied_at_ms", "bigint", (column) => column.notNull())
    .execute();
  const { rows } = await sql<{ name: string }>`SELECT name FROM ${sql.table(LEDGER)} ORDER BY name`.execute(database);
  rows.forEach(({ name }, index) => {
    if (migrations[index]?.name !== name) {
      throw new RingsteadError("database-too-new", `the database has migration ${name}, which this program lacks`, {
        name,
      });
    }
  });
  const pending = migrations.slice(rows.length);
  for (const migration of pending) {
    await database.transaction().execute(async (transaction) => {
      await migration.up(transaction);
      await sql`INSERT INTO ${sql.table(LEDGER)} (name, applied_at_ms) VALUES (${migration.name}, ${nowMs})`.execute(
        transaction,
      );
    });
  }
  return pending.map(({ name }) => name);
};
