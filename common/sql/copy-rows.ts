import { type Kysely, sql, type Transaction } from "kysely";
import { isPostgres } from "./dialect.ts";
import { MIGRATION_LEDGER } from "./migrations.ts";

type Rows = readonly Readonly<Record<string, unknown>>[];
/** Tables are known by name only. */
type AnyTransaction = Transaction<Record<string, Record<string, unknown>>>;
type AnyDatabase = Kysely<Record<string, Record<string, unknown>>>;

/** Rows that are in memory at a time. */
const PAGE_ROWS = 500;
/** SQLite takes 32,766 values in a statement. */
const VALUES_MAX = 30_000;

const hasSchema = (transaction: AnyTransaction): Promise<boolean> =>
  isPostgres(transaction)
    ? sql<{ name: string | null }>`SELECT current_schema() AS name`
        .execute(transaction)
        .then(({ rows }) => rows[0]?.name !== null)
    : Promise.resolve(true);

/** Tables of the service, less the ledger of migrations. */
const tablesOf = async (transaction: AnyTransaction): Promise<string[]> => {
  const names = isPostgres(transaction)
    ? sql<{ name: string }>`SELECT tablename AS name FROM pg_tables WHERE schemaname = current_schema()`
    : sql<{
        name: string;
      }>`SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'`;
  const { rows } = await names.execute(transaction);
  return rows.flatMap(({ name }) => (name === MIGRATION_LEDGER ? [] : name)).sort();
};

async function* pagesOnPostgres(transaction: AnyTransaction, table: string): AsyncGenerator<Rows> {
  await sql`DECLARE copied NO SCROLL CURSOR FOR SELECT * FROM ${sql.table(table)}`.execute(transaction);
  for (;;) {
    const { rows } = await sql<Rows[number]>`FETCH ${sql.lit(PAGE_ROWS)} FROM copied`.execute(transaction);
    if (rows.length === 0) break;
    yield rows;
  }
  await sql`CLOSE copied`.execute(transaction);
}

async function* pagesOnSqlite(transaction: AnyTransaction, table: string): AsyncGenerator<Rows> {
  for (let last = -1; ; ) {
    const page = sql<Rows[number]>`
      SELECT rowid AS copied_rowid, * FROM ${sql.table(table)} WHERE rowid > ${last} ORDER BY rowid LIMIT ${PAGE_ROWS}`;
    const { rows } = await page.execute(transaction);
    if (rows.length === 0) return;
    last = Number(rows.at(-1)?.["copied_rowid"]);
    yield rows.map(({ copied_rowid: _rowid, ...row }) => row);
  }
}

const insert = async (transaction: AnyTransaction, table: string, rows: Rows): Promise<void> => {
  const count = Math.max(1, Math.floor(VALUES_MAX / Object.keys(rows[0] ?? {}).length));
  for (let start = 0; start < rows.length; start += count) {
    await transaction
      .insertInto(table)
      .values(rows.slice(start, start + count))
      .execute();
  }
};

/** Counters of PostgreSQL's keys, by table. */
const sequencesOf = async (transaction: AnyTransaction): Promise<ReadonlyMap<string, string>> => {
  const found = sql<{ name: string; sequence: string }>`
    SELECT c.relname AS name, pg_get_serial_sequence(c.oid::regclass::text, a.attname) AS sequence
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND a.attidentity <> ''`;
  return new Map((await found.execute(transaction)).rows.map(({ name, sequence }) => [name, sequence]));
};

/** The last key that each table with a counted key has given, also to a row that is gone. */
const lastKeysOf = async (transaction: AnyTransaction): Promise<ReadonlyMap<string, number>> => {
  const last = new Map<string, number>();
  if (isPostgres(transaction)) {
    for (const [table, sequence] of await sequencesOf(transaction)) {
      const state = sql<{ value: number }>`SELECT last_value AS value FROM ${sql.raw(sequence)} WHERE is_called`;
      const row = (await state.execute(transaction)).rows[0];
      if (row !== undefined) last.set(table, row.value);
    }
  } else {
    const { rows } = await sql<{ name: string; seq: number }>`SELECT name, seq FROM sqlite_sequence`.execute(
      transaction,
    );
    for (const { name, seq } of rows) last.set(name, seq);
  }
  return last;
};

const setLastKeys = async (transaction: AnyTransaction, last: ReadonlyMap<string, number>): Promise<void> => {
  if (isPostgres(transaction)) {
    const sequences = await sequencesOf(transaction);
    for (const [table, key] of last) {
      const sequence = sequences.get(table);
      if (sequence !== undefined && key > 0)
        await sql`SELECT setval(${sequence}::regclass, ${key})`.execute(transaction);
    }
    return;
  }
  for (const [table, key] of last) {
    await sql`DELETE FROM sqlite_sequence WHERE name = ${table}`.execute(transaction);
    await sql`INSERT INTO sqlite_sequence (name, seq) VALUES (${table}, ${key})`.execute(transaction);
  }
};

type Reference = { readonly table: string; readonly name: string };

/** Does `work` with references looked at in the end, since rows come in no order that they would allow. */
const withReferencesChecked = async (transaction: AnyTransaction, work: () => Promise<void>): Promise<void> => {
  if (!isPostgres(transaction)) {
    await sql`PRAGMA defer_foreign_keys = ON`.execute(transaction);
    return work();
  }
  const found = sql<Reference>`
    SELECT c.relname AS table, r.conname AS name FROM pg_constraint r JOIN pg_class c ON c.oid = r.conrelid
    WHERE r.contype = 'f' AND r.connamespace = current_schema()::regnamespace`;
  const references = (await found.execute(transaction)).rows;
  const alter = async (how: string): Promise<void> => {
    for (const { table, name } of references) {
      await sql`ALTER TABLE ${sql.table(table)} ALTER CONSTRAINT ${sql.id(name)} ${sql.raw(how)}`.execute(transaction);
    }
  };
  await alter("DEFERRABLE INITIALLY DEFERRED");
  await work();
  await sql`SET CONSTRAINTS ALL IMMEDIATE`.execute(transaction);
  await alter("NOT DEFERRABLE");
};

/** Names of the migrations that a service's database has had; none where it was never used. */
export const appliedMigrations = async <Schema>(handle: Kysely<Schema>): Promise<string[]> => {
  const database = handle as unknown as AnyDatabase;
  return database.transaction().execute(async (transaction) => {
    if (!(await hasSchema(transaction))) return [];
    const known = isPostgres(transaction)
      ? sql`SELECT 1 AS found FROM pg_tables WHERE schemaname = current_schema() AND tablename = ${MIGRATION_LEDGER}`
      : sql`SELECT 1 AS found FROM sqlite_schema WHERE name = ${MIGRATION_LEDGER}`;
    if ((await known.execute(transaction)).rows.length === 0) return [];
    const names = sql<{ name: string }>`SELECT name FROM ${sql.table(MIGRATION_LEDGER)}`;
    return (await names.execute(transaction)).rows.map(({ name }) => name).sort();
  });
};

/**
 * Copies every row of `source`, as one moment has them all, into `target`, which has the same tables; either may be SQLite or PostgreSQL. *What `target` has
 * goes*: migrations may have made rows, which are those of `source` by then or are gone there. Resolves with the number of rows when they are durable. All are there, or none.
 */
export const copyRows = async <Schema>(source: Kysely<Schema>, target: Kysely<Schema>): Promise<number> => {
  const [from, to] = [source as unknown as AnyDatabase, target as unknown as AnyDatabase];
  let count = 0;
  await from
    .transaction()
    .setIsolationLevel("repeatable read")
    .execute((reading) =>
      to.transaction().execute((writing) =>
        withReferencesChecked(writing, async () => {
          for (const table of await tablesOf(writing)) await writing.deleteFrom(table).execute();
          const pages = isPostgres(reading) ? pagesOnPostgres : pagesOnSqlite;
          for (const table of await tablesOf(reading)) {
            for await (const rows of pages(reading, table)) {
              await insert(writing, table, rows);
              count += rows.length;
            }
          }
          await setLastKeys(writing, await lastKeysOf(reading));
        }),
      ),
    );
  return count;
};
