import assert from "node:assert";
import { readFileSync } from "node:fs";
import { Kysely, PostgresDialect, type PostgresPool, type PostgresPoolClient, type QueryCompiler } from "kysely";
import pg from "pg";
import { codeOf, messageOf, RingsteadError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { DatabaseServer } from "./database-config.ts";
import { checkParameters, PortableQueryCompiler } from "./dialect.ts";
import { databaseUnavailable, translateSqlError } from "./sql-errors.ts";

/** How long things may take before a request is answered with 503. */
type Patience = {
  /** For a new connection, and for a free one when all are taken. */
  readonly connectMs: number;
  /** After this the server ends a statement, waits for locks included. */
  readonly statementMs: number;
  /** After this the client gives a statement up: longer, since only a server that fell silent lets it come so far. */
  readonly answerMs: number;
};
const PATIENCE: Patience = { connectMs: 5_000, statementMs: 30_000, answerMs: 35_000 };
/** The server undoes the transaction of a process that stopped in the middle of it. */
const IDLE_TRANSACTION_TIMEOUT_MS = 60_000;
const IDLE_CONNECTION_TIMEOUT_MS = 60_000;
/** A connection is made anew after this, so that servers behind one name share the load again after one was away. */
const CONNECTION_LIFETIME_SECONDS = 3_600;
/** Requests that wait for a connection; the next one is refused at once. */
const WAITERS_MAX = 1_000;
/** The services' queries are a few hundred fixed texts. Each connection of the server keeps this many plans at most. */
const NAMED_STATEMENTS_MAX = 500;
const NAMED_PARAMETERS_MAX = 20;

/** The server's types by number (pg_type.dat), where `pg` would give text or what SQLite does not give. */
const TYPE_BOOLEAN = 16;
const TYPE_BYTEA = 17;
const TYPE_INT8 = 20;
const TYPE_NUMERIC = 1700;

/** As SQLite's driver: a number beyond 2^53 is an error, never another number. Sums of integers are numeric on PostgreSQL. */
const numberOf = (text: string): number => {
  const value = Number(text);
  if (!Number.isSafeInteger(value) && !text.includes(".")) {
    throw new RangeError(`the integer ${text} is too large for a number`);
  }
  return value;
};

const bytesOf = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.slice(2), "hex"));

const PARSERS: ReadonlyMap<number, (text: string) => unknown> = new Map<number, (text: string) => unknown>([
  [TYPE_BOOLEAN, (text) => (text === "t" ? 1 : 0)],
  [TYPE_BYTEA, bytesOf],
  [TYPE_INT8, numberOf],
  [TYPE_NUMERIC, numberOf],
]);

const types: pg.CustomTypesConfig = {
  getTypeParser: (id, format) => {
    const parser = format === "binary" ? undefined : PARSERS.get(id);
    return parser ?? pg.types.getTypeParser(id, format);
  },
};

/**
 * Names for statements, so that the server parses and plans each once for a connection: a row by its key takes 170 µs instead of 280,
 * and 89 µs instead of 131 of this process's time. Lists of values come in every length and would use the names up.
 */
class StatementNames {
  readonly #names = new Map<string, string>();

  nameOf(text: string, parameterCount: number): string | undefined {
    const known = this.#names.get(text);
    if (known !== undefined) return known;
    if (parameterCount === 0 || parameterCount > NAMED_PARAMETERS_MAX) return undefined;
    if (this.#names.size >= NAMED_STATEMENTS_MAX) return undefined;
    const name = `s${this.#names.size}`;
    this.#names.set(text, name);
    return name;
  }
}

/** A named statement whose table has other columns since (src/backend/utils/cache/plancache.c): this connection cannot use it any more. */
const isOutdatedPlan = (thrown: pg.DatabaseError): boolean =>
  thrown.code === "0A000" && thrown.routine === "RevalidateCachedQuery";

/** A pooled connection as Kysely uses it: translates errors, and gives up a connection on which an answer may still come. */
class PooledClient {
  readonly #client: pg.PoolClient;
  readonly #names: StatementNames;
  #isBroken = false;

  constructor(client: pg.PoolClient, names: StatementNames) {
    this.#client = client;
    this.#names = names;
  }

  async query(sql: string, parameters: readonly unknown[]): Promise<pg.QueryResult> {
    // Also a rollback would only wait behind what hangs.
    if (this.#isBroken) throw databaseUnavailable("the connection was given up");
    checkParameters(parameters);
    const name = this.#names.nameOf(sql, parameters.length);
    const values = [...parameters];
    try {
      return await this.#client.query(name === undefined ? { text: sql, values } : { name, text: sql, values });
    } catch (thrown) {
      if (thrown instanceof pg.DatabaseError && !isOutdatedPlan(thrown)) throw translateSqlError(thrown);
      // An answer that comes late would be taken for the next statement's.
      this.#isBroken = true;
      throw thrown instanceof pg.DatabaseError ? databaseUnavailable(thrown.message) : translateSqlError(thrown);
    }
  }

  release(isDiscarded?: boolean): void {
    this.#client.release(this.#isBroken || isDiscarded === true);
  }
}

/** What Kysely needs of a pool. */
const pooled = (pool: pg.Pool): PostgresPool => {
  const clients = new WeakMap<pg.PoolClient, PooledClient>();
  const names = new StatementNames();
  return {
    options: pool.options,
    end: () => pool.end(),
    connect: async () => {
      if (pool.waitingCount >= WAITERS_MAX) throw databaseUnavailable(`${WAITERS_MAX} requests wait for a connection`);
      let client: pg.PoolClient;
      try {
        client = await pool.connect();
      } catch (thrown) {
        // Whatever it is (a name that is not found, a certificate, a login), nothing can be asked of the database.
        throw databaseUnavailable(messageOf(thrown) || (codeOf(thrown) ?? "no connection"));
      }
      let known = clients.get(client);
      if (known === undefined) {
        known = new PooledClient(client, names);
        clients.set(client, known);
      }
      // The form of `query` that takes a cursor is not used without a cursor in the dialect's configuration.
      return known as unknown as PostgresPoolClient;
    },
  };
};

const readAuthority = (path: string): Buffer => {
  try {
    return readFileSync(path);
  } catch (thrown) {
    throw new RingsteadError(
      "invalid-config",
      `database.tls_ca: ${path} cannot be read (${codeOf(thrown) ?? messageOf(thrown)})`,
    );
  }
};

const isLocal = (host: string): boolean =>
  host.startsWith("/") || host === "localhost" || host === "::1" || host.startsWith("127.");

/** Settings of each session, whatever the server's or the role's are. A commit is answered when it is on the disk. */
const sessionOptions = (namespace: string): string =>
  [`search_path=${namespace}`, "synchronous_commit=on", String.raw`default_transaction_isolation=read\ committed`]
    .map((setting) => `-c ${setting}`)
    .join(" ");

/**
 * Connects to `server` when first asked, and again whenever connections were lost: no restart is needed after it was away. Tables are those
 * of the schema `namespace`, which `runMigrations` makes; each service has its own. The caller destroys the handle.
 *
 * Throws RingsteadError `invalid-config` where the password's or the authority's file cannot be used. Only tests have another patience.
 */
export const openPostgres = <Schema>(
  server: DatabaseServer,
  namespace: string,
  log: Log,
  patience: Patience = PATIENCE,
): Kysely<Schema> => {
  // A name that needs no quoting, and has none of what separates settings.
  assert(/^[a-z][a-z0-9_]{0,30}$/.test(namespace), `namespace ${namespace}`);
  // Said at the start rather than at the first request.
  server.password();
  const ca = server.tlsCa === undefined ? undefined : readAuthority(server.tlsCa);
  if (ca === undefined && !isLocal(server.host)) {
    log.warn("the connection to PostgreSQL is not encrypted; set tls_ca in [database]", { host: server.host });
  }
  const pool = new pg.Pool({
    host: server.host,
    port: server.port,
    user: server.user,
    database: server.database,
    password: () => server.password() ?? "",
    ssl: ca === undefined ? false : { ca },
    application_name: `ringstead ${namespace}`,
    options: sessionOptions(namespace),
    types,
    max: server.poolSize,
    connectionTimeoutMillis: patience.connectMs,
    idleTimeoutMillis: IDLE_CONNECTION_TIMEOUT_MS,
    maxLifetimeSeconds: CONNECTION_LIFETIME_SECONDS,
    statement_timeout: patience.statementMs,
    query_timeout: patience.answerMs,
    idle_in_transaction_session_timeout: IDLE_TRANSACTION_TIMEOUT_MS,
    keepAlive: true,
  });
  pool.on("error", (error) => log.warn("a connection to PostgreSQL was lost", { reason: error.message }));
  // Within a transaction, between two statements, nobody else listens; the next statement then fails.
  pool.on("connect", (client) => client.on("error", () => undefined));
  return new Kysely<Schema>({ dialect: new PortablePostgresDialect({ pool: pooled(pool) }) });
};

class PortablePostgresDialect extends PostgresDialect {
  override createQueryCompiler(): QueryCompiler {
    return new PortableQueryCompiler();
  }
}
