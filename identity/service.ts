import { mkdir, readFile } from "node:fs/promises";
import { type Clock, systemClock } from "../common/clock.ts";
import { type ClusterConfig, portOf, publicEndpoint, rpcListenAddress } from "../common/config.ts";
import { createBus } from "../common/bus/bus.ts";
import { codeOf } from "../common/errors.ts";
import { createHttpServer, type HttpServer, type HttpServerOptions } from "../common/http/server.ts";
import type { Log } from "../common/log.ts";
import type { Metrics } from "../common/metrics.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import { openPolicyFile } from "../common/policy/policy-file.ts";
import { openDatabase } from "../common/sql/database.ts";
import { runMigrations } from "../common/sql/migrations.ts";
import { openSqlite } from "../common/sql/sqlite.ts";
import { runWorkers } from "../common/worker.ts";
import { ACCESS_RULE_ROUTES } from "./api/access-rules.ts";
import { APPLICATION_CREDENTIAL_ROUTES } from "./api/application-credentials.ts";
import { CREDENTIAL_ROUTES } from "./api/credentials.ts";
import { DOMAIN_CONFIGURATION_ROUTES } from "./api/domain-configurations.ts";
import { DOMAIN_ROUTES } from "./api/domains.ts";
import { EC2_CREDENTIAL_ROUTES } from "./api/ec2-credentials.ts";
import { ENDPOINT_FILTER_ROUTES } from "./api/endpoint-filter.ts";
import { ENDPOINT_GROUP_ROUTES } from "./api/endpoint-groups.ts";
import { ENDPOINT_ROUTES } from "./api/endpoints.ts";
import { keystoneErrorEdge } from "./api/error-edge.ts";
import { GRANT_ROUTES } from "./api/grants.ts";
import { IDENTITY_PROVIDER_ROUTES } from "./api/federation/identity-providers.ts";
import { FEDERATED_LOGIN_ROUTES } from "./api/federation/login.ts";
import { MAPPING_ROUTES } from "./api/federation/mappings.ts";
import { PROTOCOL_ROUTES } from "./api/federation/protocols.ts";
import { SAML_ROUTES } from "./api/federation/saml2.ts";
import { SERVICE_PROVIDER_ROUTES } from "./api/federation/service-providers.ts";
import { WEBSSO_ROUTES } from "./api/federation/websso.ts";
import { GROUP_ROUTES } from "./api/groups.ts";
import type { IdentityContext } from "./api/identity-route.ts";
import { IMPLIED_ROLE_ROUTES } from "./api/implied-roles.ts";
import { INTERNAL_ROUTES } from "./api/internal.ts";
import { LIMIT_ROUTES } from "./api/limits.ts";
import { IDENTITY_OPERATIONS } from "./api/operations.ts";
import { OAUTH1_ACCESS_TOKEN_ROUTES } from "./api/oauth1-access-tokens.ts";
import { OAUTH1_CONSUMER_ROUTES } from "./api/oauth1-consumers.ts";
import { OAUTH1_ROUTES } from "./api/oauth1.ts";
import { OAUTH2_ROUTES } from "./api/oauth2.ts";
import { OWN_PASSWORD_ROUTES } from "./api/own-password.ts";
import { OWN_SCOPE_ROUTES } from "./api/own-scopes.ts";
import { createPeerServer } from "./api/peer-server.ts";
import { PKI_ROUTES } from "./api/pki.ts";
import { POLICY_ROUTES } from "./api/policies.ts";
import { POLICY_ASSOCIATION_ROUTES } from "./api/policy-associations.ts";
import { PROJECT_TAG_ROUTES } from "./api/project-tags.ts";
import { PROJECT_ROUTES } from "./api/projects.ts";
import { REGION_ROUTES } from "./api/regions.ts";
import { REGISTERED_LIMIT_ROUTES } from "./api/registered-limits.ts";
import { ROLE_ASSIGNMENT_ROUTES } from "./api/role-assignments.ts";
import { REVOCATION_ROUTES } from "./api/revocations.ts";
import { ROLE_ROUTES } from "./api/roles.ts";
import { SERVICE_ROUTES } from "./api/services.ts";
import { SIGNED_TOKEN_ROUTES } from "./api/signed-tokens.ts";
import { TOKEN_ROUTES } from "./api/tokens.ts";
import { TRUST_ROUTES } from "./api/trusts.ts";
import { USER_ROUTES } from "./api/users.ts";
import { VERSION_ROUTES } from "./api/versions.ts";
import { applicationCredentialMethod } from "./authentication/application-credential.ts";
import { type Audit, createAudit, logAudit } from "./audit.ts";
import { federatedMethods } from "./authentication/federated.ts";
import { createLoginLimiter } from "./authentication/login-limiter.ts";
import type { MethodContext } from "./authentication/method.ts";
import { oauth1Method } from "./authentication/oauth1.ts";
import { createOidcClients } from "./authentication/oidc-client.ts";
import { passwordMethod } from "./authentication/password.ts";
import { tokenMethod } from "./authentication/token.ts";
import { totpMethod } from "./authentication/totp.ts";
import { assertBearable } from "./bearable-token.ts";
import { bootstrap } from "./bootstrap.ts";
import { parseIdentityConfig } from "./config.ts";
import type { AuthenticationRequest } from "./core/authentication-request.ts";
import type { IdentityErrorCode } from "./core/identity-error.ts";
import { IDENTITY_POLICY_RULES } from "./core/policy-rules.ts";
import { createHousekeeper } from "./daemons/housekeeper.ts";
import { createFactorCheck } from "./receipts.ts";
import { openRevocationFeed } from "./revocation-feed.ts";
import { createSamlProvider } from "./saml-provider.ts";
import { COMMON_NAME_MAX } from "./self-signed-certificate.ts";
import { cachedDirectory } from "./store/cached-directory.ts";
import { rotateKeys } from "./rotate-keys.ts";
import { createChanges } from "./store/changes.ts";
import { openCredentialCipher } from "./store/credential-cipher.ts";
import { IDENTITY_MIGRATIONS } from "./store/migrations.ts";
import { createDomainDirectory } from "./store/domain-directory.ts";
import { createPasswordHasher } from "./store/password-hasher.ts";
import { identityPaths } from "./store/paths.ts";
import { ReadCache } from "./store/read-cache.ts";
import { openSamlKeys } from "./store/saml-keys.ts";
import type { IdentitySchema } from "./store/schema.ts";
import { openSigningKeys } from "./store/signing-keys.ts";
import { createSqlDirectory } from "./store/sql-directory.ts";
import { createTokenService, type TokenService } from "./token-service.ts";
import { createTokenVerifier } from "./token-verifier.ts";

/** Keystone's max_request_body_size. */
const BODY_LIMIT_BYTES = 114_688;
const PUBLIC_ROUTES = [
  ...VERSION_ROUTES,
  ...TOKEN_ROUTES,
  ...OWN_SCOPE_ROUTES,
  ...ACCESS_RULE_ROUTES,
  ...APPLICATION_CREDENTIAL_ROUTES,
  ...CREDENTIAL_ROUTES,
  ...EC2_CREDENTIAL_ROUTES,
  ...REVOCATION_ROUTES,
  ...SIGNED_TOKEN_ROUTES,
  ...TRUST_ROUTES,
  ...DOMAIN_CONFIGURATION_ROUTES,
  ...DOMAIN_ROUTES,
  ...PROJECT_TAG_ROUTES,
  ...PROJECT_ROUTES,
  ...GROUP_ROUTES,
  ...OWN_PASSWORD_ROUTES,
  ...USER_ROUTES,
  ...GRANT_ROUTES,
  ...IMPLIED_ROLE_ROUTES,
  ...LIMIT_ROUTES,
  ...REGISTERED_LIMIT_ROUTES,
  ...ROLE_ASSIGNMENT_ROUTES,
  ...ROLE_ROUTES,
  ...REGION_ROUTES,
  ...SERVICE_ROUTES,
  ...ENDPOINT_FILTER_ROUTES,
  ...ENDPOINT_GROUP_ROUTES,
  ...ENDPOINT_ROUTES,
  ...POLICY_ASSOCIATION_ROUTES,
  ...POLICY_ROUTES,
  ...FEDERATED_LOGIN_ROUTES,
  ...IDENTITY_PROVIDER_ROUTES,
  ...MAPPING_ROUTES,
  ...PROTOCOL_ROUTES,
  ...SAML_ROUTES,
  ...SERVICE_PROVIDER_ROUTES,
  ...WEBSSO_ROUTES,
  ...OAUTH1_ACCESS_TOKEN_ROUTES,
  ...OAUTH1_CONSUMER_ROUTES,
  ...OAUTH1_ROUTES,
  ...OAUTH2_ROUTES,
  ...PKI_ROUTES,
];
const AUTHENTICATION_METHODS = [applicationCredentialMethod, oauth1Method, passwordMethod, tokenMethod, totpMethod];

export type IdentityOptions = {
  readonly config: ClusterConfig;
  readonly paths: RuntimePaths;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Where each change and each failed login gets a line; `log` where it is not given. */
  readonly auditLog?: Log;
  readonly clock?: Clock;
  /** What other nodes prove before they are answered; needed where there are any. */
  readonly clusterKey?: Buffer;
  /** RINGSTEAD_ADMIN_PASSWORD; before the supervisor's file, and that before the configuration. */
  readonly adminPassword?: string | undefined;
  /** In the place of the configured port; 0 for any free one. */
  readonly port?: number;
};

/** A running identity service. Disposal drains requests, then closes the database. */
export type IdentityService = AsyncDisposable & { readonly port: number };

const passwordFile = async (path: string): Promise<string | undefined> => {
  try {
    const password = (await readFile(path, "utf8")).replace(/\r?\n$/, "");
    return password === "" ? undefined : password;
  } catch (thrown) {
    if (codeOf(thrown) === "ENOENT") return undefined;
    throw thrown;
  }
};

const readTls = async (config: ClusterConfig): Promise<{ cert: Buffer; key: Buffer } | undefined> =>
  config.tlsCert === undefined || config.tlsKey === undefined
    ? undefined
    : { cert: await readFile(config.tlsCert), key: await readFile(config.tlsKey) };

/** Whom a request names, for the audit: an id or a name, never what proves it. */
const claimedUser = ({ methods }: AuthenticationRequest): string => {
  const text = JSON.stringify(methods.map(({ payload }) => payload));
  const [, id] = /"(?:id|name)":"([^"]{1,255})"/.exec(text) ?? [];
  return id ?? "unknown";
};

/** Counts and tells at the seam, so that the token service need not know that anyone does. */
const watched = (inner: TokenService, metrics: Metrics, audit: Audit): TokenService => {
  const logins = (result: string) =>
    metrics.counter("ringstead_identity_logins_total", "Logins by result.", { result });
  const succeeded = logins("success");
  const failed = logins("failure");
  return {
    ...inner,
    authenticate: async (request) => {
      try {
        const issued = await inner.authenticate(request);
        assertBearable(issued);
        succeeded.inc();
        return issued;
      } catch (thrown) {
        failed.inc();
        audit.loginFailed({ user: claimedUser(request), error: thrown, remoteAddress: request.remoteAddress });
        throw thrown;
      }
    },
  };
};

type ServerParts = Pick<HttpServerOptions<IdentityContext, IdentityErrorCode>, "context" | "log" | "routes"> & {
  readonly tls?: { cert: Buffer; key: Buffer } | undefined;
};

const identityServer = ({ context, log, routes, tls }: ServerParts): HttpServer =>
  createHttpServer({
    context,
    routes,
    absent: IDENTITY_OPERATIONS,
    edge: keystoneErrorEdge(context.publicEndpoint),
    log,
    bodyLimitBytes: BODY_LIMIT_BYTES,
    headers: { vary: "X-Auth-Token" },
    ...(tls === undefined ? {} : { tls }),
  });

/**
 * Opens the database, brings it up to date, and serves the API on the public port and, with the internal operations, on
 * the Unix socket `control`. Resolves once both accept connections.
 */
export const startIdentity = async (options: IdentityOptions): Promise<IdentityService> => {
  const { config, log, metrics, clock = systemClock } = options;
  const paths = identityPaths(options.paths.identityDir);
  await mkdir(paths.root, { recursive: true, mode: 0o700 });
  await mkdir(options.paths.socketDir, { recursive: true, mode: 0o700 });

  await using starting = new AsyncDisposableStack();
  const server = config.database;
  const database = await openDatabase<IdentitySchema>({
    server,
    namespace: "identity",
    sqlitePath: paths.database,
    log,
  });
  starting.defer(() => database.destroy());
  // A second handle on the file: who reads does not wait for a transaction, and does not see it half done.
  const writer = server === undefined ? openSqlite<IdentitySchema>(paths.database) : database;
  if (writer !== database) starting.defer(() => writer.destroy());
  const applied = await runMigrations(writer, IDENTITY_MIGRATIONS, clock.nowMs());
  if (applied.length > 0) log.info("migrations applied", { applied });

  const identityConfig = parseIdentityConfig(config.identity);
  const signingKeys = await openSigningKeys(paths, clock);
  const cipher = await openCredentialCipher(paths.credentialKey);
  const samlKeys = await openSamlKeys(
    {
      keysDir: paths.keysDir,
      clock,
      configured: identityConfig.saml.keyFiles,
      commonName: new URL(publicEndpoint(config, "identity")).hostname.slice(0, COMMON_NAME_MAX),
      announcementMs: identityConfig.saml.keyAnnouncementSeconds * 1000,
      assertionMs: identityConfig.saml.assertionSeconds * 1000,
    },
    (error) => log.error("no SAML: its key cannot be read", { error }),
  );
  const hasher = await createPasswordHasher(identityConfig.passwordHash);
  const adminPassword = options.adminPassword ?? (await passwordFile(paths.adminPassword)) ?? config.adminPassword;
  const { adminUserId, adminProjectId } = await bootstrap({
    database: writer,
    config,
    hasher,
    cipher,
    adminPassword,
    nowMs: clock.nowMs(),
  });

  const cache = new ReadCache(clock);
  const changes = createChanges({
    database: writer,
    clock,
    onListenerError: (error) => log.error("a change was not followed", { error }),
  });
  changes.onCommit(() => cache.clear());
  const tokensLiveMs = (identityConfig.tokenLifetimeSeconds + identityConfig.allowExpiredWindowSeconds) * 1000;
  const revocations = await openRevocationFeed(database, changes, tokensLiveMs);
  const verifier = createTokenVerifier({
    keysDir: paths.root,
    clock,
    // What it says is looked up anew for each answer anyway.
    revocations: { list: revocations.list, assertFresh: () => {}, recheck: undefined },
  });
  const sql = createSqlDirectory({ database, hasher, clock, changes, config: identityConfig });
  const directory = cachedDirectory(
    starting.use(createDomainDirectory({ sql, database, changes, cache, cipher, hasher, clock })),
    cache,
  );
  const methodContext: MethodContext = {
    config: identityConfig,
    clock,
    database,
    cache,
    directory,
    hasher,
    cipher,
    changes,
    limiter: createLoginLimiter(identityConfig.loginFailuresPerMinute, clock),
    identify: async (token) => verifier.verify(token),
  };
  const bus = createBus((error, { type }) => log.error("a listener of the bus failed", { type, error }));
  logAudit(bus, options.auditLog ?? log.child({ audit: true }));
  const audit = createAudit({ bus, changes, clock, observer: config.node });
  const oidc = createOidcClients(identityConfig.oidc, clock);
  const methods = [...AUTHENTICATION_METHODS, ...federatedMethods(oidc)];
  const tokens = watched(
    createTokenService({
      ...methodContext,
      methods,
      signingKey: () => signingKeys.current(),
      verifier,
      checkFactors: createFactorCheck({
        ...methodContext,
        signingKey: () => signingKeys.current(),
        publicKeysFile: paths.publicKeys,
        revocations: revocations.list,
        offered: new Set(methods.map(({ name }) => name)),
      }),
    }),
    metrics,
    audit,
  );
  const context: IdentityContext = {
    ...methodContext,
    audit,
    oidc,
    saml: createSamlProvider({
      config: identityConfig.saml,
      keys: samlKeys,
      clock,
      publicEndpoint: publicEndpoint(config, "identity"),
    }),
    tokens,
    revocations,
    policy: openPolicyFile({
      file: options.paths.policyFile("identity"),
      defaults: IDENTITY_POLICY_RULES,
      log,
      clock,
    }),
    publicEndpoint: publicEndpoint(config, "identity"),
    objectEndpoint: publicEndpoint(config, "object"),
    publicKeysFile: paths.publicKeys,
    rotateKeys: () => rotateKeys(changes, signingKeys, cipher),
    admin: { userId: adminUserId, projectId: adminProjectId },
  };
  const workers = [createHousekeeper({ changes, revocations, signingKeys, samlKeys, clock, tokensLiveMs })];
  starting.use(runWorkers(changes.follower === undefined ? workers : [...workers, changes.follower], { log }));

  const socketServer = starting.use(
    identityServer({ context, log: log.child({ face: "socket" }), routes: [...PUBLIC_ROUTES, ...INTERNAL_ROUTES] }),
  );
  await socketServer.listen({ path: options.paths.socket("control") });
  const forOthers = rpcListenAddress(config, "control");
  if (forOthers !== undefined && options.clusterKey !== undefined) {
    const peers = starting.use(createPeerServer(options.paths.socket("control"), options.clusterKey, log));
    await peers.listen(forOthers);
  }
  const tls = await readTls(config);
  const publicServer = starting.use(
    identityServer({ context, log: log.child({ face: "public" }), routes: PUBLIC_ROUTES, tls }),
  );
  const port = await publicServer.listen({ host: config.bind, port: options.port ?? portOf(config, "identity") });
  // Before the servers: they wait for their requests to end, and listeners wait for news.
  starting.defer(() => revocations.close());
  log.info("identity serves", { bind: config.bind, port });

  const running = starting.move();
  return { port, [Symbol.asyncDispose]: () => running.disposeAsync() };
};
