import { afterAll, describe, expect, test } from "vitest";
import { silentLog } from "../../common/log.ts";
import { openDatabase } from "../../common/sql/database.ts";
import { runMigrations } from "../../common/sql/migrations.ts";
import { PostgresFixture, whyNoPostgres } from "../../common/sql/postgres-fixture.ts";
import { openSqlite } from "../../common/sql/sqlite.ts";
import { type CommittedChange, createChanges } from "./changes.ts";
import { IDENTITY_MIGRATIONS } from "./migrations.ts";
import { removeDomain, removeProjects } from "./project-removal.ts";
import { projectsAbove, projectsBelow } from "./project-tree.ts";
import { findRecord, type IdentityDatabase } from "./records.ts";
import type { AssignmentTable, IdentitySchema } from "./schema.ts";

const TEXTS = { options: "{}", extra: "{}" };

const project = (id: string, domain_id: string | null, parent_id: string | null) => ({
  id,
  name: id,
  domain_id,
  parent_id,
  is_domain: Number(domain_id === null),
  description: "",
  enabled: 0,
  ...TEXTS,
});

const user = (id: string, domain_id: string, default_project_id: string | null) => ({
  id,
  name: id,
  domain_id,
  default_project_id,
  enabled: 1,
  created_at_ms: 0,
  last_active_at_ms: null,
  failed_login_count: 0,
  failed_login_at_ms: null,
  ...TEXTS,
});

const trust = (id: string, trustor: string, trustee: string, project_id: string, redelegated: string | null) => ({
  id,
  trustor_user_id: trustor,
  trustee_user_id: trustee,
  project_id,
  impersonation: 0,
  expires_at_ms: null,
  remaining_uses: null,
  redelegation_count: 0,
  redelegated_trust_id: redelegated,
  deleted_at_ms: null,
  extra: "{}",
});

const grant = (actor: string, target: string, role_id: string, inherited = 0): AssignmentTable => ({
  actor_kind: actor.endsWith("group") ? "group" : "user",
  actor_id: actor,
  target_kind: target === "all" ? "system" : target.endsWith("domain") ? "domain" : "project",
  target_id: target,
  role_id,
  inherited,
});

const applicationCredential = (id: string, user_id: string, project_id: string) => ({
  id,
  name: id,
  user_id,
  project_id,
  description: null,
  secret_hash: "",
  expires_at_us: null,
  unrestricted: 0,
  system: null,
});

const blob = new Uint8Array([1]);

/** A domain whose things are called `gone-…`, tied in every way to what is outside, called `stay-…`. */
const fill = async (database: IdentityDatabase): Promise<void> => {
  const insert = async <Name extends keyof IdentitySchema>(
    table: Name,
    ...rows: Parameters<ReturnType<typeof database.insertInto<Name>>["values"]>[0][]
  ): Promise<void> => {
    for (const row of rows) await database.insertInto(table).values(row).execute();
  };
  await insert(
    "projects",
    project("gone-domain", null, null),
    project("stay-domain", null, null),
    project("gone-upper", "gone-domain", "gone-domain"),
    project("gone-lower", "gone-domain", "gone-upper"),
    project("stay-project", "stay-domain", "stay-domain"),
  );
  await insert("project_tags", { project_id: "gone-upper", name: "t" });
  await insert(
    "users",
    user("gone-user", "gone-domain", "stay-project"),
    user("stay-user", "stay-domain", "gone-lower"),
    user("stay-other", "stay-domain", "stay-project"),
  );
  const password = { hash: "", created_at_ms: 0, expires_at_ms: null, self_service: 0 };
  await insert("passwords", { user_id: "gone-user", ...password }, { user_id: "stay-user", ...password });
  const group = { description: "", extra: "{}" };
  await insert(
    "groups",
    { id: "gone-group", name: "g", domain_id: "gone-domain", ...group },
    { id: "stay-group", name: "g", domain_id: "stay-domain", ...group },
  );
  await insert(
    "group_members",
    { group_id: "gone-group", user_id: "stay-user", expires_at_ms: null },
    { group_id: "stay-group", user_id: "gone-user", expires_at_ms: null },
    { group_id: "stay-group", user_id: "gone-mapped", expires_at_ms: null },
    { group_id: "stay-group", user_id: "stay-user", expires_at_ms: null },
  );
  await insert("id_mappings", { public_id: "gone-mapped", domain_id: "gone-domain", local_id: "l", kind: "user" });
  await insert(
    "roles",
    { id: "gone-role", name: "r", domain_id: "gone-domain", description: null, ...TEXTS },
    { id: "stay-role", name: "r", domain_id: null, description: null, ...TEXTS },
  );
  await insert("role_implications", { prior_role_id: "gone-role", implied_role_id: "stay-role" });
  await insert(
    "assignments",
    grant("stay-user", "gone-lower", "stay-role"),
    grant("stay-user", "gone-domain", "stay-role", 1),
    grant("gone-user", "gone-upper", "gone-role"),
    grant("gone-user", "stay-project", "stay-role"),
    grant("gone-user", "all", "stay-role"),
    grant("gone-mapped", "stay-project", "stay-role"),
    grant("gone-group", "stay-project", "stay-role"),
    grant("gone-group", "stay-domain", "stay-role", 1),
    grant("gone-group", "gone-lower", "stay-role"),
    grant("stay-user", "stay-project", "stay-role"),
  );
  await insert(
    "credentials",
    { id: "gone-c1", type: "ec2", user_id: "gone-user", project_id: "stay-project", access: "1", blob, extra: "{}" },
    { id: "gone-c2", type: "ec2", user_id: "stay-user", project_id: "gone-lower", access: "2", blob, extra: "{}" },
    { id: "stay-c3", type: "ec2", user_id: "stay-user", project_id: "stay-project", access: "3", blob, extra: "{}" },
  );
  await insert(
    "application_credentials",
    applicationCredential("gone-a1", "gone-user", "stay-project"),
    applicationCredential("gone-a2", "stay-user", "gone-upper"),
    applicationCredential("stay-a3", "stay-user", "stay-project"),
  );
  await insert("application_credential_roles", { application_credential_id: "gone-a1", role_id: "stay-role" });
  await insert("access_rules", { id: "gone-rule", user_id: "gone-user", service: "s", method: "GET", path: "/" });
  await insert("application_credential_rules", { application_credential_id: "gone-a1", access_rule_id: "gone-rule" });
  await insert(
    "trusts",
    trust("gone-t1", "gone-user", "stay-user", "stay-project", null),
    trust("gone-t2", "stay-other", "stay-user", "stay-project", "gone-t1"),
    trust("gone-t3", "stay-user", "stay-other", "gone-lower", null),
    trust("stay-t4", "stay-user", "stay-other", "stay-project", null),
  );
  await insert("trust_roles", { trust_id: "gone-t1", role_id: "stay-role" });
  await insert("consumers", { id: "stay-consumer", description: null, secret: "", extra: "{}" });
  const oauth = { secret: "", consumer_id: "stay-consumer", expires_at_ms: null };
  const asked = { verifier: null, role_ids: null, ...oauth };
  await insert(
    "request_tokens",
    { id: "gone-r1", authorizing_user_id: "gone-user", requested_project_id: "stay-project", ...asked },
    { id: "gone-r2", authorizing_user_id: null, requested_project_id: "gone-upper", ...asked },
  );
  await insert(
    "access_tokens",
    { id: "gone-k1", authorizing_user_id: "gone-user", project_id: "stay-project", role_ids: "[]", ...oauth },
    { id: "gone-k2", authorizing_user_id: "stay-user", project_id: "gone-upper", role_ids: "[]", ...oauth },
  );
  const provider = { enabled: 1, description: null, authorization_ttl: null, extra: "{}" };
  await insert("identity_providers", { id: "gone-idp", domain_id: "gone-domain", ...provider });
  await insert("identity_provider_remote_ids", { remote_id: "gone-remote", idp_id: "gone-idp" });
  const protocol = { idp_id: "gone-idp", mapping_id: "m", remote_id_attribute: null };
  await insert("federation_protocols", { id: "gone-protocol", ...protocol });
  const federated = { idp_id: "gone-idp", protocol_id: "gone-protocol", unique_id: "u", display_name: "" };
  await insert("federated_users", { user_id: "gone-user", ...federated });
  await insert("services", { id: "stay-service", type: "t", name: null, description: null, enabled: 1, extra: "{}" });
  const place = { service_id: "stay-service", region_id: null };
  const face = { interface: "public" as const, url: "http://h", enabled: 1, managed: 0, extra: "{}" };
  await insert("endpoints", { id: "stay-endpoint", ...place, ...face });
  await insert("endpoint_groups", { id: "stay-endpoints", name: "g", description: null, filters: "{}" });
  await insert("project_endpoints", { project_id: "gone-upper", endpoint_id: "stay-endpoint" });
  await insert("project_endpoint_groups", { project_id: "gone-lower", endpoint_group_id: "stay-endpoints" });
  const registered = { resource_name: "r", default_limit: 1, description: null };
  await insert("registered_limits", { id: "stay-registered", ...place, ...registered });
  const limit = { registered_limit_id: "stay-registered", resource_limit: 1, description: null };
  await insert(
    "limits",
    { id: "gone-l1", project_id: "gone-lower", domain_id: null, ...limit },
    { id: "gone-l2", project_id: null, domain_id: "gone-domain", ...limit },
    { id: "stay-l3", project_id: "stay-project", domain_id: null, ...limit },
  );
  const option = { group_name: "ldap", option_name: "url", value: '""', sensitive: 0 };
  await insert("domain_configurations", { domain_id: "gone-domain", ...option });
};

/** Rows of all tables but the log of changes, under their table's name. */
const everything = async (database: IdentityDatabase): Promise<{ table: string; row: string }[]> => {
  const rows: { table: string; row: string }[] = [];
  for (const { name } of await database.introspection.getTables()) {
    if (name === "changes") continue;
    const found = await database
      .selectFrom(name as keyof IdentitySchema)
      .selectAll()
      .execute();
    for (const row of found) rows.push({ table: name, row: JSON.stringify(row) });
  }
  return rows;
};

/** Rows that nothing ties to what goes; those of the user whose default project goes change. */
const untouched = (rows: readonly { row: string }[]): string[] =>
  rows.map(({ row }) => row).filter((row) => !row.includes("gone-") && !row.includes('"id":"stay-user"'));

type Opened = { readonly database: IdentityDatabase } & AsyncDisposable;

const contract = (name: string, open: () => Promise<Opened>): void => {
  describe(name, () => {
    const opened = open();
    afterAll(async () => (await opened)[Symbol.asyncDispose]());

    const withChanges = async () => {
      const { database } = await opened;
      const committed: CommittedChange[] = [];
      const changes = createChanges({
        database,
        clock: { nowMs: () => 1_000 },
        onListenerError: (error) => expect.unreachable(String(error)),
      });
      changes.onCommit((change) => void committed.push(change));
      return { database, changes, committed };
    };

    test("a branch is walked upwards to its domain and downwards with each project behind the one above it", async () => {
      const { database } = await withChanges();
      await runMigrations(database, IDENTITY_MIGRATIONS, 0);
      await fill(database);
      const above = await projectsAbove(database, "gone-lower");
      expect(above.map(({ id }) => id)).toEqual(["gone-upper", "gone-domain"]);
      const below = await projectsBelow(database, "gone-domain");
      expect(below.map(({ id }) => id)).toEqual(["gone-upper", "gone-lower"]);
    });

    test("a project takes along what belongs to it, and its tokens are void", async () => {
      const { database, changes, committed } = await withChanges();
      const lower = await findRecord(database, "projects", "gone-lower");
      await changes.write((transaction, change) => removeProjects(transaction, change, [lower!]));
      const rows = await everything(database);
      expect(rows.filter(({ row }) => row.includes("gone-lower"))).toEqual([]);
      expect(rows.some(({ row }) => row.includes("gone-t3") || row.includes("gone-l1"))).toBe(false);
      expect(rows.some(({ row }) => row.includes("gone-upper"))).toBe(true);
      expect(committed[0]?.revocations).toMatchObject([{ kind: "revoke", projectId: "gone-lower" }]);
    });

    test("nothing of a deleted domain is left in any table, and nothing else is touched", async () => {
      const { database, changes, committed } = await withChanges();
      const before = await everything(database);
      await changes.write((transaction, change) => removeDomain(transaction, change, "gone-domain"));
      const after = await everything(database);
      expect(after.filter(({ row }) => row.includes("gone-"))).toEqual([]);
      expect(untouched(after)).toEqual(untouched(before));
      const told = committed[0]?.revocations.map((event) => ({ ...event, issuedBeforeMs: 0 }));
      expect(told).toHaveLength(5);
      expect(told).toEqual(
        expect.arrayContaining([
          // What others had through its group, and what they were entrusted with by its user.
          { kind: "recheck", projectId: "stay-project", issuedBeforeMs: 0 },
          { kind: "recheck", domainId: "stay-domain", issuedBeforeMs: 0 },
          { kind: "revoke", trustId: "gone-t1", issuedBeforeMs: 0 },
          { kind: "revoke", trustId: "gone-t2", issuedBeforeMs: 0 },
          { kind: "revoke", domainId: "gone-domain", issuedBeforeMs: 0 },
        ]),
      );
    });
  });
};

contract("SQLite", async () => {
  const database = openSqlite<IdentitySchema>(":memory:");
  return { database, [Symbol.asyncDispose]: () => database.destroy() };
});

const reason = whyNoPostgres();
if (reason === undefined) {
  contract("PostgreSQL", async () => {
    const postgres = await PostgresFixture.start();
    const options = { server: postgres.server(), namespace: "identity", sqlitePath: "", log: silentLog };
    const database = await openDatabase<IdentitySchema>(options);
    return {
      database,
      [Symbol.asyncDispose]: async () => {
        await database.destroy();
        await postgres[Symbol.asyncDispose]();
      },
    };
  });
} else {
  test.skip(`PostgreSQL: ${reason}`, () => expect.unreachable());
}
