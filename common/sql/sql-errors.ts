import { RingsteadError } from "../errors.ts";

/** Extended result codes of SQLite (sqlite.org/rescode.html). */
const SQLITE_UNIQUE = new Set([2067, 1555, 2579]);
const SQLITE_FOREIGN_KEY = 787;
/** Primary result codes, the low byte of an extended one: what repeats or repairs itself, or what an operator repairs. */
const SQLITE_UNAVAILABLE = new Set([5, 6, 7, 8, 10, 11, 13, 14, 15, 26]);

/** Primary result code: another process has the lock (sqlite.org/rescode.html#busy). */
const SQLITE_BUSY = 5;

/** SQLSTATE codes (postgresql.org/docs/15/errcodes-appendix.html). */
const POSTGRES_UNIQUE = "23505";
const POSTGRES_FOREIGN_KEY = new Set(["23503", "23001"]);
const POSTGRES_SERIALIZATION = new Set(["40001", "40P01"]);
/** Connection exceptions, refused logins, no such database, insufficient resources, operator intervention, system errors. */
const POSTGRES_UNAVAILABLE_CLASSES = new Set(["08", "28", "3D", "53", "57", "58"]);
/** A standby after a fail-over; a lock or an idle transaction that lasted too long. */
const POSTGRES_UNAVAILABLE = new Set(["25006", "25P03", "55P03"]);

/** What the network says, when the driver hands it on as it is. */
const NETWORK_CODES = new Set([
  "EACCES",
  "EAI_AGAIN",
  "ECONNABORTED",
  "ECONNREFUSED",
  "ECONNRESET",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOENT",
  "ENOTFOUND",
  "EPIPE",
  "ETIMEDOUT",
]);
/** The driver `pg` gives these no code (pg/lib/client.js, pg-pool/index.js). */
const DRIVER_MESSAGES =
  /^(Connection terminated|Client (has encountered a connection error|was closed)|Query read timeout|timeout (exceeded|expired))/;

const sqliteCode = (thrown: unknown): number | undefined =>
  thrown instanceof Error && "errcode" in thrown && typeof thrown.errcode === "number" ? thrown.errcode : undefined;

/** The SQLSTATE of an answer of PostgreSQL; nothing else that is thrown has both a code of five characters and a severity. */
const sqlState = (thrown: unknown): string | undefined =>
  thrown instanceof Error && "severity" in thrown && "code" in thrown && typeof thrown.code === "string"
    ? thrown.code
    : undefined;

/** True where SQLite found another process's lock in the way: nothing was done, and it may be tried again. */
export const isLocked = (thrown: unknown): boolean => ((sqliteCode(thrown) ?? 0) & 0xff) === SQLITE_BUSY;

/**
 * True where a unique or primary key refused the row, which callers answer as a conflict. It ends the transaction in which it happens:
 * catch it outside of `withTransaction`, or avoid it there with `onConflict`.
 */
export const isUniqueViolation = (thrown: unknown): boolean =>
  SQLITE_UNIQUE.has(sqliteCode(thrown) ?? 0) || sqlState(thrown) === POSTGRES_UNIQUE;

/** True where a reference refused the row: what it names is not there, or what is to go is still named. Ends the transaction. */
export const isForeignKeyViolation = (thrown: unknown): boolean =>
  sqliteCode(thrown) === SQLITE_FOREIGN_KEY || POSTGRES_FOREIGN_KEY.has(sqlState(thrown) ?? "");

/** True where PostgreSQL undid a transaction because of others at the same time; repeated, it may succeed. */
export const isSerializationFailure = (thrown: unknown): boolean => POSTGRES_SERIALIZATION.has(sqlState(thrown) ?? "");

const isPostgresUnavailable = (state: string): boolean =>
  POSTGRES_UNAVAILABLE_CLASSES.has(state.slice(0, 2)) || POSTGRES_UNAVAILABLE.has(state);

/**
 * True where the database could not do its work now, whatever was asked: it is away, shutting down, locked, out of space. Handles of
 * `openDatabase` throw all of these as a RingsteadError `database-unavailable`; whether a commit that failed so happened is unknown.
 */
export const isUnavailable = (thrown: unknown): boolean => {
  if (thrown instanceof RingsteadError) return thrown.code === "database-unavailable";
  const result = sqliteCode(thrown);
  if (result !== undefined) return SQLITE_UNAVAILABLE.has(result & 0xff);
  const state = sqlState(thrown);
  if (state !== undefined) return isPostgresUnavailable(state);
  if (!(thrown instanceof Error)) return false;
  if ("code" in thrown && typeof thrown.code === "string" && NETWORK_CODES.has(thrown.code)) return true;
  return DRIVER_MESSAGES.test(thrown.message);
};

/** The answer for callers; `reason` is for the log. An edge answers it with 503. */
export const databaseUnavailable = (reason: string): RingsteadError =>
  new RingsteadError("database-unavailable", "The database is not available at the moment; try again later.", {
    reason,
  });

/** What a handle throws in the place of what its driver threw. */
export const translateSqlError = (thrown: unknown): unknown => {
  if (thrown instanceof RingsteadError || !isUnavailable(thrown)) return thrown;
  const state = sqlState(thrown) ?? sqliteCode(thrown);
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return databaseUnavailable(state === undefined ? message : `${message} (${state})`);
};
