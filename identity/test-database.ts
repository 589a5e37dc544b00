import { randomBytes } from "node:crypto";
import { type Kysely, sql } from "kysely";
import type { ClusterFile } from "../common/config.ts";
import { databaseServerOf } from "../common/sql/database-config.ts";
import { openDatabase } from "../common/sql/database.ts";
import { MIGRATION_LEDGER } from "../common/sql/migrations.ts";
import { databaseTable } from "../common/sql/postgres-fixture.ts";
import { silentLog } from "../common/log.ts";
import { identityPaths } from "./store/paths.ts";
import type { IdentitySchema } from "./store/schema.ts";

/** A PostgreSQL server for tests, which many processes use. Plain data, so that it can be handed to them. */
export type TestServer = {
  /** The fixture's. */
  readonly folder: string;
  /** A database with all tables and no row, of which each installation gets a copy. */
  readonly template: string;
};

/** Of each process: few, since many installations share the server. */
const POOL_SIZE = 4;

/** The database of one installation in tests. */
export type TestDatabase = {
  /** The key `database` of its cluster.toml, or none. */
  readonly file: Pick<ClusterFile, "database">;
  /** A handle of its own, beside the service's. The caller destroys it. */
  open(): Promise<Kysely<IdentitySchema>>;
  /** Requires: nobody uses it any more. */
  remove(): Promise<void>;
};

const tableOf = ({ folder }: TestServer, name?: string) => ({ ...databaseTable(folder, name), pool_size: POOL_SIZE });

const open = (table: ClusterFile["database"], sqlitePath: string): Promise<Kysely<IdentitySchema>> =>
  openDatabase<IdentitySchema>({
    server: table === undefined ? undefined : databaseServerOf(table),
    namespace: "identity",
    sqlitePath,
    log: silentLog,
  });

const sqliteDatabase = (identityDir: string): TestDatabase => ({
  file: {},
  open: () => open(undefined, identityPaths(identityDir).database),
  remove: () => Promise.resolve(),
});

/** Databases that this process made and that are empty again: emptying one is ten times as fast as copying the template. */
const empty: string[] = [];

const makeCopy = async (server: TestServer): Promise<string> => {
  const name = `t${randomBytes(8).toString("hex")}`;
  await using administrator = await open(tableOf(server), "");
  await sql.raw(`CREATE DATABASE ${name} TEMPLATE ${server.template}`).execute(administrator);
  return name;
};

/** As fast as can be: TRUNCATE would make some 150 files anew. */
const removeRows = async (database: Kysely<IdentitySchema>): Promise<void> => {
  const names = (await database.introspection.getTables()).map(({ name }) => name);
  const deletions = names.filter((name) => name !== MIGRATION_LEDGER).map((name) => `DELETE FROM ${name};`);
  // In no order that references would allow.
  const statement = `DO $$ BEGIN SET LOCAL session_replication_role = replica; ${deletions.join(" ")} END $$`;
  await sql.raw(statement).execute(database);
};

const copyOfTemplate = async (server: TestServer): Promise<TestDatabase> => {
  const name = empty.pop() ?? (await makeCopy(server));
  const database = tableOf(server, name);
  return {
    file: { database },
    open: () => open(database, ""),
    remove: async () => {
      await using handle = await open(database, "");
      await removeRows(handle);
      empty.push(name);
    },
  };
};

let sharedServer: TestServer | undefined;

/** From now on installations of this process keep their rows on `server`. */
export const keepRowsOn = (server: TestServer): void => {
  sharedServer = server;
};

/** An empty database: a file in `identityDir`, or where `keepRowsOn` says. */
export const createTestDatabase = (identityDir: string): Promise<TestDatabase> =>
  sharedServer === undefined ? Promise.resolve(sqliteDatabase(identityDir)) : copyOfTemplate(sharedServer);
