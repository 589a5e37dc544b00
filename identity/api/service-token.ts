import { DEFAULT_DOMAIN_ID, ensureProject } from "../bootstrap.ts";
import { notFound } from "../core/identity-error.ts";
import { newId } from "../store/records.ts";
import { type ServiceTokenResponse, serviceTokenRequest } from "../wire.ts";
import { type IdentityContext, openRoute } from "./identity-route.ts";

/** What makes a user an operator of its project's account in the object store, and of nothing else. */
const ROLE = "member";

/** Where it stands which user and project are a service's: names are others' to give. */
const settingOf = (service: string): string => `service-account-${service}`;

type ServiceAccount = { readonly userId: string; readonly projectId: string };

const accountIn = async (
  database: IdentityContext["database"],
  service: string,
): Promise<ServiceAccount | undefined> => {
  const key = settingOf(service);
  const row = await database.selectFrom("settings").select("value").where("key", "=", key).executeTakeFirst();
  if (row === undefined) return undefined;
  const [userId = "", projectId = ""] = row.value.split(" ");
  return { userId, projectId };
};

/** A user without a password, whom nobody can log in as, in a project of its own; made when it is asked for first. */
const ensureAccount = async (context: IdentityContext, service: string): Promise<ServiceAccount> => {
  const there = await accountIn(context.database, service);
  if (there !== undefined) return there;
  return context.changes.write(async (transaction) => {
    const meanwhile = await accountIn(transaction, service);
    if (meanwhile !== undefined) return meanwhile;
    const userId = newId();
    const name = `${service}-service-${userId.slice(0, 8)}`;
    const projectId = await ensureProject(transaction, name, `What the ${service} service keeps in the object store`);
    const who = { id: userId, domain_id: DEFAULT_DOMAIN_ID, name, options: "{}", extra: "{}" };
    const state = {
      enabled: 1,
      created_at_ms: context.clock.nowMs(),
      last_active_at_ms: null,
      failed_login_count: 0,
      failed_login_at_ms: null,
    };
    await transaction
      .insertInto("users")
      .values({ ...who, ...state, default_project_id: null })
      .execute();
    const role = await transaction
      .selectFrom("roles")
      .select("id")
      .where("name", "=", ROLE)
      .where("domain_id", "is", null)
      .executeTakeFirstOrThrow();
    const target = { target_kind: "project", target_id: projectId } as const;
    await transaction
      .insertInto("assignments")
      .values({ actor_kind: "user", actor_id: userId, ...target, role_id: role.id, inherited: 0 })
      .execute();
    await transaction
      .insertInto("settings")
      .values({ key: settingOf(service), value: `${userId} ${projectId}` })
      .execute();
    return { userId, projectId };
  });
};

/** Whoever asks here is the installation itself: there is no secret that could be stolen from a file. */
export const showServiceToken = openRoute({
  method: "POST",
  path: "/internal/service-token",
  request: { body: serviceTokenRequest },
  handler: async ({ body: { service } }, context) => {
    const { userId, projectId } = await ensureAccount(context, service);
    const startedAtMs = context.changes.issueTimeMs();
    const user = await context.directory.findUser(userId);
    if (user === undefined) throw notFound("user", userId);
    const scope = { kind: "project", project: { id: projectId } } as const;
    const { token, details } = await context.tokens.issueFor({ user }, ["service"], scope, startedAtMs);
    const expiresInSeconds = Math.floor((details.expiresAtMs - context.clock.nowMs()) / 1000);
    const answer: ServiceTokenResponse = { token, projectId, expiresInSeconds };
    return { status: 200, body: answer };
  },
});
