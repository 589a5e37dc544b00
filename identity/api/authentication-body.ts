import { type Static, Type } from "typebox";
import type {
  AuthenticationRequest,
  DomainReference,
  Reference,
  ScopeRequest,
} from "../core/authentication-request.ts";
import { identityError, unauthorized } from "../core/identity-error.ts";

const NAME_MAX = 255;
/** Keystone's max_password_length. */
const PASSWORD_MAX = 4_096;
const METHODS_MAX = 16;
const TOKEN_MAX = 8_192;

const text = Type.String({ minLength: 1, maxLength: NAME_MAX });
const domain = Type.Object({ id: Type.Optional(text), name: Type.Optional(text) });
const named = { id: Type.Optional(text), name: Type.Optional(text), domain: Type.Optional(domain) };

/** `POST /v3/auth/tokens`. Unknown members are ignored, as Keystone does. */
export const authenticationBody = Type.Object({
  auth: Type.Object({
    identity: Type.Object({
      methods: Type.Array(Type.String({ maxLength: NAME_MAX }), { minItems: 1, maxItems: METHODS_MAX }),
      password: Type.Optional(
        Type.Object({ user: Type.Object({ ...named, password: Type.String({ maxLength: PASSWORD_MAX }) }) }),
      ),
      token: Type.Optional(Type.Object({ id: Type.String({ minLength: 1, maxLength: TOKEN_MAX }) })),
    }),
    scope: Type.Optional(
      Type.Union([
        Type.Literal("unscoped"),
        Type.Object({
          unscoped: Type.Optional(Type.Unknown()),
          project: Type.Optional(Type.Object(named)),
          domain: Type.Optional(domain),
          system: Type.Optional(Type.Object({ all: Type.Optional(Type.Boolean()) })),
          "OS-TRUST:trust": Type.Optional(Type.Unknown()),
        }),
      ]),
    ),
  }),
});
type AuthenticationBody = Static<typeof authenticationBody>;

const badRequest = (message: string) => identityError("bad-request", message);

const domainReference = (value: Static<typeof domain> | undefined, what: string): DomainReference => {
  if (value?.id !== undefined) return { id: value.id };
  if (value?.name !== undefined) return { name: value.name };
  throw badRequest(`Expecting to find domain in ${what}.`);
};

const reference = (value: { id?: string; name?: string; domain?: Static<typeof domain> }, what: string): Reference => {
  if (value.id !== undefined) return { id: value.id };
  if (value.name === undefined) throw badRequest(`Expecting to find id or name in ${what}.`);
  return { name: value.name, domain: domainReference(value.domain, what) };
};

const scopeRequest = (scope: AuthenticationBody["auth"]["scope"]): ScopeRequest => {
  if (scope === undefined) return { kind: "default" };
  if (scope === "unscoped") return { kind: "unscoped" };
  const { project, domain: asked, system, unscoped } = scope;
  const trust = scope["OS-TRUST:trust"];
  const given = [project, asked, system, unscoped, trust].filter((value) => value !== undefined);
  if (given.length !== 1) {
    throw badRequest("Expecting exactly one of project, domain, system or unscoped in scope.");
  }
  if (trust !== undefined) throw unauthorized("trusts are not built yet");
  if (project !== undefined) return { kind: "project", project: reference(project, "project") };
  if (asked !== undefined) return { kind: "domain", domain: domainReference(asked, "scope") };
  if (system !== undefined) {
    if (system.all !== true) throw badRequest("Expecting system scope to be {'all': true}.");
    return { kind: "system" };
  }
  return { kind: "unscoped" };
};

/** The domain's form of a body that passed the schema. Throws `bad-request`, and `unauthorized` for a method not offered. */
export const authenticationRequest = ({ auth }: AuthenticationBody): AuthenticationRequest => {
  const { methods, password, token } = auth.identity;
  for (const method of methods) {
    // Keystone's answer to a method that is not enabled.
    if (method !== "password" && method !== "token") throw unauthorized(`method ${method} is not offered`);
  }
  const usesPassword = methods.includes("password");
  const usesToken = methods.includes("token");
  if (usesPassword && password === undefined) throw badRequest("Expecting to find password in identity.");
  if (usesToken && token === undefined) throw badRequest("Expecting to find token in identity.");
  return {
    password:
      usesPassword && password !== undefined
        ? { user: reference(password.user, "user"), password: password.user.password }
        : undefined,
    token: usesToken ? token?.id : undefined,
    scope: scopeRequest(auth.scope),
  };
};
