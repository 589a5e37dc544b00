import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Kysely } from "kysely";
import { afterEach, beforeEach, expect, test } from "vitest";
import { runMigrations } from "../../common/sql/migrations.ts";
import { openSqlite } from "../../common/sql/sqlite.ts";
import { RevocationList } from "../core/revocation.ts";
import { type Changes, createChanges } from "./changes.ts";
import { IDENTITY_MIGRATIONS } from "./migrations.ts";
import type { IdentitySchema } from "./schema.ts";

let folder: string;
let database: Kysely<IdentitySchema>;
let nowMs: number;
let changes: Changes;
let list: RevocationList;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "ringstead-changes-"));
  database = openSqlite(join(folder, "identity.db"));
  await runMigrations(database, IDENTITY_MIGRATIONS, 1);
  nowMs = 1_800_000_000_000;
  list = new RevocationList(3_600_000);
  changes = createChanges({ database, clock: { nowMs: () => nowMs }, onListenerError: () => {} });
  changes.onCommit(({ revocations }) => {
    for (const event of revocations) list.add(event);
  });
});

afterEach(async () => {
  await database.destroy();
  rmSync(folder, { recursive: true });
});

const revoke = (userId: string): Promise<void> =>
  changes.write(async (_transaction, change) => change.revoke({ kind: "revoke", userId }));

const issued = (userId: string) => ({
  auditId: "audit",
  parentAuditId: undefined,
  userId,
  userDomainId: "default",
  projectId: undefined,
  domainId: undefined,
  trustId: undefined,
  partyUserIds: [],
  partyDomainIds: [],
  applicationCredentialId: undefined,
  accessTokenId: undefined,
  issuedAtMs: changes.issueTimeMs(),
});

test("a revocation voids what was issued before it and nothing that is issued after it, in the same millisecond", async () => {
  const before = issued("u");
  await revoke("u");
  const after = issued("u");
  expect([list.judge(before, 0), list.judge(after, 0), list.judge(issued("v"), 0)]).toEqual([
    "revoked",
    "valid",
    "valid",
  ]);
});

test("a clock that was set back between a revocation and a token hides no later revocation", async () => {
  await revoke("other");
  nowMs -= 2_000;
  const token = issued("u");
  nowMs += 1_000;
  await revoke("u");
  expect(list.judge(token, 0)).toBe("revoked");
  expect(list.judge(issued("u"), 0)).toBe("valid");
});

test("a write that fails tells nobody", async () => {
  const told: number[] = [];
  changes.onCommit(({ id }) => void told.push(id));
  await expect(
    changes.write(async (_transaction, change) => {
      change.revoke({ kind: "revoke", userId: "u" });
      throw new Error("half way");
    }),
  ).rejects.toThrow("half way");
  expect([told, list.count, await database.selectFrom("changes").selectAll().execute()]).toEqual([[], 0, []]);
});
