import { execFileSync } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Kysely, sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { freePorts } from "../free-ports.ts";
import { silentLog } from "../log.ts";
import { CONTRACT_MIGRATION, type ContractSchema, databaseContract } from "./database.contract.ts";
import { databaseServerOf } from "./database-config.ts";
import { openDatabase } from "./database.ts";
import { runMigrations } from "./migrations.ts";
import { PostgresFixture, whyNoPostgres } from "./postgres-fixture.ts";
import { openPostgres } from "./postgres.ts";
import { isUnavailable } from "./sql-errors.ts";
import { withTransaction } from "./transaction.ts";

const reason = whyNoPostgres();

describe.skipIf(reason !== undefined)(`PostgreSQL${reason === undefined ? "" : ` (${reason})`}`, () => {
  let postgres: PostgresFixture;
  let count = 0;
  let namespace = "";

  beforeAll(async () => {
    postgres = await PostgresFixture.start();
  });

  afterAll(() => postgres[Symbol.asyncDispose]());

  const openAgain = (server = postgres.server()): Promise<Kysely<ContractSchema>> =>
    openDatabase({ server, namespace, sqlitePath: "", log: silentLog });
  const open = (): Promise<Kysely<ContractSchema>> => {
    count += 1;
    namespace = `contract_${count}`;
    return openAgain();
  };
  const openImpatient = async (poolSize = 10): Promise<Kysely<ContractSchema>> => {
    count += 1;
    const patience = { connectMs: 1_000, statementMs: 10_000, answerMs: 2_000 };
    return openPostgres(postgres.server(poolSize), `contract_${count}`, silentLog, patience);
  };
  const add = (database: Kysely<ContractSchema>, id: string) =>
    database.insertInto("owners").values({ id, name: id, enabled: 1 }).execute();
  const ids = async (database: Kysely<ContractSchema>) =>
    (await database.selectFrom("owners").select("id").orderBy("id").execute()).map(({ id }) => id);

  databaseContract("PostgreSQL", open);

  it("syncs each commit, whatever the role's settings are", async () => {
    await using database = await open();
    await sql`ALTER ROLE ringstead SET synchronous_commit = off`.execute(database);
    await using another = await openAgain();
    const read = async (name: string) => (await sql`${sql.raw(`SHOW ${name}`)}`.execute(another)).rows[0];
    expect(await read("fsync")).toEqual({ fsync: "on" });
    expect(await read("synchronous_commit")).toEqual({ synchronous_commit: "on" });
    await sql`ALTER ROLE ringstead RESET synchronous_commit`.execute(database);
  });

  it("does each migration once where several nodes start at the same time", async () => {
    await using one = await open();
    await using two = await openAgain();
    await using three = await openAgain();
    const steps = [1, 2, 3, 4, 5].map((step) => ({
      name: `000${step}`,
      up: async (handle: Kysely<unknown>) => {
        await sql.raw(`CREATE TABLE t${step} (id INTEGER)`).execute(handle);
      },
    }));
    const done = await Promise.all([one, two, three].map((database) => runMigrations(database, steps, 1)));
    expect(done.flat().sort()).toEqual(["0001", "0002", "0003", "0004", "0005"]);
  });

  it("keeps services apart that share a server", async () => {
    await using one = await open();
    expect(await runMigrations(one, [CONTRACT_MIGRATION], 1)).toHaveLength(1);
    await add(one, "o1");
    await using other = await open();
    expect(await runMigrations(other, [CONTRACT_MIGRATION], 1)).toHaveLength(1);
    expect(await ids(other)).toEqual([]);
  });

  it.each(["SIGINT", "SIGQUIT"] as const)("goes on by itself after the server was away (%s)", async (signal) => {
    await using database = await open();
    await runMigrations(database, [CONTRACT_MIGRATION], 1);
    // Connections that are idle, and one that is in a transaction, when the server goes.
    await Promise.all(["a", "b", "c"].map((id) => add(database, id)));
    const cut = withTransaction(database, async (transaction) => {
      await add(transaction, "half");
      await postgres.stop(signal);
      await add(transaction, "other half");
    });
    await expect(cut).rejects.toMatchObject({ code: "database-unavailable" });
    const asked = Date.now();
    await expect(ids(database)).rejects.toMatchObject({ code: "database-unavailable" });
    await expect(add(database, "d")).rejects.toSatisfy(isUnavailable);
    expect(Date.now() - asked).toBeLessThan(1_000);
    await postgres.run();
    expect(await ids(database)).toEqual(["a", "b", "c"]);
    await add(database, "e");
    expect(await ids(database)).toEqual(["a", "b", "c", "e"]);
  });

  it("goes on after an administrator ended its connections", async () => {
    await using database = await open();
    await runMigrations(database, [CONTRACT_MIGRATION], 1);
    await using administrator = await openAgain();
    const endAll = sql`
      SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = ${`ringstead ${namespace}`} AND pid <> pg_backend_pid()`;
    const cut = withTransaction(database, async (transaction) => {
      await add(transaction, "half");
      await endAll.execute(administrator);
      await add(transaction, "other half");
    });
    await expect(cut).rejects.toMatchObject({ code: "database-unavailable" });
    expect(await ids(database)).toEqual([]);
  });

  it("goes on after another node changed a table that is in use", async () => {
    await using database = await open();
    await runMigrations(database, [CONTRACT_MIGRATION], 1);
    await add(database, "o1");
    const read = () => database.selectFrom("owners").selectAll().where("id", "=", "o1").execute();
    await read();
    await using other = await openAgain();
    await sql`ALTER TABLE owners ADD COLUMN colour TEXT`.execute(other);
    await expect(read()).rejects.toMatchObject({ code: "database-unavailable" });
    expect(await read()).toEqual([{ id: "o1", name: "o1", enabled: 1, colour: null }]);
  });

  it("answers database-unavailable where all connections are taken for too long", async () => {
    await using database = await openImpatient(1);
    await runMigrations(database, [CONTRACT_MIGRATION], 1);
    await withTransaction(database, async (transaction) => {
      await add(transaction, "o1");
      await expect(ids(database)).rejects.toMatchObject({ code: "database-unavailable" });
    });
    expect(await ids(database)).toEqual(["o1"]);
  });

  it("does not wait for ever for a server that accepts no connection", async () => {
    await using database = await openImpatient();
    postgres.pause("SIGSTOP");
    try {
      await expect(ids(database)).rejects.toMatchObject({ code: "database-unavailable" });
    } finally {
      postgres.pause("SIGCONT");
    }
    expect(await runMigrations(database, [CONTRACT_MIGRATION], 1)).toHaveLength(1);
  });

  it("gives up a connection on which no answer comes, and takes no late answer for another one", async () => {
    await using database = await openImpatient(1);
    await runMigrations(database, [CONTRACT_MIGRATION], 1);
    const own = sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`;
    let silent = 0;
    let silentSince = 0;
    const cut = withTransaction(database, async (transaction) => {
      silent = (await own.execute(transaction)).rows[0]!.pid;
      process.kill(silent, "SIGSTOP");
      silentSince = performance.now();
      await sql`SELECT 1 AS late`.execute(transaction);
    });
    try {
      await expect(cut).rejects.toMatchObject({ code: "database-unavailable" });
      // The limit once, not again for the rollback.
      expect(performance.now() - silentSince).toBeLessThan(3_900);
      expect((await own.execute(database)).rows[0]!.pid).not.toBe(silent);
    } finally {
      if (silent !== 0) process.kill(silent, "SIGCONT");
    }
    await add(database, "o1");
    expect(await ids(database)).toEqual(["o1"]);
  });

  it("encrypts the connection and speaks to no server but the one that the authority vouches for", async () => {
    const folder = mkdtempSync(join(tmpdir(), "ringstead-pg-tls-"));
    try {
      const certificate = (name: string) => {
        const [keyFile, certFile] = [join(folder, `${name}.key`), join(folder, `${name}.crt`)];
        const subject = ["-subj", `/CN=${name}`, "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"];
        const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", keyFile];
        execFileSync("openssl", ["req", "-x509", ...key, "-out", certFile, ...subject], { stdio: "pipe" });
        return { keyFile, certFile };
      };
      const right = certificate("right");
      const wrong = certificate("wrong");
      const port = await freePorts(1);
      await using server = await PostgresFixture.start({ tls: { port, ...right } });
      const url = (host: string) => `postgresql://ringstead@${host}:${port}/postgres`;
      const connect = (host: string, authority: string) =>
        openAgain(databaseServerOf({ url: url(host), password_file: server.passwordFile, tls_ca: authority }));
      const encrypted = sql`SELECT ssl AS encrypted FROM pg_stat_ssl WHERE pid = pg_backend_pid()`;

      await using good = await connect("127.0.0.1", right.certFile);
      expect((await encrypted.execute(good)).rows).toEqual([{ encrypted: 1 }]);
      await using stranger = await connect("127.0.0.1", wrong.certFile);
      await expect(encrypted.execute(stranger)).rejects.toMatchObject({ code: "database-unavailable" });
      await using misnamed = await connect("localhost", right.certFile);
      await expect(encrypted.execute(misnamed)).rejects.toMatchObject({
        code: "database-unavailable",
        fields: { reason: expect.stringMatching(/altnames/) as string },
      });
      await expect(connect("127.0.0.1", join(folder, "absent"))).rejects.toThrow(
        /database\.tls_ca: .* cannot be read \(ENOENT\)/,
      );
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("ends a statement that waits for a lock too long, and says so", async () => {
    await using database = await open();
    await runMigrations(database, [CONTRACT_MIGRATION], 1);
    await add(database, "o1");
    await withTransaction(database, async (holder) => {
      await holder.updateTable("owners").set({ enabled: 2 }).execute();
      const waiter = withTransaction(database, async (transaction) => {
        // The limit that is always there, shorter.
        await sql`SET LOCAL statement_timeout = 100`.execute(transaction);
        await transaction.updateTable("owners").set({ enabled: 3 }).execute();
      });
      await expect(waiter).rejects.toMatchObject({ code: "database-unavailable" });
    });
    expect(await database.selectFrom("owners").select("enabled").execute()).toEqual([{ enabled: 2 }]);
    const limits = await sql<{ limit: string }>`SELECT current_setting('statement_timeout') AS limit`.execute(database);
    expect(limits.rows).toEqual([{ limit: "30s" }]);
  });

  it("answers database-unavailable where the login is refused, and goes on once the password file is right", async () => {
    await open().then((database) => database.destroy());
    const file = join(postgres.folder, "another-password");
    writeFileSync(file, "wrong\n", { mode: 0o600 });
    const url = `postgresql:///postgres?host=${postgres.folder}&user=ringstead`;
    await using database = await openAgain(databaseServerOf({ url, password_file: file }));
    await expect(runMigrations(database, [CONTRACT_MIGRATION], 1)).rejects.toMatchObject({
      code: "database-unavailable",
      fields: { reason: expect.stringContaining("password authentication failed") as string },
    });
    writeFileSync(file, "a test's password\n");
    expect(await runMigrations(database, [CONTRACT_MIGRATION], 1)).toHaveLength(1);
    chmodSync(file, 0o644);
    await expect(openAgain(databaseServerOf({ url, password_file: file }))).rejects.toThrow(/others can read/);
    rmSync(file);
    await expect(openAgain(databaseServerOf({ url, password_file: file }))).rejects.toThrow(
      /cannot be read \(ENOENT\)/,
    );
  });
});
