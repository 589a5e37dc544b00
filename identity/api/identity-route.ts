import type { Clock } from "../../common/clock.ts";
import { codeOf } from "../../common/errors.ts";
import type { HttpRequest, HttpResponse, RequestSchema, Route, TypedRoute } from "../../common/http/route.ts";
import type { PolicyCredentials, PolicyEngine, PolicyTarget } from "../../common/policy/policy-engine.ts";
import type { Audit } from "../audit.ts";
import type { LoginLimiter } from "../authentication/login-limiter.ts";
import type { OidcClient } from "../authentication/oidc-client.ts";
import type { IdentityConfig } from "../config.ts";
import { isAllowedByRules } from "../core/access-rules.ts";
import { identityError, unauthorized } from "../core/identity-error.ts";
import type { Changes } from "../store/changes.ts";
import type { CredentialCipher } from "../store/credential-cipher.ts";
import type { PasswordHasher } from "../store/password-hasher.ts";
import type { ReadCache } from "../store/read-cache.ts";
import type { IdentityDatabase } from "../store/records.ts";
import type { Directory } from "../store/directory.ts";
import { actingFor, type Initiator } from "../initiator.ts";
import type { KeyRotation } from "../rotate-keys.ts";
import type { RevocationFeed } from "../revocation-feed.ts";
import type { SamlProvider } from "../saml-provider.ts";
import type { TokenDetails, TokenService } from "../token-service.ts";

/** What handlers work with. */
export type IdentityContext = {
  readonly config: IdentityConfig;
  readonly clock: Clock;
  /** For reading. Everything is written through `changes`. */
  readonly database: IdentityDatabase;
  readonly changes: Changes;
  readonly cache: ReadCache;
  readonly directory: Directory;
  readonly tokens: TokenService;
  readonly revocations: RevocationFeed;
  readonly policy: PolicyEngine;
  readonly cipher: CredentialCipher;
  readonly hasher: PasswordHasher;
  readonly limiter: LoginLimiter;
  readonly audit: Audit;
  /** Providers of OpenID Connect by the id of the identity provider. */
  readonly oidc: ReadonlyMap<string, OidcClient>;
  readonly saml: SamlProvider;
  /** `http://HOST:PORT`, for a caller without a Host header. */
  readonly publicEndpoint: string;
  /** `http://HOST:PORT` of the object service. */
  readonly objectEndpoint: string;
  /** jwks.json: what signatures of tokens are checked with. */
  readonly publicKeysFile: string;
  rotateKeys(): Promise<KeyRotation>;
  readonly admin: { readonly userId: string; readonly projectId: string };
};

export type IdentityRoute = Route<IdentityContext>;

type OpenRoute<Request extends RequestSchema> = TypedRoute<IdentityContext, Request>;

/** Who calls: the token's state now, and what policies see of it. */
export type Caller = {
  readonly token: TokenDetails;
  readonly credentials: PolicyCredentials;
  readonly requestId: string;
  readonly remoteAddress: string;
};

type GuardedRoute<Request extends RequestSchema> = Omit<OpenRoute<Request>, "handler"> & {
  /** The policy's name: `identity:get_user`. */
  readonly operation: string;
  /**
   * What the request is about, where the policy looks at that: `{ "target.user.domain_id": … }`. A `not-found` that it throws counts as
   * an empty target: who may not see a thing does not learn whether it is there.
   */
  target?(
    request: HttpRequest<Request>,
    context: IdentityContext,
    caller: Caller,
  ): Promise<PolicyTarget> | PolicyTarget;
  handler(
    request: HttpRequest<Request>,
    context: IdentityContext,
    caller: Caller,
  ): Promise<HttpResponse> | HttpResponse;
};

/** An operation that needs no token. */
export const openRoute = <const Request extends RequestSchema>(route: OpenRoute<Request>): IdentityRoute => route;

/** What policies see of a token; oslo.policy's names. */
const policyCredentials = ({ user, userDomain, scope, roles, trust }: TokenDetails): PolicyCredentials => ({
  user_id: user.id,
  user_domain_id: userDomain.id,
  project_id: scope.kind === "project" ? scope.project.id : undefined,
  project_domain_id: scope.kind === "project" ? scope.domain.id : undefined,
  domain_id: scope.kind === "domain" ? scope.domain.id : undefined,
  system_scope: scope.kind === "system" ? "all" : undefined,
  trust_id: trust?.id,
  trustor_id: trust?.trustorUserId,
  trustee_id: trust?.trusteeUserId,
  roles: roles.map(({ name }) => name),
});

/** Throws `forbidden` unless the policy `operation` lets the caller. */
export const enforce = (context: IdentityContext, caller: Caller, operation: string, target: PolicyTarget): void => {
  if (context.policy.allows(operation, caller.credentials, target)) return;
  throw identityError("forbidden", `You are not authorized to perform the requested action: ${operation}.`, {
    operation,
  });
};

/** Whether the policy `operation` lets the caller, for lists that show what may be seen. */
export const mayDo = (context: IdentityContext, caller: Caller, operation: string, target: PolicyTarget): boolean =>
  context.policy.allows(operation, caller.credentials, target);

/** An application credential may be limited to a few requests; a token can always be looked at. Throws `unauthorized`. */
const assertAllowed = ({ delegation }: TokenDetails, { method, path }: Pick<HttpRequest, "method" | "path">): void => {
  if (delegation?.kind !== "application-credential" || delegation.accessRules === undefined) return;
  if (method === "GET" && path === "/v3/auth/tokens") return;
  if (isAllowedByRules(delegation.accessRules, "identity", method, path)) return;
  throw unauthorized(`the access rules of application credential ${delegation.id} do not allow ${method} ${path}`);
};

/** The caller's state is that of now: a disabled user or a lost role counts at once. Throws `unauthorized`. */
export const callerOf = async (
  request: Pick<HttpRequest, "header" | "requestId" | "remoteAddress" | "method" | "path">,
  context: IdentityContext,
): Promise<Caller> => {
  const text = request.header("x-auth-token");
  if (text === undefined) throw unauthorized("no X-Auth-Token");
  const token = await context.tokens.describe(text);
  assertAllowed(token, request);
  const { requestId, remoteAddress } = request;
  return { token, credentials: policyCredentials(token), requestId, remoteAddress };
};

const initiatorOf = ({ token, requestId, remoteAddress }: Caller): Initiator => ({
  userId: token.user.id,
  projectId: token.scope.kind === "project" ? token.scope.project.id : undefined,
  requestId,
  remoteAddress,
});

/** An operation that needs a token and asks for the policy itself, once it knows which holds. */
export const callerRoute = <const Request extends RequestSchema>(
  route: Omit<GuardedRoute<Request>, "operation" | "target">,
): IdentityRoute => {
  const { method, path, request: schema } = route;
  return openRoute({
    method,
    path,
    request: schema,
    handler: async (request: HttpRequest<Request>, context) => {
      const caller = await callerOf(request, context);
      return actingFor(initiatorOf(caller), () => route.handler(request, context, caller));
    },
  });
};

/** An operation that needs a token whose bearer its policy lets through. */
export const guardedRoute = <const Request extends RequestSchema>(route: GuardedRoute<Request>): IdentityRoute => {
  const { method, path, operation } = route;
  return openRoute({
    method,
    path,
    request: route.request,
    handler: async (request: HttpRequest<Request>, context) => {
      const caller = await callerOf(request, context);
      enforce(context, caller, operation, await targetOf(() => route.target?.(request, context, caller)));
      return actingFor(initiatorOf(caller), () => route.handler(request, context, caller));
    },
  });
};

/** The target that `look` finds; empty where the thing is not there. */
const targetOf = async (look: () => Promise<PolicyTarget> | PolicyTarget | undefined): Promise<PolicyTarget> => {
  try {
    return (await look()) ?? {};
  } catch (thrown) {
    if (codeOf(thrown) !== "not-found") throw thrown;
    return {};
  }
};

/** The base of links in an answer: the address that the client used, so that links work through a tunnel too. */
export const baseUrl = (request: Pick<HttpRequest, "origin">, context: IdentityContext): string =>
  `${request.origin ?? context.publicEndpoint}/v3`;
