import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Kysely, sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { silentLog } from "../log.ts";
import { appliedMigrations, copyRows } from "./copy-rows.ts";
import { CONTRACT_MIGRATION, type ContractSchema } from "./database.contract.ts";
import { type Migration, runMigrations } from "./migrations.ts";
import { PostgresFixture, whyNoPostgres } from "./postgres-fixture.ts";
import { openPostgres } from "./postgres.ts";
import { openSqlite } from "./sqlite.ts";
import { withTransaction } from "./transaction.ts";

type Schema = ContractSchema & { nodes: { id: string; parent_id: string | null } };

const NODES: Migration = {
  name: "0002-nodes",
  up: async ({ schema }) => {
    await schema
      .createTable("nodes")
      .addColumn("id", "text", (column) => column.primaryKey())
      .addColumn("parent_id", "text", (column) => column.references("nodes.id"))
      .execute();
  },
};
const MIGRATIONS = [CONTRACT_MIGRATION, NODES];
const reason = whyNoPostgres();

let folder = "";
let postgres: PostgresFixture | undefined;
let count = 0;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "ringstead-copy-"));
  if (reason === undefined) postgres = await PostgresFixture.start({ isDurable: false });
});
afterAll(async () => {
  await postgres?.[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

const open = async (kind: "SQLite" | "PostgreSQL", migrations: readonly Migration[] = MIGRATIONS) => {
  count += 1;
  const name = `copy_${count}`;
  const database: Kysely<Schema> =
    kind === "SQLite" ? openSqlite(join(folder, name)) : openPostgres(postgres!.server(), name, silentLog);
  await runMigrations(database, migrations, 1);
  return database;
};

const rowsOf = async (database: Kysely<Schema>) => ({
  owners: await database.selectFrom("owners").selectAll().orderBy("id").execute(),
  things: await database.selectFrom("things").selectAll().orderBy("id").execute(),
  nodes: await database.selectFrom("nodes").selectAll().orderBy("id").execute(),
});

const fill = async (database: Kysely<Schema>): Promise<void> => {
  await database.insertInto("owners").values({ id: "o1", name: "å\u{1F600}'\"\\%", enabled: 1 }).execute();
  const bytes = Uint8Array.from({ length: 256 }, (_, index) => index);
  const large = Number.MAX_SAFE_INTEGER;
  await database.insertInto("things").values({ owner_id: "o1", name: "", large, ratio: 0.1, bytes }).execute();
  for (let part = 0; part < 3; part += 1) {
    await database
      .insertInto("things")
      .values(Array.from({ length: 401 }, (_, index) => ({ owner_id: "o1", name: `${part}-${index}` })))
      .execute();
  }
  await database.deleteFrom("things").where("id", ">", 1_200).execute();
  // Who is above comes after who is beneath.
  await database.insertInto("nodes").values({ id: "z", parent_id: null }).execute();
  await database.insertInto("nodes").values({ id: "a", parent_id: "z" }).execute();
  await database.insertInto("nodes").values({ id: "m", parent_id: "a" }).execute();
  await database.updateTable("nodes").set({ parent_id: "m" }).where("id", "=", "z").execute();
};

const PAIRS = [
  ["SQLite", "SQLite"],
  ["SQLite", "PostgreSQL"],
  ["PostgreSQL", "SQLite"],
  ["PostgreSQL", "PostgreSQL"],
] as const;

describe.each(PAIRS)("rows of %s copied to %s", (from, to) => {
  const isAbsent = reason !== undefined && (from === "PostgreSQL" || to === "PostgreSQL");

  it.skipIf(isAbsent)("are all there as they were, and counted keys go on", async () => {
    await using source = await open(from);
    await using target = await open(to);
    await fill(source);
    expect(await copyRows(source, target)).toBe(1_200 + 4);
    expect(await rowsOf(target)).toEqual(await rowsOf(source));
    const add = (database: Kysely<Schema>) =>
      database.insertInto("things").values({ owner_id: "o1" }).returning("id").executeTakeFirstOrThrow();
    expect(await add(target)).toEqual({ id: 1_205 });
    expect(await add(source)).toEqual({ id: 1_205 });
    const orphan = target.insertInto("nodes").values({ id: "x", parent_id: "nowhere" }).execute();
    await expect(orphan).rejects.toThrow(/foreign key/i);
    expect(await appliedMigrations(target)).toEqual(MIGRATIONS.map(({ name }) => name));
  });

  it.skipIf(isAbsent)(
    "are all that is there then, also where migrations make rows, one of which the source has deleted",
    async () => {
      const made: Migration = {
        name: "0003-made",
        up: async (untyped) => {
          const database = untyped.withTables<Pick<Schema, "nodes">>();
          await database.insertInto("nodes").values({ id: "made", parent_id: null }).execute();
          await database.insertInto("nodes").values({ id: "made-too", parent_id: "made" }).execute();
        },
      };
      await using source = await open(from, [...MIGRATIONS, made]);
      await using target = await open(to, [...MIGRATIONS, made]);
      await source.deleteFrom("nodes").where("id", "=", "made-too").execute();
      expect(await copyRows(source, target)).toBe(1);
      expect(await rowsOf(target)).toEqual(await rowsOf(source));
    },
  );

  it.skipIf(isAbsent)("are none where one of them does not fit", async () => {
    await using source = await open(from);
    await using target = await open(to, [CONTRACT_MIGRATION]);
    await fill(source);
    await expect(copyRows(source, target)).rejects.toThrow(/nodes/);
    expect(await target.selectFrom("owners").selectAll().execute()).toEqual([]);
  });

  it.skipIf(isAbsent)("are those of one moment, whatever is written meanwhile", async () => {
    await using source = await open(from);
    await using target = await open(to);
    let isOver = false;
    const writer = (async () => {
      for (let index = 0; !isOver; index += 1) {
        await withTransaction(source, async (transaction) => {
          await transaction
            .insertInto("owners")
            .values({ id: `o${index}`, name: `o${index}`, enabled: 1 })
            .execute();
          await transaction
            .insertInto("things")
            .values({ owner_id: `o${index}` })
            .execute();
        });
      }
    })();
    while ((await source.selectFrom("owners").selectAll().execute()).length < 20) {
      // The writer goes on meanwhile.
    }
    await copyRows(source, target);
    isOver = true;
    await writer;
    const { owners, things } = await rowsOf(target);
    expect(owners.length).toBeGreaterThanOrEqual(20);
    expect(new Set(things.map(({ owner_id }) => owner_id))).toEqual(new Set(owners.map(({ id }) => id)));
  });
});

it.skipIf(reason !== undefined)("a database that was never used has had no migration", async () => {
  await using empty = openPostgres<Schema>(postgres!.server(), "never_used", silentLog);
  expect(await appliedMigrations(empty)).toEqual([]);
  await using file = openSqlite<Schema>(join(folder, "never-used"));
  expect(await appliedMigrations(file)).toEqual([]);
  await sql`CREATE TABLE stranger (id TEXT)`.execute(file);
  expect(await appliedMigrations(file)).toEqual([]);
});
