import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { hashSync } from "@node-rs/argon2";
import { afterEach, beforeEach, expect, test } from "vitest";
import { parseClusterFile } from "../common/config.ts";
import { createIdentityClient } from "./client.ts";
import { createTestInstallation, TEST_PASSWORD, type TestInstallation } from "./test-service.ts";

let installation: TestInstallation;

beforeEach(() => {
  installation = createTestInstallation();
});

afterEach(() => installation[Symbol.asyncDispose]());

const databasePath = (): string => join(installation.paths.identityDir, "identity.db");

/** Every row of every table. */
const dump = (): Record<string, unknown[]> => {
  const database = new DatabaseSync(databasePath(), { readOnly: true });
  try {
    const tables = database.prepare("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").all();
    return Object.fromEntries(
      tables.map(({ name }) => [name, database.prepare(`SELECT * FROM "${String(name)}"`).all()]),
    );
  } finally {
    database.close();
  }
};

const logsIn = async (key: string): Promise<boolean> => {
  const client = createIdentityClient(installation.paths.socket("control"));
  return client.v1Auth("admin:admin", key).then(
    () => true,
    () => false,
  );
};

test("a second start changes no row and no key", async () => {
  await installation.start();
  await installation.stop();
  const before = dump();
  const keys = readFileSync(join(installation.paths.identityDir, "jwks.json"), "utf8");
  await installation.start();
  await installation.stop();
  expect(dump()).toEqual(before);
  expect(readFileSync(join(installation.paths.identityDir, "jwks.json"), "utf8")).toBe(keys);
  expect(before["roles"]).toHaveLength(6);
  expect(before["role_implications"]).toHaveLength(3);
  expect(before["endpoints"]).toHaveLength(12);
});

test("private files are private and no temporary one is left", async () => {
  await installation.start();
  const { identityDir } = installation.paths;
  const names = readdirSync(join(identityDir, "keys"));
  expect(names).toHaveLength(2);
  for (const name of names) expect(statSync(join(identityDir, "keys", name)).mode & 0o777).toBe(0o600);
  expect(statSync(databasePath()).mode & 0o777).toBe(0o600);
  expect(readdirSync(identityDir).filter((name) => name.includes(".tmp"))).toEqual([]);
});

test("the secret of the EC2 credential is not in the database in the clear", async () => {
  await installation.start();
  const { access, secret } = await createIdentityClient(installation.paths.socket("control")).readyInfo();
  await installation.stop();
  const bytes = readFileSync(databasePath());
  expect(bytes.includes(access)).toBe(true);
  expect(bytes.includes(secret)).toBe(false);
});

test("the password comes from the environment, the supervisor's file or the configuration, in that order", async () => {
  const { adminPassword } = installation.paths;
  await installation.start();
  writeFileSync(adminPassword, "from the file\n", { mode: 0o600 });
  await installation.start({ password: undefined, file: { admin_password: "configured" } });
  expect([await logsIn("from the file"), await logsIn("configured"), await logsIn(TEST_PASSWORD)]).toEqual([
    true,
    false,
    false,
  ]);
  writeFileSync(adminPassword, "");
  await installation.start({ password: undefined, file: { admin_password: "configured" } });
  expect(await logsIn("configured")).toBe(true);
});

test("a start with the same file does not undo a password that was set otherwise", async () => {
  await installation.start();
  await installation.stop();
  const database = new DatabaseSync(databasePath());
  const hash = hashSync("changed by its owner", { memoryCost: 19_456, timeCost: 2, parallelism: 1 });
  database
    .prepare("INSERT INTO passwords (user_id, hash, created_at_ms, self_service) SELECT id, ?, 1, 1 FROM users")
    .run(hash);
  database.close();
  await installation.start();
  expect([await logsIn("changed by its owner"), await logsIn(TEST_PASSWORD)]).toEqual([true, false]);
  await installation.start({ password: undefined });
  expect(await logsIn("changed by its owner")).toBe(true);
  await installation.start({ password: "a new file" });
  expect(await logsIn("a new file")).toBe(true);
});

test("a first start without any password is refused", async () => {
  await expect(installation.start({ password: undefined })).rejects.toThrow("no password");
});

test("managed endpoints follow ports and services, an operator's stay", async () => {
  const urls = (): string[] =>
    dump()["endpoints"]!.map((row) => {
      const { url, enabled, interface: face } = row as { url: string; enabled: number; interface: string };
      return `${face} ${url} ${enabled}`;
    });
  await installation.start();
  await installation.stop();
  const database = new DatabaseSync(databasePath());
  database.exec("UPDATE endpoints SET url = 'http://mine', managed = 0 WHERE interface = 'admin'");
  database.close();
  await installation.start({ file: parseClusterFile('port_offset = 7\nonly = ["identity"]', "test") });
  await installation.stop();
  const off = ["8080/v1/AUTH_$(project_id)s 0", "8776/v3/$(project_id)s 0", "8776/v3/$(project_id)s 0"];
  expect(urls().toSorted()).toEqual([
    ...["identity", "object", "volumev3", "block-storage"].map(() => "admin http://mine 1"),
    ...["5007/v3 1", ...off].map((rest) => `internal http://127.0.0.1:${rest}`),
    ...["5007/v3 1", ...off].map((rest) => `public http://127.0.0.1:${rest}`),
  ]);
});
