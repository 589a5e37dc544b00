import { Type } from "typebox";
import { identityError, notFound } from "../core/identity-error.ts";
import { rolesById } from "../store/assignments.ts";
import { type AccessToken, findAccessToken, removeAccessToken, roleIdsOf } from "../store/oauth1.ts";
import { type IdentityDatabase, parsed } from "../store/records.ts";
import type { Role } from "../store/schema.ts";
import { refuseDelegated } from "./delegated-tokens.ts";
import { baseUrl, guardedRoute, type IdentityRoute } from "./identity-route.ts";
import { anyQuery, listBody, listQueryOf, plainQuery } from "./list-parameters.ts";
import { isoMicroseconds } from "./times.ts";

const COLLECTION = "/v3/users/:user_id/OS-OAUTH1/access_tokens";
const ONE = `${COLLECTION}/:access_token_id`;

const userParameters = Type.Object({ user_id: Type.String() });
const tokenParameters = Type.Object({ user_id: Type.String(), access_token_id: Type.String() });
const roleParameters = Type.Object({
  user_id: Type.String(),
  access_token_id: Type.String(),
  role_id: Type.String(),
});
const WHAT = "manage OAuth1 access tokens";

const bodyOf = (token: AccessToken, base: string) => {
  const self = `${base}/users/${token.authorizing_user_id}/OS-OAUTH1/access_tokens/${token.id}`;
  return {
    id: token.id,
    authorizing_user_id: token.authorizing_user_id,
    project_id: token.project_id,
    consumer_id: token.consumer_id,
    expires_at: token.expires_at_ms === null ? null : isoMicroseconds(token.expires_at_ms),
    links: { self, roles: `${self}/roles` },
  };
};

const roleBody = ({ id, name, domain_id, options }: Role, base: string) => ({
  id,
  name,
  domain_id,
  options: parsed(options),
  links: { self: `${base}/roles/${id}` },
});

/** The user's token with this id. Throws `not-found`. */
const owned = async (
  { user_id, access_token_id }: { user_id: string; access_token_id: string },
  database: IdentityDatabase,
): Promise<AccessToken> => {
  const token = await findAccessToken(database, access_token_id);
  if (token?.authorizing_user_id !== user_id) throw identityError("not-found", "Access token not found");
  return token;
};

/** What users have delegated by OAuth 1.0a. */
export const OAUTH1_ACCESS_TOKEN_ROUTES: readonly IdentityRoute[] = [
  guardedRoute({
    method: "GET",
    path: COLLECTION,
    operation: "identity:list_access_tokens",
    request: { params: userParameters, query: anyQuery },
    handler: async (request, context, caller) => {
      refuseDelegated(caller, WHAT);
      const query = listQueryOf({}, plainQuery(request.query));
      const base = baseUrl(request, context);
      let rows = context.database
        .selectFrom("access_tokens")
        .selectAll()
        .where("authorizing_user_id", "=", request.params.user_id)
        .orderBy("id")
        .limit(query.limit);
      if (query.marker !== undefined) rows = rows.where("id", ">", query.marker);
      const items = (await rows.execute()).map((row) => bodyOf(row, base));
      return { status: 200, body: listBody(request, "access_tokens", items, query, base) };
    },
  }),
  guardedRoute({
    method: "GET",
    path: ONE,
    operation: "identity:get_access_token",
    request: { params: tokenParameters },
    handler: async (request, context, caller) => {
      refuseDelegated(caller, WHAT);
      const token = await owned(request.params, context.database);
      return { status: 200, body: { access_token: bodyOf(token, baseUrl(request, context)) } };
    },
  }),
  guardedRoute({
    method: "DELETE",
    path: ONE,
    operation: "identity:delete_access_token",
    request: { params: tokenParameters },
    handler: async (request, context, caller) => {
      refuseDelegated(caller, WHAT);
      await context.changes.write(async (transaction, change) => {
        const { id } = await owned(request.params, transaction);
        await removeAccessToken(transaction, change, id);
      });
      return { status: 204 };
    },
  }),
  guardedRoute({
    method: "GET",
    path: `${ONE}/roles`,
    operation: "identity:list_access_token_roles",
    request: { params: tokenParameters, query: anyQuery },
    handler: async (request, context) => {
      const token = await owned(request.params, context.database);
      const roles = await rolesById(context);
      const base = baseUrl(request, context);
      const items = roleIdsOf(token).flatMap((id) => roles.get(id) ?? []);
      const query = listQueryOf({}, plainQuery(request.query));
      const bodies = items.map((role) => roleBody(role, base));
      return { status: 200, body: listBody(request, "roles", bodies, query, base) };
    },
  }),
  guardedRoute({
    method: "GET",
    path: `${ONE}/roles/:role_id`,
    operation: "identity:get_access_token_role",
    request: { params: roleParameters },
    handler: async (request, context) => {
      const { role_id: roleId } = request.params;
      const token = await owned(request.params, context.database);
      const role = roleIdsOf(token).includes(roleId) ? (await rolesById(context)).get(roleId) : undefined;
      if (role === undefined) throw notFound("role", roleId);
      return { status: 200, body: { role: roleBody(role, baseUrl(request, context)) } };
    },
  }),
];
