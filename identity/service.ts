import { mkdir, readFile } from "node:fs/promises";
import { type Clock, systemClock } from "../common/clock.ts";
import { type ClusterConfig, portOf, publicEndpoint, rpcListenAddress } from "../common/config.ts";
import { codeOf } from "../common/errors.ts";
import { createHttpServer, type HttpServer, type HttpServerOptions } from "../common/http/server.ts";
import type { Log } from "../common/log.ts";
import type { Metrics } from "../common/metrics.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import { runMigrations } from "../common/sql/migrations.ts";
import { openSqlite } from "../common/sql/sqlite.ts";
import { keystoneErrorEdge } from "./api/error-edge.ts";
import type { IdentityContext } from "./api/identity-route.ts";
import { INTERNAL_ROUTES } from "./api/internal.ts";
import { createPeerServer } from "./api/peer-server.ts";
import { IDENTITY_OPERATIONS } from "./api/operations.ts";
import { RESOURCE_ROUTES } from "./api/resources.ts";
import { TOKEN_ROUTES } from "./api/tokens.ts";
import { VERSION_ROUTES } from "./api/versions.ts";
import { bootstrap } from "./bootstrap.ts";
import { createTokenVerifier } from "./client.ts";
import type { IdentityErrorCode } from "./core/identity-error.ts";
import { openCredentialCipher } from "./store/credential-cipher.ts";
import { IDENTITY_MIGRATIONS } from "./store/migrations.ts";
import { createPasswordHasher } from "./store/password-hasher.ts";
import { identityPaths } from "./store/paths.ts";
import type { IdentitySchema } from "./store/schema.ts";
import { openSigningKeys } from "./store/signing-keys.ts";
import { createTokenService, type TokenService } from "./token-service.ts";

/** Keystone's max_request_body_size. */
const BODY_LIMIT_BYTES = 114_688;
const PUBLIC_ROUTES = [...VERSION_ROUTES, ...TOKEN_ROUTES, ...RESOURCE_ROUTES];

export type IdentityOptions = {
  readonly config: ClusterConfig;
  readonly paths: RuntimePaths;
  readonly log: Log;
  readonly metrics: Metrics;
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

/** Counts at the seam, so that the token service need not know that anyone counts. */
const counted = (inner: TokenService, metrics: Metrics): TokenService => {
  const logins = (result: string) =>
    metrics.counter("ringstead_identity_logins_total", "Logins by result.", { result });
  const succeeded = logins("success");
  const failed = logins("failure");
  return {
    ...inner,
    authenticate: async (request) => {
      try {
        const issued = await inner.authenticate(request);
        succeeded.inc();
        return issued;
      } catch (thrown) {
        failed.inc();
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
  const database = openSqlite<IdentitySchema>(paths.database);
  starting.defer(() => database.destroy());
  const applied = await runMigrations(database, IDENTITY_MIGRATIONS, clock.nowMs());
  if (applied.length > 0) log.info("migrations applied", { applied });

  const signingKey = await openSigningKeys(paths, clock.nowMs());
  const cipher = await openCredentialCipher(paths.credentialKey);
  const hasher = await createPasswordHasher();
  const adminPassword = options.adminPassword ?? (await passwordFile(paths.adminPassword)) ?? config.adminPassword;
  const { adminUserId, adminProjectId } = await bootstrap({
    database,
    config,
    hasher,
    cipher,
    adminPassword,
    nowMs: clock.nowMs(),
  });

  const verifier = createTokenVerifier({ keysDir: paths.root, clock });
  const tokens = counted(createTokenService({ database, hasher, signingKey, verifier, clock }), metrics);
  const context: IdentityContext = {
    database,
    tokens,
    cipher,
    publicEndpoint: publicEndpoint(config, "identity"),
    objectEndpoint: publicEndpoint(config, "object"),
    publicKeysFile: paths.publicKeys,
    admin: { userId: adminUserId, projectId: adminProjectId },
  };

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
  log.info("identity serves", { bind: config.bind, port });

  const running = starting.move();
  return { port, [Symbol.asyncDispose]: () => running.disposeAsync() };
};
