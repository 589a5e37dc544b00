import { randomBytes, randomInt } from "node:crypto";
import { Type } from "typebox";
import type { HttpResponse } from "../../common/http/route.ts";
import { assertSigned, missingParameter, parametersOf, requiredParameter } from "../authentication/oauth1.ts";
import { identityError, notFound, unauthorized } from "../core/identity-error.ts";
import { effectiveRoles, rolesById } from "../store/assignments.ts";
import { findConsumer, findRequestToken, type RequestToken, sealedSecret } from "../store/oauth1.ts";
import { findRecord, newId } from "../store/records.ts";
import { signedRequest } from "./authentication-body.ts";
import { refuseDelegated } from "./delegated-tokens.ts";
import { callerRoute, enforce, type IdentityContext, type IdentityRoute, openRoute } from "./identity-route.ts";
import { anyQuery } from "./list-parameters.ts";
import { isoMicroseconds } from "./times.ts";

/** Keystone's defaults. */
const REQUEST_TOKEN_LIFETIME_MS = 28_800_000;
const ACCESS_TOKEN_LIFETIME_MS = 86_400_000;
const VERIFIER_LENGTH = 8;
/** Letters and digits that nobody mistakes for one another. */
const VERIFIER_CHARACTERS = "abcdefghijkmnopqrstuvwxyzABCDEFGHIJKLMNPQRSTUVWXYZ23456789";
const ROLES_MAX = 256;

const absent = (what: string) => identityError("not-found", `${what} not found`);
const newSecret = (): string => randomBytes(16).toString("hex");
const newVerifier = (): string =>
  Array.from({ length: VERIFIER_LENGTH }, () => VERIFIER_CHARACTERS[randomInt(VERIFIER_CHARACTERS.length)]).join("");

const issued = (id: string, secret: string, expiresAtMs: number): HttpResponse => ({
  status: 201,
  headers: { "content-type": "application/x-www-form-urlencoded", "cache-control": "no-store" },
  body: `oauth_token=${id}&oauth_token_secret=${secret}&oauth_expires_at=${isoMicroseconds(expiresAtMs)}`,
});

/** Throws `not-found`, `unauthorized` where its time is over. */
const livingRequestToken = async (id: string, { database, clock }: IdentityContext): Promise<RequestToken> => {
  const token = await findRequestToken(database, id);
  if (token === undefined) throw absent("Request token");
  if (token.expires_at_ms !== null && token.expires_at_ms <= clock.nowMs()) throw unauthorized("request token is over");
  return token;
};

/** A consumer asks for a project; a user has yet to say yes. */
const createRequestToken = openRoute({
  method: "POST",
  path: "/v3/OS-OAUTH1/request_token",
  request: { query: anyQuery },
  handler: async (request, context) => {
    const signed = signedRequest(request);
    const parameters = parametersOf(signed);
    const consumerId = requiredParameter(parameters, "oauth_consumer_key");
    const projectId = request.header("requested-project-id");
    if (projectId === undefined || projectId === "") throw missingParameter("Requested-Project-Id");
    const keys = [`consumer ${consumerId}`, `address ${request.remoteAddress}`];
    using attempt = await context.limiter.begin(keys);
    if ((await findConsumer(context.database, consumerId)) === undefined) throw absent("Consumer");
    try {
      await assertSigned(context, signed, parameters, { consumerId, token: undefined });
    } catch (thrown) {
      attempt.failed();
      throw thrown;
    }
    if ((await findRecord(context.database, "projects", projectId)) === undefined) {
      throw notFound("project", projectId);
    }
    const id = newId();
    const secret = newSecret();
    const expiresAtMs = context.clock.nowMs() + REQUEST_TOKEN_LIFETIME_MS;
    await context.changes.write(async (transaction, change) => {
      const row: RequestToken = {
        id,
        secret: sealedSecret(context.cipher, id, secret),
        verifier: null,
        authorizing_user_id: null,
        requested_project_id: projectId,
        role_ids: null,
        consumer_id: consumerId,
        expires_at_ms: expiresAtMs,
      };
      await transaction.insertInto("request_tokens").values(row).execute();
      change.notify({ action: "create", resource: "OS-OAUTH1:request_token", id });
    });
    return issued(id, secret, expiresAtMs);
  },
});

const roleReference = Type.Union([
  Type.Object({ id: Type.String({ minLength: 1, maxLength: 64 }) }, { additionalProperties: false }),
  Type.Object({ name: Type.String({ minLength: 1, maxLength: 255 }) }, { additionalProperties: false }),
]);

/** Ids of roles by id, or by a name that only one has. Throws `not-found`, `conflict`. */
const roleIdsNamed = async (
  named: readonly ({ readonly id: string } | { readonly name: string })[],
  context: IdentityContext,
): Promise<string[]> => {
  const roles = [...(await rolesById(context)).values()];
  const ids = named.map((reference) => {
    if ("id" in reference) return reference.id;
    const found = roles.filter(({ name }) => name === reference.name);
    if (found.length > 1) {
      throw identityError("conflict", `Multiple roles are named ${reference.name}; the request must use the id.`);
    }
    if (found[0] === undefined) throw notFound("role", reference.name);
    return found[0].id;
  });
  return [...new Set(ids)];
};

/** A user hands roles of the project on to the consumer, which learns the verifier from the user. */
const authorize = callerRoute({
  method: "PUT",
  path: "/v3/OS-OAUTH1/authorize/:request_token_id",
  request: {
    params: Type.Object({ request_token_id: Type.String() }),
    body: Type.Object({ roles: Type.Array(roleReference, { maxItems: ROLES_MAX }) }),
  },
  handler: async ({ params, body }, context, caller) => {
    const operation = "identity:authorize_request_token";
    enforce(context, caller, operation, {});
    refuseDelegated(caller, "authorize a request token");
    const token = await livingRequestToken(params.request_token_id, context);
    const roleIds = await roleIdsNamed(body.roles, context);
    const userId = caller.token.user.id;
    const actor = { userId, groupIds: await context.directory.groupIdsOf(userId) };
    const held = await effectiveRoles(context, actor, { kind: "project", id: token.requested_project_id });
    const heldIds = new Set(held.map(({ id }) => id));
    if (!roleIds.every((id) => heldIds.has(id))) throw unauthorized("the authorizing user lacks a role");
    const verifier = newVerifier();
    await context.changes.write(async (transaction, change) => {
      const done = await transaction
        .updateTable("request_tokens")
        .set({ verifier, authorizing_user_id: userId, role_ids: JSON.stringify(roleIds) })
        .where("id", "=", token.id)
        .executeTakeFirst();
      if (done.numUpdatedRows === 0n) throw absent("Request token");
      change.notify({ action: "update", resource: "OS-OAUTH1:request_token", id: token.id });
    });
    return { status: 200, body: { token: { oauth_verifier: verifier } } };
  },
});

/** What was authorized becomes an access token, once. */
const createAccessToken = openRoute({
  method: "POST",
  path: "/v3/OS-OAUTH1/access_token",
  request: { query: anyQuery },
  handler: async (request, context) => {
    const signed = signedRequest(request);
    const parameters = parametersOf(signed);
    const consumerId = requiredParameter(parameters, "oauth_consumer_key");
    const requestId = requiredParameter(parameters, "oauth_token");
    const verifier = requiredParameter(parameters, "oauth_verifier");
    const keys = [`consumer ${consumerId}`, `address ${request.remoteAddress}`];
    using attempt = await context.limiter.begin(keys);
    const token = await livingRequestToken(requestId, context);
    try {
      if (token.consumer_id !== consumerId) throw unauthorized("request token is another consumer's");
      await assertSigned(context, signed, parameters, { consumerId, token });
      if (token.verifier === null || token.verifier !== verifier) throw unauthorized("wrong verifier");
    } catch (thrown) {
      attempt.failed();
      throw thrown;
    }
    const { authorizing_user_id: userId, role_ids: roleIds } = token;
    if (userId === null || roleIds === null) throw unauthorized("nobody has authorized the request token");
    const id = newId();
    const secret = newSecret();
    const expiresAtMs = context.clock.nowMs() + ACCESS_TOKEN_LIFETIME_MS;
    await context.changes.write(async (transaction, change) => {
      const used = await transaction
        .deleteFrom("request_tokens")
        .where("id", "=", requestId)
        .where("verifier", "=", verifier)
        .executeTakeFirst();
      if (used.numDeletedRows === 0n) throw unauthorized("request token was used before");
      await transaction
        .insertInto("access_tokens")
        .values({
          id,
          secret: sealedSecret(context.cipher, id, secret),
          authorizing_user_id: userId,
          project_id: token.requested_project_id,
          role_ids: roleIds,
          consumer_id: consumerId,
          expires_at_ms: expiresAtMs,
        })
        .execute();
      change.notify({ action: "create", resource: "OS-OAUTH1:access_token", id });
    });
    return issued(id, secret, expiresAtMs);
  },
});

/** The three steps by which a user delegates roles to a consumer. */
export const OAUTH1_ROUTES: readonly IdentityRoute[] = [createRequestToken, authorize, createAccessToken];
