import { type Static, Type } from "typebox";
import { codeOf } from "../../common/errors.ts";
import type { HttpRequest } from "../../common/http/route.ts";
import type { PolicyTarget } from "../../common/policy/policy-engine.ts";
import { identityError } from "../core/identity-error.ts";
import type { TokenDetails } from "../token-service.ts";
import { authenticationBody, authenticationRequest } from "./authentication-body.ts";
import {
  baseUrl,
  callerOf,
  enforce,
  guardedRoute,
  type IdentityContext,
  type IdentityRoute,
  openRoute,
} from "./identity-route.ts";
import { isSet } from "./list-parameters.ts";
import { enabledServiceProviders } from "../store/federation.ts";
import { tokenText } from "./token-body.ts";

/** `?nocatalog`, with or without a value. */
const query = Type.Object({ nocatalog: Type.Optional(Type.String()), allow_expired: Type.Optional(Type.String()) });

const answerText = async (
  details: TokenDetails,
  asked: Static<typeof query>,
  context: IdentityContext,
): Promise<string> => {
  const { scope, user } = details;
  if (asked.nocatalog !== undefined || scope.kind === "unscoped") return tokenText(details, undefined, []);
  const catalog = await context.tokens.catalogText(user.id, scope);
  return tokenText(details, catalog, await enabledServiceProviders(context));
};

const answerHeaders = (token: string) => ({ "x-subject-token": token, "content-type": "application/json" });

const subjectToken = (request: Pick<HttpRequest, "header">): string => {
  const token = request.header("x-subject-token");
  if (token === undefined) throw identityError("not-found", "No token in the request.");
  return token;
};

/** The subject's state; a token that does not hold is a thing not found, the caller's own being fine. */
const describeSubject = async (
  token: string,
  { tokens }: IdentityContext,
  allowExpired = false,
): Promise<TokenDetails> => {
  try {
    return await tokens.describe(token, allowExpired);
  } catch (thrown) {
    if (codeOf(thrown) !== "unauthorized") throw thrown;
    throw identityError("not-found", "Failed to validate token.");
  }
};

const subjectTarget = ({ user }: TokenDetails): PolicyTarget => ({
  "target.token.user_id": user.id,
  "target.token.user.domain.id": user.domainId,
});

const issueToken = openRoute({
  method: "POST",
  path: "/v3/auth/tokens",
  request: { query, body: authenticationBody },
  handler: async (request, context) => {
    const { token, details } = await context.tokens.authenticate(authenticationRequest(request));
    return {
      status: 201,
      headers: answerHeaders(token),
      body: await answerText(details, request.query, context),
    };
  },
});

const validateToken = openRoute({
  method: "GET",
  path: "/v3/auth/tokens",
  request: { query },
  handler: async (request, context) => {
    const caller = await callerOf(request, context);
    const token = subjectToken(request);
    const details = await describeSubject(token, context, isSet(request.query, "allow_expired"));
    enforce(context, caller, "identity:validate_token", subjectTarget(details));
    return {
      status: 200,
      headers: answerHeaders(token),
      body: await answerText(details, request.query, context),
    };
  },
});

const revokeToken = openRoute({
  method: "DELETE",
  path: "/v3/auth/tokens",
  request: {},
  handler: async (request, context) => {
    const caller = await callerOf(request, context);
    const token = subjectToken(request);
    const details = await describeSubject(token, context);
    enforce(context, caller, "identity:revoke_token", subjectTarget(details));
    await context.tokens.revoke(token);
    return { status: 204 };
  },
});

const showCatalog = guardedRoute({
  method: "GET",
  path: "/v3/auth/catalog",
  operation: "identity:get_auth_catalog",
  request: {},
  handler: async (request, context, { token: { user, scope } }) => {
    if (scope.kind === "unscoped") {
      throw identityError("forbidden", "A project-scoped token is required to produce a service catalog.");
    }
    const catalog = await context.tokens.catalog(user.id, scope);
    return { status: 200, body: { catalog, links: { self: `${baseUrl(request, context)}/auth/catalog` } } };
  },
});

export const TOKEN_ROUTES: readonly IdentityRoute[] = [issueToken, validateToken, revokeToken, showCatalog];
