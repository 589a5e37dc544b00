import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Kysely, sql } from "kysely";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Migration, runMigrations } from "./migrations.ts";
import { isUniqueViolation, openSqlite } from "./sqlite.ts";

type Schema = { things: { id: number; name: string } };

const first: Migration = {
  name: "0001-things",
  up: async (database) => {
    await database.schema
      .createTable("things")
      .addColumn("id", "integer", (column) => column.primaryKey())
      .addColumn("name", "text", (column) => column.notNull().unique())
      .execute();
  },
};

let folder: string;
let database: Kysely<Schema>;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ringstead-sql-"));
  database = openSqlite(join(folder, "test.db"));
});

afterEach(async () => {
  await database.destroy();
  rmSync(folder, { recursive: true });
});

test("a database syncs each commit, enforces foreign keys and is private", async () => {
  const read = async (pragma: string): Promise<unknown> =>
    Object.values(
      (await sql<Record<string, unknown>>`${sql.raw(`PRAGMA ${pragma}`)}`.execute(database)).rows[0] ?? {},
    )[0];
  expect(await read("journal_mode")).toBe("wal");
  expect(await read("synchronous")).toBe(2);
  expect(await read("foreign_keys")).toBe(1);
  expect(statSync(join(folder, "test.db")).mode & 0o777).toBe(0o600);
});

test("migrations run once each, in order", async () => {
  const second: Migration = {
    name: "0002-row",
    up: async (handle) => {
      await sql`INSERT INTO things (id, name) VALUES (1, 'one')`.execute(handle);
    },
  };
  expect(await runMigrations(database, [first], 1)).toEqual(["0001-things"]);
  expect(await runMigrations(database, [first, second], 2)).toEqual(["0002-row"]);
  expect(await runMigrations(database, [first, second], 3)).toEqual([]);
  expect(await database.selectFrom("things").selectAll().execute()).toEqual([{ id: 1, name: "one" }]);
});

test("a failed migration leaves nothing behind", async () => {
  const broken: Migration = {
    name: "0002-broken",
    up: async (handle) => {
      await sql`INSERT INTO things (id, name) VALUES (1, 'one')`.execute(handle);
      throw new Error("half way");
    },
  };
  await expect(runMigrations(database, [first, broken], 1)).rejects.toThrow("half way");
  expect(await database.selectFrom("things").selectAll().execute()).toEqual([]);
  expect(await runMigrations(database, [first], 2)).toEqual([]);
});

test("a schema of a newer program is refused", async () => {
  await runMigrations(database, [first], 1);
  await expect(runMigrations(database, [], 2)).rejects.toMatchObject({ code: "database-too-new" });
});

test("concurrent transactions of one handle do not see each other half done", async () => {
  await runMigrations(database, [first], 1);
  const add = (id: number): Promise<number> =>
    database.transaction().execute(async (transaction) => {
      const before = (await transaction.selectFrom("things").selectAll().execute()).length;
      await transaction
        .insertInto("things")
        .values({ id, name: `thing ${id}` })
        .execute();
      return before;
    });
  expect(await Promise.all([add(1), add(2), add(3)])).toEqual([0, 1, 2]);
});

test("a duplicate key is told apart from other failures", async () => {
  await runMigrations(database, [first], 1);
  const insert = () => database.insertInto("things").values({ id: 1, name: "one" }).execute();
  await insert();
  const thrown: unknown = await insert().catch((error: unknown) => error);
  expect(isUniqueViolation(thrown)).toBe(true);
  expect(isUniqueViolation(new Error("other"))).toBe(false);
});
