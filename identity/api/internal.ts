import { readFile } from "node:fs/promises";
import { Type } from "typebox";
import { codeOf } from "../../common/errors.ts";
import { DEFAULT_DOMAIN_ID } from "../bootstrap.ts";
import { notFound, unauthorized } from "../core/identity-error.ts";
import { type Ec2Credential, ec2CredentialOf, findEc2Credential } from "../store/credentials.ts";
import type { Issued } from "../token-service.ts";
import {
  type Ec2Response,
  type PublicKeySet,
  type ReadyInfoResponse,
  tokenStateRequest,
  type V1AuthResponse,
  v1AuthRequest,
} from "../wire.ts";
import { type IdentityContext, type IdentityRoute, openRoute } from "./identity-route.ts";
import { showServiceToken } from "./service-token.ts";
import { ec2ScopeOf } from "./signed-tokens.ts";

/** A verifier goes on with a key for this long without asking again; while it is told of revocations it asks long before. */
const EC2_LIFETIME_MS = 24 * 3_600_000;

/** v1 auth of the old Swift clients: `PROJECT:USER` and its password. The proxy answers the client. */
const v1Auth = openRoute({
  method: "POST",
  path: "/internal/v1-auth",
  request: { body: v1AuthRequest },
  handler: async ({ body, remoteAddress }, { tokens, objectEndpoint, clock }) => {
    const colon = body.user.indexOf(":");
    const projectName = body.user.slice(0, Math.max(colon, 0));
    const domain = { id: DEFAULT_DOMAIN_ID };
    const { token, details } = await tokens.authenticate({
      methods: [
        { name: "password", payload: { user: { name: body.user.slice(colon + 1), domain, password: body.key } } },
      ],
      remoteAddress: body.remoteAddress ?? remoteAddress,
      scope: { kind: "project", project: { name: projectName, domain } },
    });
    if (details.scope.kind !== "project") throw unauthorized("no project");
    const answer: V1AuthResponse = {
      token,
      storageUrl: `${objectEndpoint}/v1/AUTH_${details.scope.project.id}`,
      expiresInSeconds: Math.round((details.expiresAtMs - clock.nowMs()) / 1000),
    };
    return { status: 200, body: answer };
  },
});

/** A right that a key gives, as it is now; undefined where nothing is left of it. */
const rightOf = async (credential: Ec2Credential, context: IdentityContext): Promise<Issued | undefined> => {
  // Before anything is read: a write that comes between is told to whoever is answered from the state before it.
  const startedAtMs = context.changes.issueTimeMs();
  const user = await context.directory.findUser(credential.userId);
  if (user === undefined) return undefined;
  try {
    return await context.tokens.issueFor({ user }, ["ec2credential"], ec2ScopeOf(credential), startedAtMs);
  } catch (thrown) {
    if (codeOf(thrown) === "unauthorized" || codeOf(thrown) === "forbidden") return undefined;
    throw thrown;
  }
};

/** A key gives no more than its user, or who trusted its user, has now. */
const showEc2 = openRoute({
  method: "GET",
  path: "/internal/ec2/:access",
  request: { params: Type.Object({ access: Type.String() }) },
  handler: async ({ params: { access } }, context) => {
    const credential = await findEc2Credential(context.database, context.cipher, access);
    const right = credential && (await rightOf(credential, context));
    if (credential === undefined || right === undefined) throw notFound("credential", access);
    const { details } = right;
    const claims = context.tokens.claimsOf({
      ...details,
      auditId: credential.id,
      expiresAtMs: Math.min(details.issuedAtMs + EC2_LIFETIME_MS, details.delegation?.expiresAtMs ?? Infinity),
    });
    const answer: Ec2Response = { access, secret: credential.secret, claims };
    return { status: 200, body: answer };
  },
});

const readyInfo = openRoute({
  method: "GET",
  path: "/internal/ready-info",
  request: {},
  handler: async (_request, { database, cipher, admin }) => {
    const credential = await ec2CredentialOf(database, cipher, admin.userId, admin.projectId);
    if (credential === undefined) throw notFound("credential", "admin");
    const { access, secret } = credential;
    const answer: ReadyInfoResponse = { projectId: admin.projectId, access, secret };
    return { status: 200, body: answer };
  },
});

const showRevocations = openRoute({
  method: "GET",
  path: "/internal/revocations/:instance/:after",
  request: { params: Type.Object({ instance: Type.String(), after: Type.String({ pattern: "^[0-9]{1,15}$" }) }) },
  handler: async ({ params: { instance, after } }, { revocations }) => ({
    status: 200,
    body: await revocations.after(instance, Number(after)),
  }),
});

/** The caller is a verifier that has heard of something; it already has the token. */
const showTokenState = openRoute({
  method: "POST",
  path: "/internal/token-state",
  request: { body: tokenStateRequest },
  handler: async ({ body }, { tokens }) => ({
    status: 200,
    body: { claims: tokens.claimsOf(await tokens.describe(body.token)) },
  }),
});

/** For verifiers on other nodes, which have no file of this one. */
const showPublicKeys = openRoute({
  method: "GET",
  path: "/internal/public-keys",
  request: {},
  handler: async (_request, { publicKeysFile }) => ({
    status: 200,
    body: JSON.parse(await readFile(publicKeysFile, "utf8")) as PublicKeySet,
  }),
});

/** For `ringstead identity rotate-keys`. */
const rotateAllKeys = openRoute({
  method: "POST",
  path: "/internal/rotate-keys",
  request: {},
  handler: async (_request, context) => ({ status: 200, body: await context.rotateKeys() }),
});

/** For `ringstead identity rotate-saml-key`. */
const rotateSamlKey = openRoute({
  method: "POST",
  path: "/internal/rotate-saml-key",
  request: { body: Type.Object({ atOnce: Type.Boolean() }) },
  handler: async ({ body }, { saml }) => ({ status: 200, body: await saml.rotateKey(body.atOnce) }),
});

/** Served on the Unix socket, and to nodes that know the cluster key: both are the installation itself. */
export const INTERNAL_ROUTES: readonly IdentityRoute[] = [
  v1Auth,
  showEc2,
  readyInfo,
  showRevocations,
  showTokenState,
  showServiceToken,
  showPublicKeys,
  rotateAllKeys,
  rotateSamlKey,
];
