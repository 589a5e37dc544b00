import { codeOf } from "../common/errors.ts";
import type { AuthenticationMethod, MethodContext, Recognized } from "./authentication/method.ts";
import { findProjectNamed } from "./authentication/references.ts";
import { loadDelegation } from "./authentication/load-delegation.ts";
import type { AuthenticationRequest, ScopeRequest } from "./core/authentication-request.ts";
import type { Catalog } from "./core/catalog.ts";
import { identityError, unauthorized } from "./core/identity-error.ts";
import type { Delegation } from "./delegation.ts";
import type { FactorCheck } from "./receipts.ts";
import type { NamedRole } from "./store/assignments.ts";
import { readCatalog } from "./store/catalog.ts";
import type { DirectoryUser } from "./store/directory.ts";
import type { SigningKey } from "./store/signing-keys.ts";
import {
  delegatedRights,
  enabledUser,
  type NamedDomain,
  ownRights,
  type Parties,
  scopeRequestOf,
  type TokenScope,
} from "./token-rights.ts";
import { newAuditId } from "./token-audit-id.ts";
import { signToken } from "./token-signer.ts";
import type { TokenContext, TokenVerifier } from "./token-verifier.ts";
import type { TokenClaims } from "./wire.ts";

/** Everything that an answer about a token says, looked up now. */
export type TokenDetails = {
  readonly user: DirectoryUser;
  readonly userDomain: NamedDomain;
  readonly scope: TokenScope;
  readonly roles: readonly NamedRole[];
  readonly methods: readonly string[];
  readonly auditId: string;
  readonly parentAuditId: string | undefined;
  readonly issuedAtMs: number;
  readonly expiresAtMs: number;
  readonly delegation: Delegation | undefined;
  /** Set where `delegation` is a trust. */
  readonly trust: Extract<Delegation, { kind: "trust" }> | undefined;
  readonly federation: TokenContext["federation"];
  /** Whose state beside the user's a trust's token hangs on. */
  readonly parties: Parties;
};

export type TokenService = {
  /** Throws `bad-request`, `unauthorized`, `forbidden`, `too-many-logins`, `too-busy`. */
  authenticate(request: AuthenticationRequest): Promise<{ token: string; details: TokenDetails }>;
  /**
   * A token for whom a signature or another service has vouched, with the default lifetime. `startedAtMs`: the issue time taken before
   * anything was looked up. Throws as `authenticate`.
   */
  issueFor(
    recognized: Recognized,
    methods: readonly string[],
    scope: ScopeRequest,
    startedAtMs?: number,
  ): Promise<Issued>;
  /** Who calls: signature, expiry and revocation checked, nothing else looked up. Throws `unauthorized`. */
  identify(token: string): TokenContext | Promise<TokenContext>;
  /**
   * A token's whole state; throws `unauthorized` also where its user, project or roles are gone or disabled. `allowExpired`: its end may
   * lie back by `allow_expired_window_seconds`.
   */
  describe(token: string, allowExpired?: boolean): Promise<TokenDetails>;
  /** The claims that a token of these details has. */
  claimsOf(details: TokenDetails): TokenClaims;
  /** Resolves once the revocation is on the disk. */
  revoke(token: string): Promise<void>;
  catalog(userId: string, scope: TokenScope): Promise<Catalog>;
  /** The same as JSON. */
  catalogText(userId: string, scope: TokenScope): Promise<string>;
};

export type Issued = { readonly token: string; readonly details: TokenDetails };

export type TokenServiceOptions = MethodContext & {
  readonly methods: readonly AuthenticationMethod[];
  /** The key that signs now; a rotation changes it. */
  signingKey(): SigningKey;
  readonly verifier: TokenVerifier;
  readonly checkFactors: FactorCheck;
};

const claimsOf = (details: TokenDetails): TokenClaims => {
  const { user, userDomain, scope, delegation, federation } = details;
  const rules = delegation?.kind === "application-credential" ? delegation.accessRules : undefined;
  return {
    sub: user.id,
    un: user.name,
    ud: userDomain.id,
    ...(scope.kind === "project" ? { pj: scope.project.id, pn: scope.project.name, dm: scope.domain.id } : {}),
    ...(scope.kind === "domain" ? { dm: scope.domain.id } : {}),
    ...(scope.kind === "system" ? { sy: 1 as const } : {}),
    rl: details.roles.map(({ name }) => name),
    am: [...details.methods],
    iat: details.issuedAtMs / 1000,
    exp: details.expiresAtMs / 1000,
    jti: details.auditId,
    ...(details.parentAuditId === undefined ? {} : { pa: details.parentAuditId }),
    ...(delegation?.kind === "application-credential" ? { ac: delegation.id } : {}),
    ...(rules === undefined
      ? {}
      : { ar: rules.map(({ service, method, path }): [string, string, string] => [service, method, path]) }),
    ...(delegation?.kind === "trust"
      ? { tr: delegation.id, tu: [...details.parties.userIds], td: [...details.parties.domainIds] }
      : {}),
    ...(delegation?.kind === "access-token" ? { ot: delegation.id } : {}),
    ...(federation === undefined ? {} : { fd: [federation.idpId, federation.protocolId, [...federation.groupIds]] }),
  };
};

/** Makes tokens, looks them up again, and voids them. How it goes: authentication/, core/revocation.ts, token-verifier.ts. */
export const createTokenService = (options: TokenServiceOptions): TokenService => {
  const { changes, verifier, cache, directory, config } = options;
  const methodsByName = new Map(options.methods.map((method) => [method.name, method]));

  const issue = (details: Omit<TokenDetails, "issuedAtMs" | "expiresAtMs">, atMs: number, limitMs: number): Issued => {
    const expiresAtMs = Math.min(atMs + config.tokenLifetimeSeconds * 1000, limitMs);
    const whole: TokenDetails = { ...details, issuedAtMs: atMs, expiresAtMs };
    return { token: signToken(claimsOf(whole), options.signingKey()), details: whole };
  };

  /** The rights of whoever was recognized; a trust may put another user in the place of the bearer. */
  const rightsOf = async (recognized: Recognized, request: ScopeRequest) => {
    const { user, federation } = recognized;
    const delegation =
      request.kind === "trust" ? await loadDelegation(options, { trustId: request.trustId }) : recognized.delegation;
    if (delegation === undefined) {
      if (request.kind === "trust") throw identityError("forbidden", "The trust does not hold.");
      return { user, delegation, ...(await ownRights(options, user, request, federation)) };
    }
    if (delegation.kind !== "trust") {
      const asked = request.kind === "project" ? await findProjectNamed(options, request.project) : undefined;
      if (request.kind !== "default" && asked?.id !== delegation.projectId) {
        throw unauthorized(`${delegation.kind} is for project ${delegation.projectId}`);
      }
      return { user, delegation, ...(await delegatedRights(options, delegation, user)) };
    }
    if (recognized.delegation !== undefined && recognized.delegation.id !== delegation.id) {
      throw identityError("forbidden", "Using a delegated login for a trust is not allowed.");
    }
    if (delegation.trusteeUserId !== user.id && recognized.delegation === undefined) {
      throw identityError("forbidden", "The user is not the trustee of the trust.");
    }
    const trustor = await enabledTrustor(delegation.trustorUserId);
    const bearer = delegation.impersonation ? trustor : user;
    return { user: bearer, delegation, ...(await delegatedRights(options, delegation, user)) };
  };

  const NOBODY_ELSE: Parties = { userIds: [], domainIds: [] };

  const enabledTrustor = async (id: string): Promise<DirectoryUser> => {
    try {
      return (await enabledUser(options, await directory.findUser(id))).user;
    } catch (thrown) {
      if (codeOf(thrown) !== "unauthorized") throw thrown;
      throw identityError("forbidden", "The trustor is gone or disabled.");
    }
  };

  const issueFor: TokenService["issueFor"] = async (given, methods, request, startedAtMs) => {
    // Before anything is read: a write that comes between voids what is made from the state before it.
    const atMs = startedAtMs ?? changes.issueTimeMs();
    const { user: bearer } = await enabledUser(options, await directory.findUser(given.user.id));
    const recognized = { ...given, user: bearer };
    const { from, federation } = recognized;
    const rights = await rightsOf(recognized, request);
    const { user, userDomain } = await enabledUser(options, rights.user);
    if (rights.delegation?.kind === "trust") await consumeTrust(options, rights.delegation.id);
    const details = {
      user,
      userDomain,
      scope: rights.scope,
      roles: rights.roles,
      parties: rights.parties ?? NOBODY_ELSE,
      methods,
      auditId: newAuditId(),
      parentAuditId: from && (from.parentAuditId ?? from.auditId),
      delegation: rights.delegation,
      trust: rights.delegation?.kind === "trust" ? rights.delegation : undefined,
      federation,
    };
    // A token got by a token lives no longer than the first, or a stolen one would live for ever.
    const limitMs = Math.min(from?.expiresAtMs ?? Infinity, rights.delegation?.expiresAtMs ?? Infinity);
    return issue(details, atMs, limitMs);
  };

  const identify = (token: string): TokenContext | Promise<TokenContext> => verifier.verify(token);

  const recognize = async (request: AuthenticationRequest): Promise<{ whole: Recognized; names: string[] }> => {
    let whole: Recognized | undefined;
    const names: string[] = [];
    for (const { name, payload } of request.methods) {
      const method = methodsByName.get(name);
      // Keystone's answer to a method that is not enabled.
      if (method === undefined) throw unauthorized(`method ${name} is not offered`);
      const one = await method.recognize(payload, options, request);
      if (whole !== undefined && whole.user.id !== one.user.id) throw unauthorized("methods name different users");
      whole = { ...whole, ...one };
      names.push(...(one.from === undefined ? [name] : [name, ...one.from.methods]));
    }
    if (whole === undefined) throw unauthorized("no method was given");
    return { whole, names: [...new Set(names)] };
  };

  const describeContext = async (context: TokenContext): Promise<TokenDetails> => {
    const { user, userDomain } = await enabledUser(options, await directory.findUser(context.userId));
    const delegation = await loadDelegation(options, context);
    if (delegation === undefined && isDelegated(context)) throw unauthorized("what delegated the right is gone");
    const rights =
      delegation === undefined
        ? await ownRights(options, user, scopeRequestOf(context), context.federation)
        : await delegatedRights(options, delegation, user);
    const { methods, auditId, parentAuditId, issuedAtMs, expiresAtMs, federation } = context;
    const trust = delegation?.kind === "trust" ? delegation : undefined;
    return {
      user,
      userDomain,
      ...rights,
      parties: rights.parties ?? NOBODY_ELSE,
      methods,
      auditId,
      parentAuditId,
      issuedAtMs,
      expiresAtMs,
      delegation,
      trust,
      federation,
    };
  };

  return {
    identify,
    issueFor,
    claimsOf,
    authenticate: async (request) => {
      // A password takes a tenth of a second to check: who was disabled meanwhile must not get a token of after that.
      const startedAtMs = changes.issueTimeMs();
      const { whole, names } = await recognize(request);
      const methods = await options.checkFactors(whole.user, names, request.receipt);
      return issueFor(whole, methods, request.scope, startedAtMs);
    },
    describe: async (token, allowExpired = false) => {
      const windowMs = allowExpired ? config.allowExpiredWindowSeconds * 1000 : 0;
      const context = await verifier.verify(token, windowMs);
      try {
        return await cache.get(`token ${context.auditId}`, () => describeContext(context));
      } catch (thrown) {
        // For whoever brings the token, a right that is gone is no right.
        if (codeOf(thrown) === "forbidden") throw unauthorized("what was delegated is gone");
        throw thrown;
      }
    },
    revoke: async (token) => {
      const { auditId, userId } = await identify(token);
      await changes.write(async (_transaction, change) => {
        change.revoke({ kind: "revoke", auditId });
        change.notify({ action: "revoke", resource: "token", id: auditId, details: { userId } });
      });
    },
    catalog: async (userId, scope) => {
      const projectId = projectIdOf(scope);
      return (await readCatalog(options, projectId)).render({ userId, projectId });
    },
    catalogText: async (userId, scope) => {
      const projectId = projectIdOf(scope);
      return (await readCatalog(options, projectId)).text({ userId, projectId });
    },
  };
};

const projectIdOf = (scope: TokenScope): string | undefined =>
  scope.kind === "project" ? scope.project.id : undefined;

const isDelegated = (context: TokenContext): boolean =>
  context.trustId !== undefined || context.applicationCredentialId !== undefined || context.accessTokenId !== undefined;

/** One use of a trust with limited uses. Throws `forbidden` where none is left. */
const consumeTrust = async ({ database, changes }: MethodContext, id: string): Promise<void> => {
  const limited = await database.selectFrom("trusts").select("remaining_uses").where("id", "=", id).executeTakeFirst();
  if (limited === undefined || limited.remaining_uses === null) return;
  await changes.write(async (transaction) => {
    const used = await transaction
      .updateTable("trusts")
      .set((trust) => ({ remaining_uses: trust("remaining_uses", "-", 1) }))
      .where("id", "=", id)
      .where("remaining_uses", ">", 0)
      .executeTakeFirst();
    if (used.numUpdatedRows === 0n) throw identityError("forbidden", "No uses are left of the trust.");
  });
};
