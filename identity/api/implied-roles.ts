import { Type } from "typebox";
import { identityError } from "../core/identity-error.ts";
import { recheckHolders } from "../store/grants.ts";
import type { IdentityDatabase } from "../store/records.ts";
import type { Role } from "../store/schema.ts";
import { baseUrl, enforce, guardedRoute, type IdentityRoute } from "./identity-route.ts";
import { recordOrNotFound } from "./resource-routes.ts";

/** Roles that nobody gets by the way; Keystone's `prohibited_implied_role`. */
const PROHIBITED_IMPLIED_ROLES = new Set(["admin"]);

const priorRole = Type.Object({ prior_role_id: Type.String() });
const bothRoles = Type.Object({ prior_role_id: Type.String(), implied_role_id: Type.String() });

const named = ({ id, name }: Pick<Role, "id" | "name">, base: string) => ({
  id,
  links: { self: `${base}/roles/${id}` },
  name,
});

const inferenceBody = (prior: Role, implied: Role, base: string) => ({
  role_inference: { prior_role: named(prior, base), implies: named(implied, base) },
  links: { self: `${base}/roles/${prior.id}/implies/${implied.id}` },
});

const implicationsFrom = (database: IdentityDatabase, priorId: string): Promise<Role[]> =>
  database
    .selectFrom("role_implications")
    .innerJoin("roles", "roles.id", "role_implications.implied_role_id")
    .selectAll("roles")
    .where("prior_role_id", "=", priorId)
    .orderBy("roles.id")
    .execute();

const bothOrNotFound = async (
  database: IdentityDatabase,
  params: { prior_role_id: string; implied_role_id: string },
): Promise<{ prior: Role; implied: Role; isKnown: boolean }> => {
  const prior = await recordOrNotFound(database, "roles", "role", params.prior_role_id);
  const implied = await recordOrNotFound(database, "roles", "role", params.implied_role_id);
  const known = await database
    .selectFrom("role_implications")
    .select("prior_role_id")
    .where("prior_role_id", "=", prior.id)
    .where("implied_role_id", "=", implied.id)
    .executeTakeFirst();
  return { prior, implied, isKnown: known !== undefined };
};

const doesNotImply = (prior: Role, implied: Role): Error =>
  identityError("not-found", `${prior.id} does not imply ${implied.id}.`);

const list = guardedRoute({
  method: "GET",
  path: "/v3/roles/:prior_role_id/implies",
  operation: "identity:list_implied_roles",
  request: { params: priorRole },
  handler: async (request, context) => {
    const prior = await recordOrNotFound(context.database, "roles", "role", request.params.prior_role_id);
    const base = baseUrl(request, context);
    const implies = (await implicationsFrom(context.database, prior.id)).map((role) => named(role, base));
    const links = { self: `${base}/roles/${prior.id}/implies` };
    return { status: 200, body: { role_inference: { prior_role: named(prior, base), implies }, links } };
  },
});

const show = guardedRoute({
  method: "GET",
  path: "/v3/roles/:prior_role_id/implies/:implied_role_id",
  operation: "identity:get_implied_role",
  request: { params: bothRoles },
  handler: async (request, context, caller) => {
    const isHead = request.method === "HEAD";
    if (isHead) enforce(context, caller, "identity:check_implied_role", {});
    const { prior, implied, isKnown } = await bothOrNotFound(context.database, request.params);
    if (!isKnown) throw doesNotImply(prior, implied);
    if (isHead) return { status: 204 };
    return { status: 200, body: inferenceBody(prior, implied, baseUrl(request, context)) };
  },
});

const create = guardedRoute({
  method: "PUT",
  path: "/v3/roles/:prior_role_id/implies/:implied_role_id",
  operation: "identity:create_implied_role",
  request: { params: bothRoles },
  handler: async (request, context) => {
    const body = await context.changes.write(async (transaction, change) => {
      const { prior, implied, isKnown } = await bothOrNotFound(transaction, request.params);
      // A role of one domain, implied by one of all, would reach into the other domains.
      const leavesItsDomain = prior.domain_id === null && implied.domain_id !== null;
      if (leavesItsDomain || PROHIBITED_IMPLIED_ROLES.has(implied.name)) {
        throw identityError("forbidden", `${implied.id} cannot be an implied role.`);
      }
      if (isKnown) {
        throw identityError("conflict", "Conflict occurred attempting to store implied_role - Duplicate entry.");
      }
      const row = { prior_role_id: prior.id, implied_role_id: implied.id };
      await transaction.insertInto("role_implications").values(row).execute();
      await recheckHolders(transaction, change, [prior.id]);
      change.notify({ action: "create", resource: "implied_role", id: prior.id, details: { implied: implied.id } });
      return inferenceBody(prior, implied, baseUrl(request, context));
    });
    return { status: 201, body };
  },
});

const remove = guardedRoute({
  method: "DELETE",
  path: "/v3/roles/:prior_role_id/implies/:implied_role_id",
  operation: "identity:delete_implied_role",
  request: { params: bothRoles },
  handler: async (request, context) => {
    await context.changes.write(async (transaction, change) => {
      const { prior, implied, isKnown } = await bothOrNotFound(transaction, request.params);
      if (!isKnown) throw doesNotImply(prior, implied);
      await transaction
        .deleteFrom("role_implications")
        .where("prior_role_id", "=", prior.id)
        .where("implied_role_id", "=", implied.id)
        .execute();
      await recheckHolders(transaction, change, [prior.id]);
      change.notify({ action: "delete", resource: "implied_role", id: prior.id, details: { implied: implied.id } });
    });
    return { status: 204 };
  },
});

const listAll = guardedRoute({
  method: "GET",
  path: "/v3/role_inferences",
  operation: "identity:list_role_inference_rules",
  request: {},
  handler: async (request, context) => {
    const base = baseUrl(request, context);
    const rows = await context.database
      .selectFrom("role_implications as i")
      .innerJoin("roles as prior", "prior.id", "i.prior_role_id")
      .innerJoin("roles as implied", "implied.id", "i.implied_role_id")
      .select(["prior.id as priorId", "prior.name as priorName", "implied.id", "implied.name"])
      .orderBy("prior.id")
      .orderBy("implied.id")
      .execute();
    const inferences = [...Map.groupBy(rows, ({ priorId }) => priorId)].map(([id, implied]) => ({
      prior_role: named({ id, name: implied[0]?.priorName ?? "" }, base),
      implies: implied.map((role) => named(role, base)),
    }));
    return { status: 200, body: { role_inferences: inferences } };
  },
});

/** Roles that follow from others. */
export const IMPLIED_ROLE_ROUTES: readonly IdentityRoute[] = [list, show, create, remove, listAll];
