import { setTimeout as sleep } from "node:timers/promises";
import { type Kysely, sql } from "kysely";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { likePattern } from "./like.ts";
import { type Migration, runMigrations } from "./migrations.ts";
import { isForeignKeyViolation, isUnavailable, isUniqueViolation } from "./sql-errors.ts";
import { withTransaction } from "./transaction.ts";

export type ContractSchema = {
  owners: { id: string; name: string; enabled: number };
  things: {
    id: number | undefined;
    owner_id: string;
    name: string | null;
    large: number | null;
    ratio: number | null;
    bytes: Uint8Array | null;
  };
};

/** Written with the schema builder in one vocabulary for both. */
export const CONTRACT_MIGRATION: Migration = {
  name: "0001-owners-things",
  up: async ({ schema }) => {
    await schema
      .createTable("owners")
      .addColumn("id", "text", (column) => column.primaryKey())
      .addColumn("name", "text", (column) => column.notNull().unique())
      .addColumn("enabled", "integer", (column) => column.notNull())
      .execute();
    await schema
      .createTable("things")
      .addColumn("id", "integer", (column) => column.primaryKey().autoIncrement())
      .addColumn("owner_id", "text", (column) => column.notNull().references("owners.id"))
      .addColumn("name", "text")
      .addColumn("large", "bigint")
      .addColumn("ratio", "real")
      .addColumn("bytes", "blob")
      .execute();
  },
};

const SECOND: Migration = {
  name: "0002-row",
  up: async (handle) => {
    await sql`INSERT INTO owners (id, name, enabled) VALUES ('o1', 'one', 1)`.execute(handle);
  },
};

const failureOf = (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );

/** What services rely on, whichever database the operator chose. `open` makes an empty one. */
export const databaseContract = (name: string, open: () => Promise<Kysely<ContractSchema>>): void => {
  describe(`${name}: a database`, () => {
    let database: Kysely<ContractSchema>;

    beforeEach(async () => {
      database = await open();
    });

    afterEach(() => database.destroy());

    const migrate = () => runMigrations(database, [CONTRACT_MIGRATION], 1);
    const addOwner = (id: string, ownerName = id, handle: Kysely<ContractSchema> = database) =>
      handle.insertInto("owners").values({ id, name: ownerName, enabled: 1 }).execute();
    const owners = async (): Promise<string[]> =>
      (await database.selectFrom("owners").select("id").orderBy("id").execute()).map(({ id }) => id);

    it("applies migrations once each, in order", async () => {
      expect(await migrate()).toEqual(["0001-owners-things"]);
      expect(await runMigrations(database, [CONTRACT_MIGRATION, SECOND], 2)).toEqual(["0002-row"]);
      expect(await runMigrations(database, [CONTRACT_MIGRATION, SECOND], 3)).toEqual([]);
      expect(await database.selectFrom("owners").selectAll().execute()).toEqual([
        { id: "o1", name: "one", enabled: 1 },
      ]);
    });

    it("keeps nothing of a failed migration", async () => {
      const broken: Migration = {
        name: "0002-broken",
        up: async (handle) => {
          await sql`CREATE TABLE half (id TEXT)`.execute(handle);
          throw new Error("half way");
        },
      };
      await expect(runMigrations(database, [CONTRACT_MIGRATION, broken], 1)).rejects.toThrow("half way");
      expect(await failureOf(sql`SELECT * FROM half`.execute(database))).toBeInstanceOf(Error);
      expect(await runMigrations(database, [CONTRACT_MIGRATION, SECOND], 2)).toEqual(["0002-row"]);
    });

    it("of a newer program is refused", async () => {
      await migrate();
      await expect(runMigrations(database, [], 2)).rejects.toMatchObject({ code: "database-too-new" });
    });

    it("returns what was written: large integers, fractions, bytes, every letter, nothing", async () => {
      await migrate();
      await addOwner("o1");
      const bytes = Uint8Array.from({ length: 256 }, (_, index) => index);
      const row = { owner_id: "o1", name: "å\u{1F600}'\"\\%", large: Number.MAX_SAFE_INTEGER, ratio: 0.1, bytes };
      await database.insertInto("things").values(row).execute();
      await database.insertInto("things").values({ owner_id: "o1", bytes: new Uint8Array() }).execute();
      const [first, second] = await database.selectFrom("things").selectAll().orderBy("id").execute();
      expect(first).toEqual({ id: 1, ...row });
      expect(first?.bytes?.constructor).toBe(Uint8Array);
      const nothing = { name: null, large: null, ratio: null };
      expect(second).toEqual({ id: 2, owner_id: "o1", ...nothing, bytes: new Uint8Array() });
    });

    it("gives counts, sums and truth as numbers", async () => {
      await migrate();
      await addOwner("o1");
      await database
        .insertInto("things")
        .values([2 ** 40, 5].map((large) => ({ owner_id: "o1", large })))
        .execute();
      const answers = await sql`
        SELECT COUNT(*) AS count, SUM(large) AS sum, SUM(id) AS ids, MAX(large) AS max,
          EXISTS (SELECT 1 FROM things) AS some, EXISTS (SELECT 1 FROM things WHERE large = 1) AS none FROM things`.execute(
        database,
      );
      expect(answers.rows).toEqual([{ count: 2, sum: 2 ** 40 + 5, ids: 3, max: 2 ** 40, some: 1, none: 0 }]);
    });

    it("never gives an integer as another one", async () => {
      await migrate();
      await addOwner("o1");
      await sql`INSERT INTO things (owner_id, large) VALUES ('o1', 9007199254740993)`.execute(database);
      const read = () => database.selectFrom("things").select("large").execute();
      expect(await failureOf(read())).toBeInstanceOf(RangeError);
      await sql`UPDATE things SET large = 1`.execute(database);
      expect(await read()).toEqual([{ large: 1 }]);
    });

    it("counts up a key, says it, and does not give it again", async () => {
      await migrate();
      await addOwner("o1");
      const add = async () =>
        (await database.insertInto("things").values({ owner_id: "o1" }).returning("id").executeTakeFirstOrThrow()).id;
      expect([await add(), await add()]).toEqual([1, 2]);
      await database.deleteFrom("things").where("id", "=", 2).execute();
      expect(await add()).toBe(3);
    });

    it("says how many rows a change touched", async () => {
      await migrate();
      await addOwner("o1");
      await addOwner("o2");
      const change = await database.updateTable("owners").set({ enabled: 0 }).executeTakeFirst();
      const removal = await database.deleteFrom("owners").where("id", "=", "absent").executeTakeFirst();
      expect([change.numUpdatedRows, removal.numDeletedRows]).toEqual([2n, 0n]);
    });

    it("tells a duplicate, a reference that does not hold, and other failures apart", async () => {
      await migrate();
      await addOwner("o1");
      await database.insertInto("things").values({ owner_id: "o1" }).execute();
      const kinds = async (work: Promise<unknown>) => {
        const thrown = await failureOf(work);
        expect(thrown).toBeInstanceOf(Error);
        return [isUniqueViolation(thrown), isForeignKeyViolation(thrown), isUnavailable(thrown)];
      };
      expect(await kinds(addOwner("o1", "other"))).toEqual([true, false, false]);
      expect(await kinds(addOwner("o2", "o1"))).toEqual([true, false, false]);
      expect(await kinds(database.insertInto("things").values({ owner_id: "o9" }).execute())).toEqual([
        false,
        true,
        false,
      ]);
      expect(await kinds(database.deleteFrom("owners").execute())).toEqual([false, true, false]);
      expect(await kinds(sql`SELECT * FROM nowhere`.execute(database))).toEqual([false, false, false]);
    });

    it("compares names with their case", async () => {
      await migrate();
      await addOwner("o1", "Name");
      await addOwner("o2", "name");
      const found = await database.selectFrom("owners").select("id").where("name", "=", "name").execute();
      expect(found).toEqual([{ id: "o2" }]);
    });

    it("finds a text within names, whatever signs are in it, with and without case", async () => {
      await migrate();
      for (const owner of ["50%_\\x", "50abx", "ÉCOLE 50%_\\X"]) await addOwner(owner);
      const find = async (text: string) =>
        (
          await sql<{
            id: string;
          }>`SELECT id FROM owners WHERE name LIKE ${`%${likePattern(text)}%`} ESCAPE '\\' ORDER BY id`.execute(
            database,
          )
        ).rows.map(({ id }) => id);
      const findIgnoringCase = async (text: string) =>
        (
          await sql<{ id: string }>`
            SELECT id FROM owners WHERE LOWER(name) LIKE ${`%${likePattern(text.toLowerCase())}%`} ESCAPE '\\' ORDER BY id`.execute(
            database,
          )
        ).rows.map(({ id }) => id);
      expect(await find("%_\\x")).toEqual(["50%_\\x"]);
      expect(await find("École")).toEqual([]);
      expect(await findIgnoringCase("%_\\X")).toEqual(["50%_\\x", "ÉCOLE 50%_\\X"]);
      expect(await findIgnoringCase("école")).toEqual(["ÉCOLE 50%_\\X"]);
    });

    it("refuses the character NUL as the caller's mistake", async () => {
      await migrate();
      await expect(addOwner("o\0")).rejects.toMatchObject({ code: "bad-request" });
      expect(await owners()).toEqual([]);
    });

    it("keeps all of a transaction, or nothing where its work throws", async () => {
      await migrate();
      const result = await withTransaction(database, async (transaction) => {
        await addOwner("o1", "o1", transaction);
        return "done";
      });
      expect(result).toBe("done");
      const failing = withTransaction(database, async (transaction) => {
        await addOwner("o2", "o2", transaction);
        throw new Error("changed its mind");
      });
      await expect(failing).rejects.toThrow("changed its mind");
      expect(await owners()).toEqual(["o1"]);
    });

    it("commits nothing of a transaction in which a statement failed, also where its work went on", async () => {
      await migrate();
      await addOwner("o1");
      const goesOn = withTransaction(database, async (transaction) => {
        await addOwner("o2", "o2", transaction);
        await failureOf(addOwner("o1", "again", transaction));
        await addOwner("o3", "o3", transaction);
      });
      await expect(goesOn).rejects.toThrow(/transaction is aborted/);
      const ends = withTransaction(database, async (transaction) => {
        await addOwner("o2", "o2", transaction);
        await failureOf(addOwner("o1", "again", transaction));
      });
      expect(await failureOf(ends)).toBeInstanceOf(Error);
      await addOwner("o4");
      expect(await owners()).toEqual(["o1", "o4"]);
    });

    it("lets no transaction see another one half done", async () => {
      await migrate();
      // Each adds a pair; whoever sees one of a pair sees both.
      const seen = await Promise.all(
        [1, 2, 3, 4, 5, 6].map((pair) =>
          withTransaction(database, async (transaction) => {
            const before = await transaction.selectFrom("owners").select("id").execute();
            await addOwner(`a${pair}`, `a${pair}`, transaction);
            await addOwner(`b${pair}`, `b${pair}`, transaction);
            return before.length;
          }),
        ),
      );
      expect(seen.sort((one, other) => one - other)).toEqual([0, 2, 4, 6, 8, 10]);
    });

    it("holds a limit that each transaction checks before it adds, however many come at once", async () => {
      await migrate();
      const LIMIT = 3;
      const added = await Promise.all(
        Array.from({ length: 10 }, (_, index) =>
          withTransaction(database, async (transaction) => {
            const rows = await transaction.selectFrom("owners").select("id").execute();
            // Long enough for the others to have looked too, where they can.
            await sleep(20);
            if (rows.length >= LIMIT) return false;
            await addOwner(`o${index}`, `o${index}`, transaction);
            return true;
          }),
        ),
      );
      expect(added.filter(Boolean)).toHaveLength(LIMIT);
      expect(await owners()).toHaveLength(LIMIT);
    });

    it("loses no increment of a counter that thirty transactions raise at once", async () => {
      await migrate();
      await addOwner("counter");
      await Promise.all(
        Array.from({ length: 30 }, () =>
          withTransaction(database, async (transaction) => {
            const { enabled } = await transaction.selectFrom("owners").select("enabled").executeTakeFirstOrThrow();
            await transaction
              .updateTable("owners")
              .set({ enabled: enabled + 1 })
              .execute();
          }),
        ),
      );
      expect(await database.selectFrom("owners").select("enabled").executeTakeFirst()).toEqual({ enabled: 31 });
    });
  });
};
