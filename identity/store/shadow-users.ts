import type { ChangeSet, Changes } from "./changes.ts";
import { addGrant, hasGrant } from "./grants.ts";
import { type IdentityDatabase, type IdentityTransaction, newId, parsed } from "./records.ts";
import type { Role, User } from "./schema.ts";

const NAME_MAX = 255;

/** A project of the provider's domain in which the user gets roles. */
export type ProvisionedProject = { readonly name: string; readonly roles: readonly Role[] };

/** What a provider's user is here. */
export type Shadow = {
  readonly idpId: string;
  readonly protocolId: string;
  /** What the provider calls the user, for ever. */
  readonly uniqueId: string;
  readonly displayName: string;
  readonly email: string | undefined;
  readonly domainId: string;
  /** Groups of this database that the user is in until `membershipsUntilMs`; undefined: they are for the token alone. */
  readonly groupIds: readonly string[];
  readonly membershipsUntilMs: number | undefined;
  readonly projects: readonly ProvisionedProject[];
};

const findShadow = (database: IdentityDatabase, { idpId, protocolId, uniqueId }: Shadow): Promise<User | undefined> =>
  database
    .selectFrom("users")
    .innerJoin("federated_users", "federated_users.user_id", "users.id")
    .selectAll("users")
    .where("idp_id", "=", idpId)
    .where("protocol_id", "=", protocolId)
    .where("unique_id", "=", uniqueId)
    .executeTakeFirst();

const emailOf = ({ extra }: User): unknown => parsed(extra)["email"];

/** The names that a user may have, the best first: names are unique in a domain, and what a provider shows is not. */
const namesFor = ({ displayName, idpId }: Shadow, userId: string): string[] => {
  const shown = displayName.slice(0, NAME_MAX);
  const other = (suffix: string): string => shown.slice(0, NAME_MAX - suffix.length) + suffix;
  return [shown, other(` (${idpId})`), other(` (${userId})`)];
};

const freeName = async (transaction: IdentityTransaction, shadow: Shadow, userId: string): Promise<string> => {
  const names = namesFor(shadow, userId);
  const taken = await transaction
    .selectFrom("users")
    .select("name")
    .where("domain_id", "=", shadow.domainId)
    .where("id", "<>", userId)
    .where("name", "in", names)
    .execute();
  const takenNames = new Set(taken.map(({ name }) => name));
  return names.find((name) => !takenNames.has(name)) ?? userId;
};

const livingMemberships = (database: IdentityDatabase, userId: string) =>
  database.selectFrom("group_members").selectAll().where("user_id", "=", userId).execute();

const projectNamed = async (
  database: IdentityDatabase,
  domainId: string,
  name: string,
): Promise<string | undefined> => {
  const row = await database
    .selectFrom("projects")
    .select("id")
    .where("is_domain", "=", 0)
    .where("domain_id", "=", domainId)
    .where("name", "=", name)
    .executeTakeFirst();
  return row?.id;
};

const grantOf = (userId: string, projectId: string, roleId: string) =>
  ({
    actorKind: "user",
    actorId: userId,
    targetKind: "project",
    targetId: projectId,
    roleId,
    inherited: false,
  }) as const;

/** Whether everything is as `shadow` has it, but for times. */
const isSettled = async (database: IdentityDatabase, shadow: Shadow, user: User, nowMs: number): Promise<boolean> => {
  if (!namesFor(shadow, user.id).includes(user.name)) return false;
  if (shadow.email !== undefined && emailOf(user) !== shadow.email) return false;
  const memberships = await livingMemberships(database, user.id);
  const lasting = shadow.membershipsUntilMs === undefined ? [] : shadow.groupIds;
  const isMember = (id: string): boolean =>
    memberships.some(({ group_id, expires_at_ms }) => group_id === id && (expires_at_ms ?? Infinity) > nowMs);
  if (!lasting.every(isMember)) return false;
  if (memberships.some(({ group_id, expires_at_ms }) => expires_at_ms !== null && !lasting.includes(group_id)))
    return false;
  for (const { name, roles } of shadow.projects) {
    const projectId = await projectNamed(database, shadow.domainId, name);
    if (projectId === undefined) return false;
    for (const { id } of roles) if (!(await hasGrant(database, grantOf(user.id, projectId, id)))) return false;
  }
  return true;
};

const insertUser = async (
  transaction: IdentityTransaction,
  change: ChangeSet,
  shadow: Shadow,
  nowMs: number,
): Promise<string> => {
  const id = newId();
  await transaction
    .insertInto("users")
    .values({
      id,
      domain_id: shadow.domainId,
      name: await freeName(transaction, shadow, id),
      default_project_id: null,
      enabled: 1,
      options: "{}",
      extra: JSON.stringify(shadow.email === undefined ? {} : { email: shadow.email }),
      created_at_ms: nowMs,
      last_active_at_ms: nowMs,
      failed_login_count: 0,
      failed_login_at_ms: null,
    })
    .execute();
  await transaction
    .insertInto("federated_users")
    .values({
      user_id: id,
      idp_id: shadow.idpId,
      protocol_id: shadow.protocolId,
      unique_id: shadow.uniqueId,
      display_name: shadow.displayName,
    })
    .execute();
  change.notify({ action: "create", resource: "user", id });
  return id;
};

const updateUser = async (
  transaction: IdentityTransaction,
  change: ChangeSet,
  shadow: Shadow,
  user: User,
): Promise<void> => {
  const isNamed = namesFor(shadow, user.id).includes(user.name);
  const name = isNamed ? user.name : await freeName(transaction, shadow, user.id);
  const email = shadow.email === undefined ? {} : { email: shadow.email };
  const extra = JSON.stringify({ ...parsed(user.extra), ...email });
  if (name === user.name && extra === user.extra) return;
  await transaction.updateTable("users").set({ name, extra }).where("id", "=", user.id).execute();
  await transaction
    .updateTable("federated_users")
    .set({ display_name: shadow.displayName })
    .where("idp_id", "=", shadow.idpId)
    .where("protocol_id", "=", shadow.protocolId)
    .where("unique_id", "=", shadow.uniqueId)
    .execute();
  // Tokens carry the name.
  change.revoke({ kind: "recheck", userId: user.id });
  change.notify({ action: "update", resource: "user", id: user.id });
};

/** Memberships that end are the provider's: those that it names no more go. Those without an end are an administrator's and stay. */
const storeMemberships = async (
  transaction: IdentityTransaction,
  change: ChangeSet,
  shadow: Shadow,
  userId: string,
): Promise<void> => {
  const memberships = await livingMemberships(transaction, userId);
  const until = shadow.membershipsUntilMs;
  const lasting = until === undefined ? [] : shadow.groupIds;
  for (const { group_id, expires_at_ms } of memberships) {
    if (expires_at_ms === null || lasting.includes(group_id)) continue;
    await transaction
      .deleteFrom("group_members")
      .where("group_id", "=", group_id)
      .where("user_id", "=", userId)
      .execute();
    change.revoke({ kind: "recheck", userId });
    change.notify({ action: "update", resource: "group", id: group_id, details: { removed: userId } });
  }
  for (const group_id of lasting) {
    if (memberships.some((known) => known.group_id === group_id)) continue;
    await transaction
      .insertInto("group_members")
      .values({ group_id, user_id: userId, expires_at_ms: until ?? null })
      .execute();
    change.notify({ action: "update", resource: "group", id: group_id, details: { added: userId } });
  }
};

/** Memberships that go on get a new end. */
const renew = async (
  transaction: IdentityTransaction,
  shadow: Shadow,
  userId: string,
  nowMs: number,
): Promise<void> => {
  await transaction.updateTable("users").set({ last_active_at_ms: nowMs }).where("id", "=", userId).execute();
  if (shadow.membershipsUntilMs === undefined || shadow.groupIds.length === 0) return;
  await transaction
    .updateTable("group_members")
    .set({ expires_at_ms: shadow.membershipsUntilMs })
    .where("user_id", "=", userId)
    .where("group_id", "in", shadow.groupIds)
    .where("expires_at_ms", "is not", null)
    .execute();
};

const provision = async (
  transaction: IdentityTransaction,
  change: ChangeSet,
  { domainId, projects }: Shadow,
  userId: string,
): Promise<void> => {
  for (const { name, roles } of projects) {
    let id = await projectNamed(transaction, domainId, name);
    if (id === undefined) {
      id = newId();
      const state = { is_domain: 0, enabled: 1, description: "", options: "{}", extra: "{}" };
      await transaction
        .insertInto("projects")
        .values({ id, name, domain_id: domainId, parent_id: domainId, ...state })
        .execute();
      change.notify({ action: "create", resource: "project", id });
    }
    for (const role of roles) await addGrant(transaction, change, grantOf(userId, id, role.id));
  }
};

/**
 * The user of this database who stands for a provider's: made at the first login, and at each later one as the provider and the mapping have
 * it now. A login that changes nothing empties no cache. Answers the id.
 */
export const settleShadow = async (
  { database, changes }: { readonly database: IdentityDatabase; readonly changes: Pick<Changes, "write" | "record"> },
  shadow: Shadow,
  nowMs: number,
): Promise<string> => {
  const known = await findShadow(database, shadow);
  if (known !== undefined && (await isSettled(database, shadow, known, nowMs))) {
    await changes.record((transaction) => renew(transaction, shadow, known.id, nowMs));
    return known.id;
  }
  return changes.write(async (transaction, change) => {
    const user = await findShadow(transaction, shadow);
    if (user !== undefined) await updateUser(transaction, change, shadow, user);
    const id = user?.id ?? (await insertUser(transaction, change, shadow, nowMs));
    await storeMemberships(transaction, change, shadow, id);
    await renew(transaction, shadow, id, nowMs);
    await provision(transaction, change, shadow, id);
    return id;
  });
};
