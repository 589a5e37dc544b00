import type { HttpRequest, HttpResponse, RequestSchema, Route, TypedRoute } from "../../common/http/route.ts";
import { identityError, unauthorized } from "../core/identity-error.ts";
import { allows, type Policy, type PolicyCaller, type PolicyTarget } from "../core/policy.ts";
import type { CredentialCipher } from "../store/credential-cipher.ts";
import type { IdentityDatabase } from "../store/rows.ts";
import type { TokenDetails, TokenService } from "../token-service.ts";

/** What handlers work with. */
export type IdentityContext = {
  readonly database: IdentityDatabase;
  readonly tokens: TokenService;
  readonly cipher: CredentialCipher;
  /** `http://HOST:PORT`, for a caller without a Host header. */
  readonly publicEndpoint: string;
  /** `http://HOST:PORT` of the object service. */
  readonly objectEndpoint: string;
  /** jwks.json: what signatures of tokens are checked with. */
  readonly publicKeysFile: string;
  readonly admin: { readonly userId: string; readonly projectId: string };
};

export type IdentityRoute = Route<IdentityContext>;

type OpenRoute<Request extends RequestSchema> = TypedRoute<IdentityContext, Request>;

type GuardedRoute<Request extends RequestSchema> = Omit<OpenRoute<Request>, "handler"> & {
  readonly policy: Policy;
  /** What the request is about, where the policy looks at that. */
  target?(request: HttpRequest<Request>): PolicyTarget;
  handler(
    request: HttpRequest<Request>,
    context: IdentityContext,
    caller: TokenDetails,
  ): Promise<HttpResponse> | HttpResponse;
};

/** An operation that needs no token. */
export const openRoute = <const Request extends RequestSchema>(route: OpenRoute<Request>): IdentityRoute => route;

const policyCaller = ({ user, scope, roles }: TokenDetails): PolicyCaller => ({
  userId: user.id,
  projectId: scope.kind === "project" ? scope.project.id : undefined,
  system: scope.kind === "system",
  roles: new Set(roles.map(({ name }) => name)),
});

/** Throws `forbidden` unless `policy` lets the caller. */
export const enforce = (policy: Policy, caller: TokenDetails, target: PolicyTarget, operation: string): void => {
  if (allows(policy, policyCaller(caller), target)) return;
  throw identityError("forbidden", `You are not authorized to perform the requested action: ${operation}.`, { policy });
};

/** The caller's state is looked up afresh: a disabled user or a lost role counts at once. Throws `unauthorized`. */
export const callerOf = (request: Pick<HttpRequest, "header">, context: IdentityContext): Promise<TokenDetails> => {
  const token = request.header("x-auth-token");
  if (token === undefined) throw unauthorized("no X-Auth-Token");
  return context.tokens.describe(token);
};

/** An operation that needs a token whose bearer `policy` lets through. */
export const guardedRoute = <const Request extends RequestSchema>(route: GuardedRoute<Request>): IdentityRoute => {
  const { method, path, policy } = route;
  return openRoute({
    method,
    path,
    request: route.request,
    handler: async (request: HttpRequest<Request>, context) => {
      const caller = await callerOf(request, context);
      enforce(policy, caller, route.target?.(request) ?? {}, `${method} ${path}`);
      return route.handler(request, context, caller);
    },
  });
};

/** The base of links in an answer: the address that the client used, so that links work through a tunnel too. */
export const baseUrl = (request: Pick<HttpRequest, "origin">, context: IdentityContext): string =>
  `${request.origin ?? context.publicEndpoint}/v3`;
