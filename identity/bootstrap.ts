import { type ClusterConfig, publicEndpoint } from "../common/config.ts";
import { identityError } from "./core/identity-error.ts";
import { type AssignmentTarget, SYSTEM_TARGET } from "./store/assignments.ts";
import type { CredentialCipher } from "./store/credential-cipher.ts";
import { ec2CredentialOf, insertEc2Credential } from "./store/credentials.ts";
import type { PasswordHasher } from "./store/password-hasher.ts";
import { type IdentityDatabase, newId } from "./store/records.ts";
import type { EndpointInterface } from "./store/schema.ts";

export const DEFAULT_DOMAIN_ID = "default";
const ADMIN_NAME = "admin";

/** Each role implies the next, so that a check asks for the least that suffices; `service` and the object store's `ResellerAdmin`, who may use every account, stand apart. */
const ROLE_CHAIN = ["admin", "manager", "member", "reader"] as const;
/** Without them nobody could administer: they are changed and deleted by nobody who has not said so first. */
const IMMUTABLE = '{"immutable":true}';
const LONE_ROLES = ["service", "ResellerAdmin"] as const;
const INTERFACES: readonly EndpointInterface[] = ["public", "internal", "admin"];

/** The hash of the last password that came from outside; see `applyAdminPassword`. */
const APPLIED_PASSWORD = "bootstrap-admin-password";

export type BootstrapOptions = {
  readonly database: IdentityDatabase;
  readonly config: ClusterConfig;
  readonly hasher: PasswordHasher;
  readonly cipher: CredentialCipher;
  /** From the environment or the supervisor's file; undefined leaves the password as it is. */
  readonly adminPassword: string | undefined;
  readonly nowMs: number;
};

export type Bootstrapped = { readonly adminUserId: string; readonly adminProjectId: string };

/** The id of the project of that name in the default domain, made where there is none. */
export const ensureProject = async (database: IdentityDatabase, name: string, description: string): Promise<string> => {
  const found = await database
    .selectFrom("projects")
    .select("id")
    .where("domain_id", "=", DEFAULT_DOMAIN_ID)
    .where("name", "=", name)
    .executeTakeFirst();
  if (found !== undefined) return found.id;
  const id = newId();
  await database
    .insertInto("projects")
    .values({
      id,
      domain_id: DEFAULT_DOMAIN_ID,
      parent_id: DEFAULT_DOMAIN_ID,
      is_domain: 0,
      name,
      description,
      enabled: 1,
      options: "{}",
      extra: "{}",
    })
    .execute();
  return id;
};

const ensureAdmin = async (database: IdentityDatabase, nowMs: number): Promise<string> => {
  const found = await database
    .selectFrom("users")
    .select("id")
    .where("domain_id", "=", DEFAULT_DOMAIN_ID)
    .where("name", "=", ADMIN_NAME)
    .executeTakeFirst();
  if (found !== undefined) return found.id;
  const id = newId();
  const who = { id, domain_id: DEFAULT_DOMAIN_ID, name: ADMIN_NAME, options: "{}", extra: "{}" };
  const state = {
    enabled: 1,
    created_at_ms: nowMs,
    last_active_at_ms: null,
    failed_login_count: 0,
    failed_login_at_ms: null,
  };
  await database
    .insertInto("users")
    // The project that openrc names is named there; a default here would turn unscoped logins into scoped ones.
    .values({ ...who, ...state, default_project_id: null })
    .execute();
  return id;
};

const ensureRoles = async (database: IdentityDatabase): Promise<ReadonlyMap<string, string>> => {
  for (const name of [...ROLE_CHAIN, ...LONE_ROLES]) {
    await database
      .insertInto("roles")
      .values({ id: newId(), name, domain_id: null, description: null, options: IMMUTABLE, extra: "{}" })
      .onConflict((conflict) => conflict.doNothing())
      .execute();
  }
  const rows = await database.selectFrom("roles").select(["id", "name"]).where("domain_id", "is", null).execute();
  const ids = new Map(rows.map(({ id, name }) => [name, id]));
  for (const [index, implied] of ROLE_CHAIN.entries()) {
    const prior = ROLE_CHAIN[index - 1];
    const priorId = prior && ids.get(prior);
    const impliedId = ids.get(implied);
    if (priorId === undefined || impliedId === undefined) continue;
    await database
      .insertInto("role_implications")
      .values({ prior_role_id: priorId, implied_role_id: impliedId })
      .onConflict((conflict) => conflict.doNothing())
      .execute();
  }
  return ids;
};

const assign = async (
  database: IdentityDatabase,
  userId: string,
  target: AssignmentTarget,
  roleId: string,
): Promise<void> => {
  await database
    .insertInto("assignments")
    .values({
      actor_kind: "user",
      actor_id: userId,
      target_kind: target.kind,
      target_id: target.id,
      role_id: roleId,
      inherited: 0,
    })
    .onConflict((conflict) => conflict.doNothing())
    .execute();
};

type CatalogEntry = {
  readonly type: string;
  readonly name: string;
  readonly description: string;
  readonly url: string;
};

/** What the running ports serve. A service that later issues build adds its line here. */
const catalogOf = (config: ClusterConfig): CatalogEntry[] => {
  const entries: CatalogEntry[] = [
    {
      type: "identity",
      name: "keystone",
      description: "Identity v3",
      url: `${publicEndpoint(config, "identity")}/v3`,
    },
  ];
  if (config.services.includes("object")) {
    entries.push({
      type: "object-store",
      name: "swift",
      description: "Object Storage v1",
      url: `${publicEndpoint(config, "object")}/v1/AUTH_$(project_id)s`,
    });
  }
  if (config.services.includes("block")) {
    const url = `${publicEndpoint(config, "block")}/v3/$(project_id)s`;
    // Clients of Cinder look for the one, those that go by the list of service types for the other.
    entries.push({ type: "volumev3", name: "cinderv3", description: "Block Storage v3", url });
    entries.push({ type: "block-storage", name: "cinder", description: "Block Storage v3", url });
  }
  return entries;
};

const ensureService = async (
  database: IdentityDatabase,
  { type, name, description }: CatalogEntry,
): Promise<string> => {
  const found = await database.selectFrom("services").select("id").where("type", "=", type).executeTakeFirst();
  if (found !== undefined) return found.id;
  const id = newId();
  await database.insertInto("services").values({ id, type, name, description, enabled: 1, extra: "{}" }).execute();
  return id;
};

/** Managed endpoints are made to say what runs now; those that an operator changed stay as they are. */
const reconcileCatalog = async (database: IdentityDatabase, config: ClusterConfig): Promise<void> => {
  await database
    .insertInto("regions")
    .values({ id: config.region, description: "", parent_region_id: null, extra: "{}" })
    .onConflict((conflict) => conflict.doNothing())
    .execute();
  await database.updateTable("endpoints").set({ enabled: 0 }).where("managed", "=", 1).execute();
  for (const entry of catalogOf(config)) {
    const serviceId = await ensureService(database, entry);
    for (const face of INTERFACES) {
      const place = { service_id: serviceId, region_id: config.region, interface: face };
      const found = await database
        .selectFrom("endpoints")
        .select(["id", "managed"])
        .where("service_id", "=", serviceId)
        .where("region_id", "=", config.region)
        .where("interface", "=", face)
        .executeTakeFirst();
      if (found === undefined) {
        const row = { id: newId(), ...place, url: entry.url, enabled: 1, managed: 1, extra: "{}" };
        await database.insertInto("endpoints").values(row).execute();
      } else if (found.managed === 1) {
        const change = { url: entry.url, enabled: 1 };
        await database.updateTable("endpoints").set(change).where("id", "=", found.id).execute();
      }
    }
  }
};

const settingOf = async (database: IdentityDatabase, key: string): Promise<string | undefined> =>
  (await database.selectFrom("settings").select("value").where("key", "=", key).executeTakeFirst())?.value;

/**
 * Sets the admin's password when the one given from outside differs from the one given last: a restart with the same file
 * does not undo a change that was made through the API.
 */
const applyAdminPassword = async (options: BootstrapOptions, userId: string): Promise<void> => {
  const { database, hasher, adminPassword, nowMs } = options;
  const has = await database.selectFrom("passwords").select("id").where("user_id", "=", userId).executeTakeFirst();
  if (adminPassword === undefined) {
    if (has !== undefined) return;
    throw identityError("bad-request", "user admin has no password and none was given");
  }
  const applied = await settingOf(database, APPLIED_PASSWORD);
  if (has !== undefined && applied !== undefined && (await hasher.verify(adminPassword, applied))) return;
  const hash = await hasher.hash(adminPassword);
  await database.transaction().execute(async (transaction) => {
    await transaction
      .insertInto("passwords")
      .values({ user_id: userId, hash, created_at_ms: nowMs, expires_at_ms: null, self_service: 0 })
      .execute();
    await transaction
      .insertInto("settings")
      .values({ key: APPLIED_PASSWORD, value: hash })
      .onConflict((conflict) => conflict.column("key").doUpdateSet({ value: hash }))
      .execute();
  });
};

/**
 * Brings the database to where a client can log in: domain, projects, admin, roles, catalog, one S3 key. Idempotent: what
 * is there stays, so that it runs at every start. Requires: migrations applied.
 */
export const bootstrap = async (options: BootstrapOptions): Promise<Bootstrapped> => {
  const { config, cipher, nowMs } = options;
  const result = await options.database.transaction().execute(async (database) => {
    await database
      .insertInto("projects")
      .values({
        id: DEFAULT_DOMAIN_ID,
        domain_id: null,
        parent_id: null,
        is_domain: 1,
        name: "Default",
        description: "The default domain",
        enabled: 1,
        options: "{}",
        extra: "{}",
      })
      .onConflict((conflict) => conflict.column("id").doNothing())
      .execute();
    const adminProjectId = await ensureProject(database, "admin", "The administrator's project");
    await ensureProject(database, "service", "The services' project");
    const adminUserId = await ensureAdmin(database, nowMs);
    const adminRoleId = (await ensureRoles(database)).get("admin") ?? "";
    await assign(database, adminUserId, { kind: "project", id: adminProjectId }, adminRoleId);
    await assign(database, adminUserId, SYSTEM_TARGET, adminRoleId);
    if ((await ec2CredentialOf(database, cipher, adminUserId, adminProjectId)) === undefined) {
      await insertEc2Credential(database, cipher, adminUserId, adminProjectId);
    }
    await reconcileCatalog(database, config);
    return { adminUserId, adminProjectId };
  });
  await applyAdminPassword(options, result.adminUserId);
  return result;
};
