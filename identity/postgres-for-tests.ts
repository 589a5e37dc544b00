import { sql } from "kysely";
import type { TestProject } from "vitest/node";
import { silentLog } from "../common/log.ts";
import { databaseServerOf } from "../common/sql/database-config.ts";
import { runMigrations } from "../common/sql/migrations.ts";
import { databaseTable, PostgresFixture } from "../common/sql/postgres-fixture.ts";
import { openPostgres } from "../common/sql/postgres.ts";
import { IDENTITY_MIGRATIONS } from "./store/migrations.ts";
import type { IdentitySchema } from "./store/schema.ts";
import type { TestServer } from "./test-database.ts";

declare module "vitest" {
  interface ProvidedContext {
    readonly postgres: TestServer;
  }
}

const TEMPLATE = "identity_template";
/** Sorts words as a dictionary does, as most servers do: an order that SQLite never shows. */
const LOCALE = "LOCALE_PROVIDER icu ICU_LOCALE 'en-US' ENCODING 'UTF8' TEMPLATE template0";

/** One server for all files of the project `postgres`. Vitest calls what this returns at the end. */
export const setup = async (project: TestProject): Promise<() => Promise<void>> => {
  const fixture = await PostgresFixture.start({ isDurable: false });
  const connect = (name?: string) =>
    openPostgres<IdentitySchema>(databaseServerOf(databaseTable(fixture.folder, name)), "identity", silentLog);
  {
    await using administrator = connect();
    await sql.raw(`CREATE DATABASE ${TEMPLATE} ${LOCALE}`).execute(administrator);
    await using template = connect(TEMPLATE);
    await runMigrations(template, IDENTITY_MIGRATIONS, 0);
  }
  project.provide("postgres", { folder: fixture.folder, template: TEMPLATE });
  return () => fixture[Symbol.asyncDispose]();
};
