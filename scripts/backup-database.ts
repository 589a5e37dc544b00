import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { type Kysely, sql } from "kysely";
import { parseClusterFile } from "../common/config.ts";
import { RingsteadError } from "../common/errors.ts";
import { silentLog } from "../common/log.ts";
import { appliedMigrations, copyRows } from "../common/sql/copy-rows.ts";
import { type DatabaseServer, databaseServerOf } from "../common/sql/database-config.ts";
import { type Migration, runMigrations } from "../common/sql/migrations.ts";
import { openPostgres } from "../common/sql/postgres.ts";
import { openSqlite } from "../common/sql/sqlite.ts";
import { BLOCK_MIGRATIONS } from "../block/store/migrations.ts";
import { IDENTITY_MIGRATIONS } from "../identity/store/migrations.ts";

/** The rows of one service: its schema on a server, and the file in DIR and in every backup. */
type ServiceDatabase = {
  readonly namespace: string;
  readonly file: string;
  readonly migrations: readonly Migration[];
  /** Not every installation has run it. */
  readonly isOptional?: boolean;
};

const SERVICE_DATABASES: readonly ServiceDatabase[] = [
  { namespace: "identity", file: "identity/identity.db", migrations: IDENTITY_MIGRATIONS },
  { namespace: "block", file: "block/block.db", migrations: BLOCK_MIGRATIONS, isOptional: true },
];

/** Files of a backup that hold the rows of services, wherever those are kept. */
export const DATABASE_FILES: readonly string[] = SERVICE_DATABASES.map(({ file }) => file);
/** Those that no backup is whole without. */
export const REQUIRED_DATABASE_FILES: readonly string[] = SERVICE_DATABASES.flatMap(({ file, isOptional }) =>
  isOptional === true ? [] : [file],
);

type AnyDatabase = Kysely<Record<string, never>>;

/** The server that a cluster.toml names; undefined where rows are in files. */
export const databaseServerIn = (clusterToml: string): DatabaseServer | undefined => {
  if (!existsSync(clusterToml)) return undefined;
  const { database } = parseClusterFile(readFileSync(clusterToml, "utf8"), clusterToml);
  return database === undefined ? undefined : databaseServerOf(database);
};

const open = (server: DatabaseServer, namespace: string): AnyDatabase => openPostgres(server, namespace, silentLog);

/** The first steps of `migrations`: those that a database has had. Throws `database-too-new`. */
const stepsOf = (applied: readonly string[], migrations: readonly Migration[]): readonly Migration[] => {
  const unknown = applied.find((name, index) => migrations[index]?.name !== name);
  if (unknown === undefined) return migrations.slice(0, applied.length);
  throw new RingsteadError("database-too-new", `the database has migration ${unknown}, which this program lacks`);
};

/**
 * Writes the rows of all services on `server` into `folder`, each service's as one moment has them, in the SQLite files that an installation without
 * a server would have. Answers the files' names. Needs no program of PostgreSQL's, whose versions would have to fit.
 */
export const dumpDatabases = async (server: DatabaseServer, folder: string): Promise<string[]> => {
  const dumped: string[] = [];
  for (const { namespace, file, migrations, isOptional } of SERVICE_DATABASES) {
    const path = join(folder, file);
    await using source = open(server, namespace);
    const steps = stepsOf(await appliedMigrations(source), migrations);
    if (steps.length === 0) {
      if (isOptional === true) continue;
      throw new RingsteadError("no-installation", `the database has no rows of ${namespace}: it was never started`);
    }
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    await using target = openSqlite<Record<string, never>>(path);
    await runMigrations(target, steps, Date.now());
    await copyRows(source, target);
    dumped.push(file);
  }
  return dumped;
};

const scratchOf = (namespace: string): string => `${namespace}_restored`;

/** Nodes that use the database, as far as the login may see. */
const assertUnused = async (database: AnyDatabase, namespace: string): Promise<void> => {
  const used = sql<{ count: number }>`
    SELECT COUNT(*) AS count FROM pg_stat_activity
    WHERE application_name = ${`ringstead ${namespace}`} AND datname = current_database() AND pid <> pg_backend_pid()`;
  if (((await used.execute(database)).rows[0]?.count ?? 0) > 0) {
    throw new RingsteadError(
      "database-in-use",
      `${namespace} runs on this database, on this node or another one: stop all of them first (ringstead down)`,
    );
  }
};

/** Rows that lie beside those in use, until `replace` puts them into their place. */
export type LoadedDatabases = {
  /** Names of the schemas that hold what was replaced. Each service's rows change at once. */
  replace(stamp: string): Promise<string[]>;
};

/**
 * Loads the files of a backup in `folder` into schemas of their own on `server`. Nothing that is in use is touched.
 * Throws `database-in-use`, `database-too-new`, `database-unavailable`.
 */
export const loadDatabases = async (server: DatabaseServer, folder: string): Promise<LoadedDatabases> => {
  const given = SERVICE_DATABASES.filter(({ file }) => existsSync(join(folder, file)));
  for (const { namespace, file, migrations } of given) {
    const scratch = scratchOf(namespace);
    await using target = open(server, scratch);
    await assertUnused(target, namespace);
    // Of a restore that did not come to its end.
    await sql`DROP SCHEMA IF EXISTS ${sql.id(scratch)} CASCADE`.execute(target);
    await using source = openSqlite<Record<string, never>>(join(folder, file));
    await runMigrations(target, stepsOf(await appliedMigrations(source), migrations), Date.now());
    await copyRows(source, target);
  }
  return {
    replace: async (stamp) => {
      const kept: string[] = [];
      for (const { namespace } of given) {
        await using database = open(server, scratchOf(namespace));
        await database.transaction().execute(async (transaction) => {
          await assertUnused(transaction, namespace);
          const before = sql<{ found: number }>`SELECT 1 AS found FROM pg_namespace WHERE nspname = ${namespace}`;
          const old = `${namespace}_before_${stamp}`;
          if ((await before.execute(transaction)).rows.length > 0) {
            await sql`ALTER SCHEMA ${sql.id(namespace)} RENAME TO ${sql.id(old)}`.execute(transaction);
            kept.push(old);
          }
          await sql`ALTER SCHEMA ${sql.id(scratchOf(namespace))} RENAME TO ${sql.id(namespace)}`.execute(transaction);
        });
      }
      return kept;
    },
  };
};
