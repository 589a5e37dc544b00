import { chmodSync, closeSync, openSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import { AbortedTransactionError, CompiledQuery, type DatabaseConnection, Kysely, type QueryResult } from "kysely";
import { BaseSqliteDialect, GenericSqliteDriver, type IGenericSqlite } from "kysely-generic-sqlite";
import { checkParameters } from "./dialect.ts";
import { isLocked, translateSqlError } from "./sql-errors.ts";

/** Prepared statements kept per database. The services' queries are a few dozen fixed texts; more means generated SQL. */
const STATEMENT_CACHE_COUNT = 256;
/** How long a writer waits for another process's lock (an operator's shell) before it fails. */
const LOCK_WAIT_MAX_MS = 5_000;
/** How often it looks again. SQLite's own wait would stop the whole process, those who only read too. */
const LOCK_POLL_MS = 10;
/** Nobody found the lock taken for this long: whoever finds it taken now begins to wait anew. */
const LOCK_FORGOTTEN_MS = 1_000;
const ABORTED_MESSAGE = "the transaction is aborted: a statement of it failed before this one";

/** Takes the lock for writing. */
const BEGIN = "begin immediate";
/** Ends a transaction or goes back within it; also a transaction that failed accepts these. */
const ROLLBACK = /^rollback\b/;

/** Waits for other processes. All who want the lock at the same time wait together, however many they are: the first one's time is theirs. */
class LockWait {
  readonly #maxMs: number;
  #sinceMs = 0;
  #seenMs = Number.NEGATIVE_INFINITY;

  constructor(maxMs: number) {
    this.#maxMs = maxMs;
  }

  /** Answers at once where there is no lock in the way: nobody who only reads should wait a turn. `takesLock`: `work` is nothing else. */
  run<T>(work: () => T, takesLock: boolean): T | Promise<T> {
    try {
      const done = work();
      // It was free: who finds it taken next finds another one's.
      if (takesLock) this.#seenMs = Number.NEGATIVE_INFINITY;
      return done;
    } catch (thrown) {
      if (!isLocked(thrown)) throw thrown;
      const nowMs = performance.now();
      if (nowMs - this.#seenMs > LOCK_FORGOTTEN_MS) this.#sinceMs = nowMs;
      this.#seenMs = nowMs;
      if (nowMs - this.#sinceMs >= this.#maxMs) throw thrown;
    }
    return sleep(LOCK_POLL_MS).then(() => this.run(work, takesLock));
  }
}

const executorOf = (database: DatabaseSync, lockWait: LockWait): IGenericSqlite<DatabaseSync> => {
  const statements = new Map<string, StatementSync>();
  let isAborted = false;

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

  /** As PostgreSQL: what follows a failed statement in its transaction is refused, so that no test passes on SQLite alone. */
  const guarded = <T>(sql: string, parameters: readonly unknown[], run: () => T): T => {
    if (isAborted && !ROLLBACK.test(sql)) {
      if (sql !== "commit") throw new Error(ABORTED_MESSAGE);
      isAborted = false;
      if (database.isTransaction) database.exec("rollback");
      throw new AbortedTransactionError();
    }
    isAborted = false;
    // SQLite itself rolls back when the disk is full or fails.
    if (sql === "rollback" && !database.isTransaction) return { rows: [] } as T;
    checkParameters(parameters);
    const wasInTransaction = database.isTransaction;
    try {
      return run();
    } catch (thrown) {
      isAborted = wasInTransaction;
      throw thrown;
    }
  };

  const execute = (sql: string, parameters: readonly unknown[]): QueryResult<unknown> =>
    guarded(sql, parameters, () => {
      const statement = prepare(sql);
      const values = parameters as readonly SQLInputValue[];
      if (statement.columns().length > 0) return { rows: statement.all(...values) };
      const { changes, lastInsertRowid } = statement.run(...values);
      return { rows: [], numAffectedRows: BigInt(changes), insertId: BigInt(lastInsertRowid) };
    });

  return {
    db: database,
    query: async (_isSelect, sql, parameters) => {
      try {
        // A transaction has its locks from its first statement on.
        if (database.isTransaction) return execute(sql, parameters);
        return await lockWait.run(() => execute(sql, parameters), sql === BEGIN);
      } catch (thrown) {
        throw translateSqlError(thrown);
      }
    },
    close: () => {
      statements.clear();
      database.close();
    },
  };
};

/** Takes the write lock when a transaction begins: one that read first and then wants to write would fail where another process wrote. */
class ImmediateSqliteDriver extends GenericSqliteDriver {
  override async beginTransaction(connection: DatabaseConnection): Promise<void> {
    await connection.executeQuery(CompiledQuery.raw(BEGIN));
  }
}

/**
 * Opens, or makes with mode 0600, the SQLite database at `path` (`:memory:` for tests). A committed transaction is on the
 * disk: the write-ahead log is synced at each commit. Transactions of one handle run one after the other (Kysely's
 * mutex for a single connection). Who wants to write waits up to `lockWaitMaxMs` for other processes; who reads waits for nobody. The
 * caller destroys the handle.
 */
export const openSqlite = <Schema>(path: string, lockWaitMaxMs = LOCK_WAIT_MAX_MS): Kysely<Schema> => {
  if (path !== ":memory:") {
    // SQLite gives the files beside it (-wal, -shm) the mode of the database.
    closeSync(openSync(path, "a", 0o600));
    chmodSync(path, 0o600);
  }
  const database = new DatabaseSync(path, { enableForeignKeyConstraints: true, timeout: LOCK_WAIT_MAX_MS });
  try {
    database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;");
    // Only a start may stop the process.
    database.exec("PRAGMA busy_timeout = 0;");
    // LIKE and LOWER as PostgreSQL has them: SQLite's own know the case of ASCII's letters only, and LIKE ignores it.
    database.exec("PRAGMA case_sensitive_like = ON;");
    database.function("lower", { deterministic: true }, (text: unknown) =>
      typeof text === "string" ? text.toLowerCase() : (text as SQLInputValue),
    );
  } catch (thrown) {
    database.close();
    throw thrown;
  }
  const lockWait = new LockWait(lockWaitMaxMs);
  return new Kysely<Schema>({
    dialect: new BaseSqliteDialect(() => new ImmediateSqliteDriver(() => executorOf(database, lockWait))),
  });
};
