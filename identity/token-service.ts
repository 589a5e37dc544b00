import { randomBytes } from "node:crypto";
import { CompactSign } from "jose";
import type { Clock } from "../common/clock.ts";
import type { TokenContext, TokenVerifier } from "./client.ts";
import type { AuthenticationRequest, DomainReference, Reference, ScopeRequest } from "./core/authentication-request.ts";
import { type Catalog, renderCatalog } from "./core/catalog.ts";
import { unauthorized } from "./core/identity-error.ts";
import { effectiveRoles, type NamedRole, SYSTEM_TARGET } from "./store/assignments.ts";
import type { PasswordHasher } from "./store/password-hasher.ts";
import type { IdentityDatabase } from "./store/rows.ts";
import type { Domain, Project, User } from "./store/schema.ts";
import type { SigningKey } from "./store/signing-keys.ts";
import { TOKEN_ALGORITHM, type TokenClaims } from "./wire.ts";

/** Keystone's default. Long enough for a client's session, short enough that an unseen revocation ends by itself. */
export const TOKEN_LIFETIME_SECONDS = 3_600;
const AUDIT_ID_BYTES = 16;

type NamedDomain = Pick<Domain, "id" | "name">;

export type TokenScope =
  | { readonly kind: "unscoped" }
  | { readonly kind: "project"; readonly project: Project; readonly domain: NamedDomain }
  | { readonly kind: "domain"; readonly domain: NamedDomain }
  | { readonly kind: "system" };

/** Everything that an answer about a token says, looked up now. */
export type TokenDetails = {
  readonly user: User;
  readonly userDomain: NamedDomain;
  readonly scope: TokenScope;
  readonly roles: readonly NamedRole[];
  readonly methods: readonly string[];
  readonly auditId: string;
  readonly parentAuditId: string | undefined;
  readonly issuedAtSeconds: number;
  readonly expiresAtSeconds: number;
};

export type TokenService = {
  /** Throws `unauthorized`, `too-busy`. */
  authenticate(request: AuthenticationRequest): Promise<{ token: string; details: TokenDetails }>;
  /** Who calls: signature, expiry and revocation checked, nothing else looked up. Throws `unauthorized`. */
  identify(token: string): Promise<TokenContext>;
  /** A token's whole state; throws `unauthorized` also where its user, project or roles are gone or disabled. */
  describe(token: string): Promise<TokenDetails>;
  /** Resolves once the revocation is on the disk. */
  revoke(token: string): Promise<void>;
  catalog(userId: string, projectId: string | undefined): Promise<Catalog>;
};

export type TokenServiceOptions = {
  readonly database: IdentityDatabase;
  readonly hasher: PasswordHasher;
  readonly signingKey: SigningKey;
  readonly verifier: TokenVerifier;
  readonly clock: Clock;
};

type Principal = {
  readonly user: User;
  readonly userDomain: NamedDomain;
  readonly methods: readonly string[];
  /** Set where a token was a method: its chain goes on and its expiry is the limit. */
  readonly from: TokenContext | undefined;
};

const findDomain = (database: IdentityDatabase, reference: DomainReference): Promise<Domain | undefined> =>
  database
    .selectFrom("domains")
    .selectAll()
    .where("id" in reference ? "id" : "name", "=", "id" in reference ? reference.id : reference.name)
    .executeTakeFirst();

const findUser = async (
  database: IdentityDatabase,
  reference: Reference,
): Promise<{ user: User; userDomain: NamedDomain } | undefined> => {
  const users = database.selectFrom("users").selectAll();
  if ("id" in reference) {
    const user = await users.where("id", "=", reference.id).executeTakeFirst();
    const userDomain = user && (await findDomain(database, { id: user.domain_id }));
    return user?.enabled && userDomain?.enabled ? { user, userDomain } : undefined;
  }
  const userDomain = await findDomain(database, reference.domain);
  const user =
    userDomain &&
    (await users.where("domain_id", "=", userDomain.id).where("name", "=", reference.name).executeTakeFirst());
  return user?.enabled && userDomain?.enabled ? { user, userDomain } : undefined;
};

const findProjectScope = async (database: IdentityDatabase, reference: Reference): Promise<TokenScope | undefined> => {
  const projects = database.selectFrom("projects").selectAll().where("enabled", "=", 1);
  let project: Project | undefined;
  let domain: Domain | undefined;
  if ("id" in reference) {
    project = await projects.where("id", "=", reference.id).executeTakeFirst();
    domain = project && (await findDomain(database, { id: project.domain_id }));
  } else {
    domain = await findDomain(database, reference.domain);
    project =
      domain &&
      (await projects.where("domain_id", "=", domain.id).where("name", "=", reference.name).executeTakeFirst());
  }
  return project !== undefined && domain?.enabled ? { kind: "project", project, domain } : undefined;
};

const rolesOn = (database: IdentityDatabase, userId: string, scope: TokenScope): Promise<NamedRole[]> => {
  switch (scope.kind) {
    case "unscoped":
      return Promise.resolve([]);
    case "project":
      return effectiveRoles(database, userId, { kind: "project", id: scope.project.id });
    case "domain":
      return effectiveRoles(database, userId, { kind: "domain", id: scope.domain.id });
    case "system":
      return effectiveRoles(database, userId, SYSTEM_TARGET);
  }
};

const UNSCOPED: TokenScope = { kind: "unscoped" };

const findScope = async (
  database: IdentityDatabase,
  request: Exclude<ScopeRequest, { kind: "default" }>,
): Promise<TokenScope | undefined> => {
  switch (request.kind) {
    case "unscoped":
      return UNSCOPED;
    case "system":
      return { kind: "system" };
    case "project":
      return findProjectScope(database, request.project);
    case "domain": {
      const domain = await findDomain(database, request.domain);
      return domain?.enabled ? { kind: "domain", domain } : undefined;
    }
  }
};

type ScopedRoles = { readonly scope: TokenScope; readonly roles: NamedRole[] };

/** The scope asked for with the user's roles on it. Throws `unauthorized` where it is absent, disabled, or without a role. */
const resolveScope = async (database: IdentityDatabase, user: User, request: ScopeRequest): Promise<ScopedRoles> => {
  if (request.kind === "default") {
    const id = user.default_project_id;
    const scope = id === null ? undefined : await findProjectScope(database, { id });
    const roles = scope === undefined ? [] : await rolesOn(database, user.id, scope);
    return scope !== undefined && roles.length > 0 ? { scope, roles } : { scope: UNSCOPED, roles: [] };
  }
  const scope = await findScope(database, request);
  if (scope === undefined) throw unauthorized(`no such ${request.kind}, or disabled`);
  const roles = await rolesOn(database, user.id, scope);
  if (scope.kind !== "unscoped" && roles.length === 0)
    throw unauthorized(`user ${user.id} has no role on the ${scope.kind}`);
  return { scope, roles };
};

const scopeClaims = (scope: TokenScope): Pick<TokenClaims, "pj" | "pn" | "dm" | "sy"> => {
  switch (scope.kind) {
    case "unscoped":
      return {};
    case "project":
      return { pj: scope.project.id, pn: scope.project.name, dm: scope.domain.id };
    case "domain":
      return { dm: scope.domain.id };
    case "system":
      return { sy: 1 };
  }
};

const claimsOf = (details: TokenDetails): TokenClaims => ({
  sub: details.user.id,
  un: details.user.name,
  ud: details.userDomain.id,
  ...scopeClaims(details.scope),
  rl: details.roles.map(({ name }) => name),
  am: [...details.methods],
  iat: details.issuedAtSeconds,
  exp: details.expiresAtSeconds,
  jti: details.auditId,
  ...(details.parentAuditId === undefined ? {} : { pa: details.parentAuditId }),
});

const scopeRequestOf = (context: TokenContext): ScopeRequest => {
  if (context.projectId !== undefined) return { kind: "project", project: { id: context.projectId } };
  if (context.domainId !== undefined) return { kind: "domain", domain: { id: context.domainId } };
  return context.system ? { kind: "system" } : { kind: "unscoped" };
};

/** Issues, checks and revokes tokens. */
export const createTokenService = (options: TokenServiceOptions): TokenService => {
  const { database, hasher, signingKey, verifier, clock } = options;
  const header = { alg: TOKEN_ALGORITHM, kid: signingKey.kid };

  const sign = (details: TokenDetails): Promise<string> =>
    new CompactSign(Buffer.from(JSON.stringify(claimsOf(details)))).setProtectedHeader(header).sign(signingKey.key);

  const identify = async (token: string): Promise<TokenContext> => {
    const context = await verifier.verify(token);
    const revoked = await database
      .selectFrom("revoked_tokens")
      .select("audit_id")
      .where("audit_id", "=", context.auditId)
      .executeTakeFirst();
    if (revoked !== undefined) throw unauthorized("revoked");
    return context;
  };

  const byPassword = async (user: Reference, password: string): Promise<Omit<Principal, "methods" | "from">> => {
    const found = await findUser(database, user);
    const stored = found && (await newestPassword(database, found.user.id));
    // The work is done whoever was named; only afterwards does it matter whether there is such a user.
    if (!(await hasher.verify(password, stored)) || found === undefined) throw unauthorized("wrong user or password");
    return found;
  };

  const principalOf = async (request: AuthenticationRequest): Promise<Principal> => {
    const methods: string[] = [];
    let from: TokenContext | undefined;
    let found: Omit<Principal, "methods" | "from"> | undefined;
    if (request.token !== undefined) {
      from = await identify(request.token);
      found = await findUser(database, { id: from.userId });
      if (found === undefined) throw unauthorized(`user ${from.userId} is gone or disabled`);
      methods.push("token", ...from.methods);
    }
    if (request.password !== undefined) {
      const named = await byPassword(request.password.user, request.password.password);
      if (found !== undefined && found.user.id !== named.user.id) throw unauthorized("methods name different users");
      found = named;
      methods.push("password");
    }
    if (found === undefined) throw unauthorized("no method was given");
    return { ...found, methods: [...new Set(methods)], from };
  };

  return {
    identify,
    authenticate: async (request) => {
      const principal = await principalOf(request);
      const { user, userDomain, methods, from } = principal;
      const { scope, roles } = await resolveScope(database, user, request.scope);
      const issuedAtSeconds = Math.floor(clock.nowMs() / 1000);
      const details: TokenDetails = {
        user,
        userDomain,
        scope,
        roles,
        methods,
        auditId: randomBytes(AUDIT_ID_BYTES).toString("base64url"),
        parentAuditId: from && (from.parentAuditId ?? from.auditId),
        issuedAtSeconds,
        // A token got by a token lives no longer than the first, or a stolen one would live for ever.
        expiresAtSeconds: from ? from.expiresAtMs / 1000 : issuedAtSeconds + TOKEN_LIFETIME_SECONDS,
      };
      return { token: await sign(details), details };
    },
    describe: async (token) => {
      const context = await identify(token);
      const found = await findUser(database, { id: context.userId });
      if (found === undefined) throw unauthorized(`user ${context.userId} is gone or disabled`);
      const { scope, roles } = await resolveScope(database, found.user, scopeRequestOf(context));
      return {
        ...found,
        scope,
        roles,
        methods: context.methods,
        auditId: context.auditId,
        parentAuditId: context.parentAuditId,
        issuedAtSeconds: context.issuedAtMs / 1000,
        expiresAtSeconds: context.expiresAtMs / 1000,
      };
    },
    revoke: async (token) => {
      const { auditId, expiresAtMs } = await identify(token);
      await database.deleteFrom("revoked_tokens").where("expires_at_ms", "<", clock.nowMs()).execute();
      await database
        .insertInto("revoked_tokens")
        .values({ audit_id: auditId, expires_at_ms: expiresAtMs })
        .onConflict((conflict) => conflict.doNothing())
        .execute();
    },
    catalog: (userId, projectId) => catalogFor(database, userId, projectId),
  };
};

const newestPassword = async (database: IdentityDatabase, userId: string): Promise<string | undefined> => {
  const row = await database
    .selectFrom("passwords")
    .select("hash")
    .where("user_id", "=", userId)
    .orderBy("id", "desc")
    .limit(1)
    .executeTakeFirst();
  return row?.hash;
};

const catalogFor = async (
  database: IdentityDatabase,
  userId: string,
  projectId: string | undefined,
): Promise<Catalog> => {
  const services = await database.selectFrom("services").selectAll().where("enabled", "=", 1).orderBy("type").execute();
  const endpoints = await database
    .selectFrom("endpoints")
    .select(["id", "service_id as serviceId", "region_id as regionId", "interface", "url"])
    .where("enabled", "=", 1)
    .orderBy("id")
    .execute();
  // A service none of whose endpoints is enabled does not run.
  const running = services.filter((service) => endpoints.some(({ serviceId }) => serviceId === service.id));
  return renderCatalog(running, endpoints, { userId, projectId });
};
