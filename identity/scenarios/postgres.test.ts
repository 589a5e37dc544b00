import { existsSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { databaseTable, PostgresFixture, whyNoPostgres } from "../../common/sql/postgres-fixture.ts";
import { TestInstallation } from "../../scripts/scenarios/installation.ts";
import { at, listAt, textAt, tokenOf } from "../test-client.ts";
import { adminSession } from "./cloud-session.ts";

const BACK = { timeout: 30_000, interval: 100 };
const PASSWORD = "a member's password";
const reason = whyNoPostgres();

describe.skipIf(reason !== undefined)(
  `an installation on PostgreSQL${reason === undefined ? "" : ` (${reason})`}`,
  () => {
    const installation = new TestInstallation();
    let postgres: PostgresFixture;
    let session: Awaited<ReturnType<typeof adminSession>>;

    const tomlOf = (): string => {
      const { url, password_file } = databaseTable(postgres.folder);
      return `[database]\nurl = "${url}"\npassword_file = "${password_file}"\n`;
    };

    beforeAll(async () => {
      postgres = await PostgresFixture.start();
      writeFileSync(join(installation.folder, "cluster.toml"), tomlOf());
      await installation.up();
      session = await adminSession(installation.folder);
    });

    afterAll(async () => {
      await installation[Symbol.asyncDispose]();
      await postgres[Symbol.asyncDispose]();
    });

    const asAdmin = (method: string, path: string, body?: unknown) =>
      session.call(method, `/v3${path}`, { token: session.token, ...(body === undefined ? {} : { body }) });

    /** A member of a project of one's own. */
    const member = async (name: string) => {
      const projectId = textAt(await asAdmin("POST", "/projects", { project: { name } }), "project.id");
      const id = textAt(await asAdmin("POST", "/users", { user: { name, password: PASSWORD } }), "user.id");
      const roleId = textAt(await asAdmin("GET", "/roles?name=member"), "roles.0.id");
      expect((await asAdmin("PUT", `/projects/${projectId}/users/${id}/roles/${roleId}`)).status).toBe(204);
      const login = () => session.login({ id, password: PASSWORD }, { project: { id: projectId } });
      const token = tokenOf(await login());
      const store = async (method: string, path: string, body?: string) => {
        const url = `${session.objectUrl}/AUTH_${projectId}${path}`;
        const headers = { "x-auth-token": token };
        const response = await fetch(url, { method, headers, ...(body === undefined ? {} : { body }) });
        return { status: response.status, text: await response.text() };
      };
      return { id, token, login, store };
    };

    const processes = () =>
      installation
        .ready()
        .processes.map(({ role, pid }) => `${role} ${pid}`)
        .toSorted();

    it("while the database is away tokens serve the data plane, what needs it says 503, and it goes on by itself with all it had", async () => {
      const alice = await member("alice");
      const gone = await member("gone");
      expect((await alice.store("PUT", "/box")).status).toBe(201);
      expect((await alice.store("PUT", "/box/before", "before")).status).toBe(201);
      expect((await gone.store("HEAD", "")).status).toBe(204);
      const before = processes();

      // Somebody writes all the time; whatever was answered with success must be there afterwards.
      const written: string[] = [];
      let isOver = false;
      const refused = new Set<number>();
      const writer = (async () => {
        for (let index = 0; !isOver; index += 1) {
          const { status } = await asAdmin("POST", "/regions", { region: { id: `region-${index}` } });
          if (status === 201) written.push(`region-${index}`);
          else refused.add(status);
        }
      })();
      await expect.poll(() => written.length, BACK).toBeGreaterThan(20);
      expect(
        (await session.call("DELETE", "/v3/auth/tokens", { token: session.token, subject: gone.token })).status,
      ).toBe(204);
      await postgres.stop("SIGQUIT");
      await expect.poll(() => refused.size, BACK).toBe(1);
      isOver = true;
      await writer;
      expect([...refused]).toEqual([503]);

      expect((await alice.store("PUT", "/box/during", "during")).status).toBe(201);
      expect(await alice.store("GET", "/box/before")).toEqual({ status: 200, text: "before" });
      expect(await alice.store("GET", "/box")).toEqual({ status: 200, text: "before\nduring\n" });
      expect((await gone.store("HEAD", "")).status).toBe(401);
      const failures = [
        await asAdmin("GET", "/users"),
        await asAdmin("POST", "/users", { user: { name: "bob" } }),
        await asAdmin("DELETE", `/users/${alice.id}`),
        await alice.login(),
        await session.call("GET", "/healthcheck"),
      ];
      for (const answer of failures) {
        expect(answer.status).toBe(503);
        expect(at(answer, "error")).toEqual({
          code: 503,
          title: "Service Unavailable",
          message: "The database is not available at the moment; try again later.",
        });
      }
      expect((await session.call("GET", "/v3")).status).toBe(200);
      const { code, output } = await installation.command("status");
      expect(code).toBe(1);
      expect(output).toContain("identity does not answer: answers 503: The database is not available");
      const backup = await installation.command("backup", join(installation.folder, "no-backup"));
      expect([backup.code === 0, existsSync(join(installation.folder, "no-backup"))]).toEqual([false, false]);
      // Longer than the workers that ask it all the time need to give up, if they did.
      await sleep(2_000);
      expect(processes()).toEqual(before);

      await postgres.run();
      await expect.poll(async () => (await asAdmin("GET", "/users")).status, BACK).toBe(200);
      const regions = new Set(listAt(await asAdmin("GET", "/regions"), "regions").map(({ id }) => id));
      expect(written.filter((id) => !regions.has(id))).toEqual([]);
      expect((await asAdmin("GET", `/users/${alice.id}`)).status).toBe(200);
      expect((await alice.login()).status).toBe(201);
      expect((await gone.store("HEAD", "")).status).toBe(401);
      await expect.poll(async () => (await installation.command("status")).code, BACK).toBe(0);
      expect(processes()).toEqual(before);

      // Revocations reach the data plane again.
      expect((await alice.store("HEAD", "")).status).toBe(204);
      await session.call("DELETE", "/v3/auth/tokens", { token: session.token, subject: alice.token });
      await expect.poll(async () => (await alice.store("HEAD", "")).status, BACK).toBe(401);
    });

    it("a backup of what runs on PostgreSQL is restored there, and where there is no PostgreSQL", async () => {
      const kept = textAt(await asAdmin("POST", "/users", { user: { name: "kept", password: PASSWORD } }), "user.id");
      const credentials = await asAdmin("POST", `/users/${kept}/credentials/OS-EC2`, { tenant_id: null });
      expect(credentials.status).toBeGreaterThanOrEqual(200);
      const backup = join(installation.folder, "..", `${installation.folder.split("/").at(-1)}-backup`);
      try {
        expect(await installation.command("backup", backup)).toMatchObject({ code: 0 });
        const late = textAt(await asAdmin("POST", "/users", { user: { name: "late" } }), "user.id");
        expect((await asAdmin("DELETE", `/users/${kept}`)).status).toBe(204);
        expect((await installation.command("restore", backup)).code).not.toBe(0);
        expect((await installation.command("down")).code).toBe(0);

        expect(await installation.command("restore", backup)).toMatchObject({
          code: 0,
          output: expect.stringMatching(/The database keeps what it had in identity_before_\w+/) as string,
        });
        await installation.up();
        session = await adminSession(installation.folder);
        const statusOf = async (id: string) => (await asAdmin("GET", `/users/${id}`)).status;
        expect([await statusOf(kept), await statusOf(late)]).toEqual([200, 404]);
        expect((await session.login({ id: kept, password: PASSWORD })).status).toBe(201);
        expect(await installation.command("identity", "doctor")).toMatchObject({ code: 0 });
        expect((await installation.command("down")).code).toBe(0);

        // The same rows in a file, as an installation without a server has them.
        const plain = join(installation.folder, "plain.toml");
        writeFileSync(plain, "");
        const before = await installation.command("restore", backup, "--config", plain);
        expect(before).toMatchObject({ code: 0 });
        await postgres.stop();
        await installation.up();
        session = await adminSession(installation.folder);
        expect([await statusOf(kept), await statusOf(late)]).toEqual([200, 404]);
        expect((await session.login({ id: kept, password: PASSWORD })).status).toBe(201);
        expect(await installation.command("identity", "doctor")).toMatchObject({ code: 0 });

        // And back: a backup of a file, on the server.
        await asAdmin("DELETE", `/users/${kept}`);
        rmSync(backup, { recursive: true });
        expect(await installation.command("backup", backup)).toMatchObject({ code: 0 });
        expect((await installation.command("down")).code).toBe(0);
        await postgres.run();
        const toml = join(installation.folder, "server.toml");
        writeFileSync(toml, tomlOf());
        expect(await installation.command("restore", backup, "--config", toml)).toMatchObject({ code: 0 });
        await installation.up();
        session = await adminSession(installation.folder);
        expect(await statusOf(kept)).toBe(404);
        expect((await asAdmin("POST", "/users", { user: { name: "after" } })).status).toBe(201);
      } finally {
        rmSync(backup, { recursive: true, force: true });
      }
    });
  },
);
