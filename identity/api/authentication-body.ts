import { type Static, Type } from "typebox";
import type { HttpRequest } from "../../common/http/route.ts";
import { domainReference, reference, textOf } from "../authentication/references.ts";
import type { AuthenticationRequest, ScopeRequest, SignedRequest } from "../core/authentication-request.ts";
import { identityError } from "../core/identity-error.ts";

const NAME_MAX = 255;
const METHODS_MAX = 16;

const anything = Type.Optional(Type.Unknown());

/** `POST /v3/auth/tokens`. Unknown members are ignored, as Keystone does; what a method says is the method's to check. */
export const authenticationBody = Type.Object({
  auth: Type.Object({
    identity: Type.Intersect([
      Type.Object({
        methods: Type.Array(Type.String({ maxLength: NAME_MAX }), { minItems: 1, maxItems: METHODS_MAX }),
      }),
      Type.Record(Type.String(), Type.Unknown()),
    ]),
    scope: Type.Optional(
      Type.Union([
        Type.Literal("unscoped"),
        Type.Object({
          unscoped: anything,
          project: anything,
          domain: anything,
          system: anything,
          "OS-TRUST:trust": anything,
        }),
      ]),
    ),
  }),
});
type AuthenticationBody = Static<typeof authenticationBody>;

const badRequest = (message: string) => identityError("bad-request", message);

const scopeRequest = (scope: AuthenticationBody["auth"]["scope"]): ScopeRequest => {
  if (scope === undefined) return { kind: "default" };
  if (scope === "unscoped") return { kind: "unscoped" };
  const { project, domain, system, unscoped } = scope;
  const trust = scope["OS-TRUST:trust"];
  const given = [project, domain, system, unscoped, trust].filter((value) => value !== undefined);
  if (given.length !== 1) {
    throw badRequest("Expecting exactly one of project, domain, system, trust or unscoped in scope.");
  }
  if (project !== undefined) return { kind: "project", project: reference(project, "project") };
  if (domain !== undefined) return { kind: "domain", domain: domainReference(domain, "scope") };
  if (trust !== undefined) {
    const trustId = textOf(trust, "id", "OS-TRUST:trust");
    if (trustId === undefined) throw badRequest("Expecting to find id in OS-TRUST:trust.");
    return { kind: "trust", trustId };
  }
  if (system !== undefined) {
    const isAll = typeof system === "object" && system !== null && "all" in system && system.all === true;
    if (!isAll) throw badRequest("Expecting system scope to be {'all': true}.");
    return { kind: "system" };
  }
  return { kind: "unscoped" };
};

/** The part of a request that OAuth 1.0a signs. */
export const signedRequest = (
  request: Pick<HttpRequest, "method" | "origin" | "path" | "query" | "header">,
): SignedRequest => {
  const { method, origin, path, query } = request;
  const given: object = typeof query === "object" && query !== null ? query : {};
  const pairs = Object.entries(given).flatMap(([name, value]) =>
    [value].flat().map((one): [string, string] => [name, String(one)]),
  );
  return { method, origin, path, query: pairs, authorization: request.header("authorization") };
};

/** The domain's form of a request that passed the schema. Throws `bad-request`. */
export const authenticationRequest = (
  request: Omit<HttpRequest, "body"> & { readonly body: AuthenticationBody },
): AuthenticationRequest => {
  const { identity, scope } = request.body.auth;
  const payloads: Readonly<Record<string, unknown>> = identity;
  const methods = [...new Set(identity.methods)].map((name) => {
    if (!Object.hasOwn(payloads, name) && name !== "external") {
      throw badRequest(`Expecting to find ${name} in identity.`);
    }
    return { name, payload: payloads[name] };
  });
  return {
    methods,
    scope: scopeRequest(scope),
    remoteAddress: request.remoteAddress,
    receipt: request.header("openstack-auth-receipt"),
    signed: signedRequest(request),
  };
};
