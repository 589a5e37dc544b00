import { Type } from "typebox";
import type { HttpRequest } from "../../common/http/route.ts";
import { loadDelegation } from "../authentication/load-delegation.ts";
import { identityError, notFound } from "../core/identity-error.ts";
import { judgeTrust } from "../core/redelegation.ts";
import { assignedRoleIds, expandedRoles } from "../store/assignments.ts";
import { findRecords, listRecords, newId, parsed } from "../store/records.ts";
import type { Role, Trust } from "../store/schema.ts";
import { refuseDelegated } from "./delegated-tokens.ts";
import {
  baseUrl,
  type Caller,
  callerRoute,
  enforce,
  guardedRoute,
  type IdentityContext,
  type IdentityRoute,
} from "./identity-route.ts";
import { anyQuery, listBody, listQueryOf, parameter, plainQuery, text } from "./list-parameters.ts";
import { extraOf } from "./resource-routes.ts";
import { roleFields } from "./role-fields.ts";
import { futureTimeOf, isoMicroseconds } from "./times.ts";

const COLLECTION = "/v3/OS-TRUST/trusts";
const ONE = `${COLLECTION}/:trust_id`;

const id = Type.String({ minLength: 1, maxLength: 255 });
const roleReference = Type.Object(
  { id: Type.Optional(id), name: Type.Optional(id) },
  { additionalProperties: false, minProperties: 1, maxProperties: 1 },
);
const fieldsSchema = Type.Object({
  trustor_user_id: id,
  trustee_user_id: id,
  impersonation: Type.Boolean(),
  project_id: Type.Optional(Type.Union([id, Type.Null()])),
  remaining_uses: Type.Optional(Type.Union([Type.Integer({ minimum: 1, maximum: 2_147_483_647 }), Type.Null()])),
  expires_at: Type.Optional(Type.Union([Type.String({ maxLength: 64 }), Type.Null()])),
  allow_redelegation: Type.Optional(Type.Union([Type.Boolean(), Type.Null()])),
  redelegation_count: Type.Optional(Type.Union([Type.Integer({ minimum: 0, maximum: 1_000 }), Type.Null()])),
  roles: Type.Optional(Type.Array(roleReference, { maxItems: 100 })),
});
const oneParameters = Type.Object({ trust_id: Type.String() });

const DELEGATED = "manage trusts";

const timeOrNull = (atMs: number | null): string | null => (atMs === null ? null : isoMicroseconds(atMs));

const trustBody = (trust: Trust, base: string) => ({
  ...parsed(trust.extra),
  id: trust.id,
  trustor_user_id: trust.trustor_user_id,
  trustee_user_id: trust.trustee_user_id,
  project_id: trust.project_id,
  impersonation: trust.impersonation === 1,
  expires_at: timeOrNull(trust.expires_at_ms),
  remaining_uses: trust.remaining_uses,
  deleted_at: timeOrNull(trust.deleted_at_ms),
  redelegated_trust_id: trust.redelegated_trust_id,
  redelegation_count: trust.redelegation_count,
  links: { self: `${base}/OS-TRUST/trusts/${trust.id}` },
});

const rolesOfTrust = async (trustId: string, { database }: Pick<IdentityContext, "database">): Promise<Role[]> => {
  const links = await database.selectFrom("trust_roles").select("role_id").where("trust_id", "=", trustId).execute();
  return findRecords(
    database,
    "roles",
    links.map(({ role_id }) => role_id),
  );
};

const withLinks = (roles: readonly Role[], base: string) =>
  roles.map((role) => ({ ...roleFields(role), links: { self: `${base}/roles/${role.id}` } }));

const wholeBody = async (
  trust: Trust,
  request: Pick<HttpRequest, "origin">,
  context: IdentityContext,
  database: IdentityContext["database"],
) => {
  const base = baseUrl(request, context);
  return {
    trust: {
      ...trustBody(trust, base),
      roles: withLinks(await rolesOfTrust(trust.id, { database }), base),
      roles_links: { self: `${base}/OS-TRUST/trusts/${trust.id}/roles`, next: null, previous: null },
    },
  };
};

/** A trust that holds; one that is over, used up or deleted is none. */
const living = async (
  trustId: string,
  { database, clock }: Pick<IdentityContext, "database" | "clock">,
): Promise<Trust> => {
  const trust = await database.selectFrom("trusts").selectAll().where("id", "=", trustId).executeTakeFirst();
  const endsAtMs = trust?.expires_at_ms ?? Number.POSITIVE_INFINITY;
  const isOver = endsAtMs <= clock.nowMs();
  if (trust === undefined || trust.deleted_at_ms !== null || isOver || trust.remaining_uses === 0) {
    throw notFound("trust", trustId);
  }
  return trust;
};

const targetOf = (trust: Pick<Trust, "trustor_user_id" | "trustee_user_id">) => ({
  "target.trust.trustor_user_id": trust.trustor_user_id,
  "target.trust.trustee_user_id": trust.trustee_user_id,
});

type AskedRole = { readonly id?: string; readonly name?: string };

/** Ids of the roles asked for, which the trustor must have on the project. Throws `forbidden`, `not-found`. */
const askedRoleIds = async (
  asked: readonly AskedRole[],
  held: readonly { id: string; name: string }[],
  context: IdentityContext,
): Promise<string[]> => {
  const ids: string[] = [];
  for (const role of asked) {
    const match = held.find((one) => one.id === role.id || one.name === role.name);
    if (match !== undefined) {
      ids.push(match.id);
      continue;
    }
    // A role of one domain is held without being shown; it is named by its id.
    const row =
      role.id && (await context.database.selectFrom("roles").select("id").where("id", "=", role.id).executeTakeFirst());
    if (row && held.length > 0) throw notFound("role", row.id);
    throw notFound("role", role.id ?? role.name ?? "");
  }
  return [...new Set(ids)];
};

/** The roles that may be handed on: the parent trust's, or those that the trustor has on the project. */
const heldRoles = async (caller: Caller, projectId: string | undefined, context: IdentityContext) => {
  const { token } = caller;
  if (token.trust !== undefined) return expandedRoles(context, token.trust.roleIds);
  if (projectId === undefined) return [];
  const groupIds = await context.directory.groupIdsOf(token.user.id);
  const ids = await assignedRoleIds(context, { userId: token.user.id, groupIds }, { kind: "project", id: projectId });
  return expandedRoles(context, ids);
};

const create = guardedRoute({
  method: "POST",
  path: COLLECTION,
  operation: "identity:create_trust",
  request: { body: Type.Object({ trust: fieldsSchema }) },
  target: ({ body }) => targetOf(body.trust),
  handler: async (request, context, caller) => {
    const fields = request.body.trust;
    const { token } = caller;
    if (token.trust === undefined) refuseDelegated(caller, DELEGATED);
    if (token.user.id !== fields.trustor_user_id) {
      throw identityError("forbidden", "The authenticated user should match the trustor.");
    }
    const projectId = fields.project_id ?? undefined;
    if (projectId !== undefined && (fields.roles ?? []).length === 0) {
      throw identityError("forbidden", "At least one role should be specified.");
    }
    if ((await context.directory.findUser(fields.trustee_user_id)) === undefined) {
      throw notFound("user", fields.trustee_user_id);
    }
    if (projectId !== undefined) {
      const project = await context.database
        .selectFrom("projects")
        .select("id")
        .where("id", "=", projectId)
        .executeTakeFirst();
      if (project === undefined) throw notFound("project", projectId);
    }
    const parent = token.trust && (await loadDelegation(context, { trustId: token.trust.id }));
    const roleIds = await askedRoleIds(fields.roles ?? [], await heldRoles(caller, projectId, context), context);
    const expiresAtMs =
      typeof fields.expires_at === "string"
        ? futureTimeOf(fields.expires_at, "expires_at", context.clock.nowMs())
        : undefined;
    const verdict = judgeTrust(
      {
        projectId,
        impersonation: fields.impersonation,
        roleIds,
        expiresAtMs,
        remainingUses: fields.remaining_uses ?? undefined,
        allowsRedelegation: fields.allow_redelegation ?? false,
        redelegationCount: fields.redelegation_count ?? undefined,
      },
      parent?.kind === "trust" ? parent : undefined,
      context.config.maxRedelegationCount,
    );
    if (!verdict.isAllowed) throw identityError(verdict.code, verdict.reason);
    const row: Trust = {
      id: newId(),
      trustor_user_id: fields.trustor_user_id,
      trustee_user_id: fields.trustee_user_id,
      project_id: projectId ?? null,
      impersonation: Number(fields.impersonation),
      expires_at_ms: verdict.expiresAtMs ?? null,
      remaining_uses: fields.remaining_uses ?? null,
      redelegation_count: verdict.redelegationCount,
      redelegated_trust_id: token.trust?.id ?? null,
      deleted_at_ms: null,
      extra: extraOf(fieldsSchema, fields),
    };
    const body = await context.changes.write(async (transaction, change) => {
      // Deleted meanwhile, it would hand on what it has not any more.
      if (token.trust !== undefined) await living(token.trust.id, { database: transaction, clock: context.clock });
      await transaction.insertInto("trusts").values(row).execute();
      for (const roleId of roleIds) {
        await transaction.insertInto("trust_roles").values({ trust_id: row.id, role_id: roleId }).execute();
      }
      change.notify({ action: "create", resource: "OS-TRUST:trust", id: row.id });
      return wholeBody(row, request, context, transaction);
    });
    return { status: 201, body };
  },
});

/** Ids of a trust and of all that were made from it. */
const withDescendants = async (trustId: string, database: IdentityContext["database"]): Promise<string[]> => {
  const ids = [trustId];
  for (let index = 0; index < ids.length; index += 1) {
    const children = await database
      .selectFrom("trusts")
      .select("id")
      .where("redelegated_trust_id", "=", ids[index] ?? "")
      .where("deleted_at_ms", "is", null)
      .execute();
    ids.push(...children.map((child) => child.id));
  }
  return ids;
};

/** A trust's token manages that trust and what was made from it; other delegated tokens none. Throws `forbidden`. */
const assertOwn = async (trust: Trust, caller: Caller, { database }: IdentityContext): Promise<void> => {
  const own = caller.token.trust?.id;
  if (own === undefined) return refuseDelegated(caller, DELEGATED);
  if ((await withDescendants(own, database)).includes(trust.id)) return;
  throw identityError("forbidden", "A trust's token gives no right over other trusts.");
};

const FILTERS = { trustor_user_id: text("trustor_user_id"), trustee_user_id: text("trustee_user_id") };

const list = callerRoute({
  method: "GET",
  path: COLLECTION,
  // Whose trusts are asked for decides which policy holds.
  request: { query: anyQuery },
  handler: async (request, context, caller) => {
    const trustor = parameter(request.query, "trustor_user_id");
    const trustee = parameter(request.query, "trustee_user_id");
    if (trustor !== undefined) {
      enforce(context, caller, "identity:list_trusts_for_trustor", { "target.trust.trustor_user_id": trustor });
    } else if (trustee !== undefined) {
      enforce(context, caller, "identity:list_trusts_for_trustee", { "target.trust.trustee_user_id": trustee });
    } else enforce(context, caller, "identity:list_trusts", {});
    if (caller.token.trust === undefined) refuseDelegated(caller, DELEGATED);
    const query = listQueryOf(FILTERS, plainQuery(request.query));
    const base = baseUrl(request, context);
    const trusts = await listRecords(context.database, "trusts", {
      ...query,
      conditions: [...query.conditions, { column: "deleted_at_ms", comparison: "equals", value: null }],
    });
    const nowMs = context.clock.nowMs();
    const own = caller.token.trust && new Set(await withDescendants(caller.token.trust.id, context.database));
    const items = trusts
      .filter(({ id: trustId }) => own === undefined || own.has(trustId))
      .filter((trust) => trust.remaining_uses !== 0 && (trust.expires_at_ms === null || trust.expires_at_ms > nowMs))
      .map((trust) => trustBody(trust, base));
    return { status: 200, body: listBody(request, "trusts", items, query, base) };
  },
});

const show = callerRoute({
  method: "GET",
  path: ONE,
  request: { params: oneParameters },
  handler: async (request, context, caller) => {
    // Of a trust that is not there everybody is told so, as Keystone does.
    const trust = await living(request.params.trust_id, context);
    enforce(context, caller, "identity:get_trust", targetOf(trust));
    await assertOwn(trust, caller, context);
    return { status: 200, body: await wholeBody(trust, request, context, context.database) };
  },
});

const remove = callerRoute({
  method: "DELETE",
  path: ONE,
  request: { params: oneParameters },
  handler: async (request, context, caller) => {
    const trust = await living(request.params.trust_id, context);
    enforce(context, caller, "identity:delete_trust", targetOf(trust));
    await assertOwn(trust, caller, context);
    await context.changes.write(async (transaction, change) => {
      const deletedAtMs = context.clock.nowMs();
      for (const trustId of await withDescendants(trust.id, transaction)) {
        await transaction.updateTable("trusts").set({ deleted_at_ms: deletedAtMs }).where("id", "=", trustId).execute();
        change.revoke({ kind: "revoke", trustId });
        change.notify({ action: "delete", resource: "OS-TRUST:trust", id: trustId });
      }
    });
    return { status: 204 };
  },
});

const listRoles = callerRoute({
  method: "GET",
  path: `${ONE}/roles`,
  request: { params: oneParameters },
  handler: async (request, context, caller) => {
    const trust = await living(request.params.trust_id, context);
    enforce(context, caller, "identity:list_roles_for_trust", targetOf(trust));
    const base = baseUrl(request, context);
    const items = withLinks(await rolesOfTrust(trust.id, context), base);
    return {
      status: 200,
      body: { roles: items, links: { self: `${base}/OS-TRUST/trusts/${trust.id}/roles`, next: null, previous: null } },
    };
  },
});

const showRole = callerRoute({
  method: "GET",
  path: `${ONE}/roles/:role_id`,
  request: { params: Type.Object({ trust_id: Type.String(), role_id: Type.String() }) },
  handler: async (request, context, caller) => {
    const trust = await living(request.params.trust_id, context);
    enforce(context, caller, "identity:get_role_for_trust", targetOf(trust));
    const roles = await rolesOfTrust(trust.id, context);
    const role = roles.find((one) => one.id === request.params.role_id);
    if (role === undefined) throw notFound("role", request.params.role_id);
    const [body] = withLinks([role], baseUrl(request, context));
    return { status: 200, body: { role: body } };
  },
});

/** One user's right on a project in another's hands, until it is taken back, over or used up. */
export const TRUST_ROUTES: readonly IdentityRoute[] = [create, list, show, remove, listRoles, showRole];
