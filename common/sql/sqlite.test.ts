import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { type Kysely, sql } from "kysely";
import { afterEach, beforeEach, expect, test } from "vitest";
import { silentLog } from "../log.ts";
import { CONTRACT_MIGRATION, type ContractSchema, databaseContract } from "./database.contract.ts";
import { openDatabase } from "./database.ts";
import { openSqlite } from "./sqlite.ts";
import { runMigrations } from "./migrations.ts";
import { withTransaction } from "./transaction.ts";

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ringstead-sql-"));
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

const open = (): Promise<Kysely<ContractSchema>> =>
  openDatabase({ server: undefined, namespace: "contract", sqlitePath: join(folder, "test.db"), log: silentLog });

databaseContract("SQLite", open);

test("a database syncs each commit, enforces foreign keys and is private", async () => {
  const database = await open();
  const read = async (pragma: string): Promise<unknown> =>
    Object.values(
      (await sql<Record<string, unknown>>`${sql.raw(`PRAGMA ${pragma}`)}`.execute(database)).rows[0] ?? {},
    )[0];
  expect(await read("journal_mode")).toBe("wal");
  expect(await read("synchronous")).toBe(2);
  expect(await read("foreign_keys")).toBe(1);
  expect(statSync(join(folder, "test.db")).mode & 0o777).toBe(0o600);
  await database.destroy();
});

test("migrations of two processes that start at the same time are each done by one of them", async () => {
  const program = `
    import { runMigrations } from ${JSON.stringify(join(import.meta.dirname, "migrations.ts"))};
    import { openSqlite } from ${JSON.stringify(join(import.meta.dirname, "sqlite.ts"))};
    import { sql } from "kysely";
    const steps = [1, 2, 3, 4, 5].map((step) => ({
      name: "000" + step,
      up: async (handle) => void (await sql.raw("CREATE TABLE t" + step + " (id INTEGER)").execute(handle)),
    }));
    const database = openSqlite(${JSON.stringify(join(folder, "test.db"))});
    process.stdout.write(JSON.stringify(await runMigrations(database, steps, 1)));
    await database.destroy();`;
  const run = async (): Promise<string[]> => {
    const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", program], {
      cwd: import.meta.dirname,
    });
    return JSON.parse(stdout) as string[];
  };
  const [one, other] = await Promise.all([run(), run()]);
  expect([...one, ...other].sort()).toEqual(["0001", "0002", "0003", "0004", "0005"]);
});

test("a full database answers database-unavailable, keeps what it had, and goes on once there is room", async () => {
  const database = await open();
  await runMigrations(database, [CONTRACT_MIGRATION], 1);
  const add = (id: string) =>
    withTransaction(database, (transaction) =>
      transaction
        .insertInto("owners")
        .values({ id, name: id.repeat(100_000), enabled: 1 })
        .execute(),
    );
  await add("a");
  const pages = (await sql<{ page_count: number }>`PRAGMA page_count`.execute(database)).rows[0]?.page_count ?? 0;
  await sql.raw(`PRAGMA max_page_count = ${pages}`).execute(database);
  await expect(add("b")).rejects.toMatchObject({ code: "database-unavailable" });
  await sql.raw(`PRAGMA max_page_count = ${pages * 10}`).execute(database);
  await add("c");
  expect(await database.selectFrom("owners").select("id").execute()).toEqual([{ id: "a" }, { id: "c" }]);
  await database.destroy();
});

test("a database that another process keeps locked answers database-unavailable, and goes on afterwards", async () => {
  await using database = openSqlite<ContractSchema>(join(folder, "test.db"), 100);
  await runMigrations(database, [CONTRACT_MIGRATION], 1);
  const other = new DatabaseSync(join(folder, "test.db"));
  other.exec("BEGIN IMMEDIATE");
  const add = () => database.insertInto("owners").values({ id: "o1", name: "o1", enabled: 1 }).execute();
  await expect(add()).rejects.toMatchObject({ code: "database-unavailable" });
  await expect(withTransaction(database, add)).rejects.toMatchObject({ code: "database-unavailable" });
  other.exec("ROLLBACK");
  other.close();
  await add();
  expect(await database.selectFrom("owners").select("id").execute()).toEqual([{ id: "o1" }]);
});

test("who waits for another process's lock stops nobody, and goes on when it is free; all wait for the same time", async () => {
  await using database = openSqlite<ContractSchema>(join(folder, "test.db"), 300);
  await using reader = await open();
  await runMigrations(database, [CONTRACT_MIGRATION], 1);
  const other = new DatabaseSync(join(folder, "test.db"));
  const add = (id: string) =>
    withTransaction(database, (transaction) =>
      transaction.insertInto("owners").values({ id, name: id, enabled: 1 }).execute(),
    );
  const startedMs = performance.now();
  other.exec("BEGIN IMMEDIATE");
  const waiting = [add("o1"), database.insertInto("owners").values({ id: "o2", name: "o2", enabled: 1 }).execute()];
  expect(await reader.selectFrom("owners").select("id").execute()).toEqual([]);
  expect(performance.now() - startedMs).toBeLessThan(250);
  other.exec("ROLLBACK");
  await Promise.all(waiting);
  other.exec("BEGIN IMMEDIATE");
  const lockedMs = performance.now();
  const failures = await Promise.allSettled(["o3", "o4", "o5", "o6", "o7", "o8"].map(add));
  expect(new Set(failures.map(({ status }) => status))).toEqual(new Set(["rejected"]));
  expect(performance.now() - lockedMs).toBeGreaterThan(250);
  expect(performance.now() - lockedMs).toBeLessThan(1_200);
  other.close();
  await add("o9");
  const ids = (await reader.selectFrom("owners").select("id").orderBy("id").execute()).map(({ id }) => id);
  expect(ids).toEqual(["o1", "o2", "o9"]);
});
