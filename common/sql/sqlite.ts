import { chmodSync, closeSync, openSync } from "node:fs";
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import { Kysely } from "kysely";
import { GenericSqliteDialect, type IGenericSqlite } from "kysely-generic-sqlite";

/** Prepared statements kept per database. The services' queries are a few dozen fixed texts; more means generated SQL. */
const STATEMENT_CACHE_COUNT = 256;
/** How long a writer waits for another process's lock (a backup's, an operator's shell) before it fails. */
const BUSY_TIMEOUT_MS = 5_000;

const executorOf = (database: DatabaseSync): IGenericSqlite<DatabaseSync> => {
  const statements = new Map<string, StatementSync>();

  const prepare = (sql: string): StatementSync => {
    const known = statements.get(sql);
    if (known !== undefined) return known;
    const statement = database.prepare(sql);
    // Oldest first out: Map keeps the order of insertion.
    if (statements.size >= STATEMENT_CACHE_COUNT) {
      for (const oldest of statements.keys()) {
        statements.delete(oldest);
        break;
      }
    }
    statements.set(sql, statement);
    return statement;
  };

  return {
    db: database,
    query: (_isSelect, sql, parameters) => {
      const statement = prepare(sql);
      const values = parameters as readonly SQLInputValue[];
      if (statement.columns().length > 0) return { rows: statement.all(...values) };
      const { changes, lastInsertRowid } = statement.run(...values);
      return { rows: [], numAffectedRows: BigInt(changes), insertId: BigInt(lastInsertRowid) };
    },
    iterator: (_isSelect, sql, parameters) =>
      // Not from the cache: two iterations of one statement would reset each other.
      database.prepare(sql).iterate(...(parameters as readonly SQLInputValue[])),
    close: () => {
      statements.clear();
      database.close();
    },
  };
};

/**
 * Opens, or makes with mode 0600, the SQLite database at `path` (`:memory:` for tests). A committed transaction is on the
 * disk: the write-ahead log is synced at each commit. Transactions of one handle run one after the other (Kysely's
 * mutex for a single connection). The caller destroys the handle.
 */
export const openSqlite = <Schema>(path: string): Kysely<Schema> => {
  if (path !== ":memory:") {
    // SQLite gives the files beside it (-wal, -shm) the mode of the database.
    closeSync(openSync(path, "a", 0o600));
    chmodSync(path, 0o600);
  }
  const database = new DatabaseSync(path, { enableForeignKeyConstraints: true, timeout: BUSY_TIMEOUT_MS });
  try {
    database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;");
  } catch (thrown) {
    database.close();
    throw thrown;
  }
  return new Kysely<Schema>({ dialect: new GenericSqliteDialect(() => executorOf(database)) });
};

/** True where a unique or primary key refused the row, which callers answer as a conflict. */
export const isUniqueViolation = (thrown: unknown): boolean =>
  thrown instanceof Error && "errcode" in thrown && (thrown.errcode === 2067 || thrown.errcode === 1555);
