import { expect, test } from "vitest";
import { systemClock } from "../../common/clock.ts";
import { parseIdentityConfig } from "../config.ts";
import { PostgresFixture, whyNoPostgres } from "../../common/sql/postgres-fixture.ts";
import { type DatabaseFixture, openDirectoryFixture } from "./directory-fixture.ts";
import { createPasswordHasher } from "./password-hasher.ts";
import { WHOLE_LIST } from "./records.ts";
import { createPasswordCheck } from "./sql-password-check.ts";

const FAILED = { failed_login_count: 3, failed_login_at_ms: Date.now() };

const oneHashOneWrite = async (fixture: DatabaseFixture): Promise<void> => {
  const { database, changes, directory } = fixture;
  const domainId = await fixture.addDomain();
  await fixture.fill(domainId);
  const idOf = async (name: string): Promise<string> => (await directory.findUserByName(domainId, name))?.id ?? "";
  const [known, disabled, locked, without] = [await idOf("alice"), await idOf("bob"), await idOf("Alan"), "without"];
  await changes.write(async (transaction) => {
    await transaction.updateTable("users").set(FAILED).where("id", "=", locked).execute();
    const row = await transaction.selectFrom("users").selectAll().where("id", "=", known).executeTakeFirstOrThrow();
    await transaction
      .insertInto("users")
      .values({ ...row, id: without, name: without })
      .execute();
  });

  const config = parseIdentityConfig({ lockout_failure_attempts: 3 });
  const hasher = await createPasswordHasher(config.passwordHash);
  const work: string[] = [];
  const check = createPasswordCheck({
    database,
    clock: systemClock,
    config,
    hasher: {
      ...hasher,
      verify: (password, stored) => {
        work.push("hash");
        return hasher.verify(password, stored);
      },
    },
    changes: {
      ...changes,
      record: (write) => {
        work.push("write");
        return changes.record(write);
      },
    },
  });
  for (const [userId, verdict] of [
    [known, "wrong"],
    [disabled, "wrong"],
    [locked, "locked"],
    [without, "wrong"],
    ["nobody", "wrong"],
    [undefined, "wrong"],
  ] as const) {
    work.length = 0;
    expect([userId, await check(userId, "wrong")]).toEqual([userId, verdict]);
    expect([userId, work]).toEqual([userId, ["hash", "write"]]);
  }
  work.length = 0;
  expect(await check(locked, "alan's password")).toBe("locked");
  expect(work).toEqual(["hash", "write"]);
};

const TITLE = "a refused login costs one hash and one write, whoever is named and whatever is wrong";

test(TITLE, async () => {
  await using fixture = await openDirectoryFixture();
  await oneHashOneWrite(fixture);
});

test.skipIf(whyNoPostgres() !== undefined)(`${TITLE}, on PostgreSQL too`, async () => {
  await using server = await PostgresFixture.start();
  await using fixture = await openDirectoryFixture(server.server());
  await oneHashOneWrite(fixture);
});

test("whoever was inactive for too long is listed as disabled on both databases", async () => {
  await using servers = new AsyncDisposableStack();
  const places = [
    undefined,
    whyNoPostgres() === undefined ? servers.use(await PostgresFixture.start()).server() : undefined,
  ];
  for (const place of places) {
    await using fixture = await openDirectoryFixture(place, { disable_user_account_days_inactive: 10 });
    const { changes, directory } = fixture;
    const domainId = await fixture.addDomain();
    await fixture.fill(domainId);
    const setAll = (fields: { last_active_at_ms: number } | { options: string }, name?: string) =>
      changes.write((transaction) => {
        const update = transaction.updateTable("users").set(fields).where("domain_id", "=", domainId);
        return (name === undefined ? update : update.where("name", "=", name)).execute();
      });
    const enabled = async (): Promise<string[]> => {
      const conditions = [
        { column: "domain_id", comparison: "equals", value: domainId },
        { column: "enabled", comparison: "equals", value: 1 },
      ] as const;
      const users = await directory.listUsers({ ...WHOLE_LIST, sortColumn: "name", conditions });
      return users.map(({ name }) => name);
    };
    // They were made in 1970 and never seen since.
    expect(await enabled()).toEqual([]);
    await setAll({ options: '{"ignore_user_inactivity":true}' }, "alice");
    await setAll({ options: '{"ignore_user_inactivity":false}' }, "Alan");
    expect(await enabled()).toEqual(["alice"]);
    expect((await directory.findUserByName(domainId, "Alan"))?.enabled).toBe(false);
    await setAll({ last_active_at_ms: Date.now() });
    expect((await enabled()).slice(0, 2)).toEqual(["Alan", "alice"]);
    expect((await directory.findUserByName(domainId, "bob"))?.enabled).toBe(false);
  }
});
