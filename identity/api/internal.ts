import { readFile } from "node:fs/promises";
import { Type } from "typebox";
import { DEFAULT_DOMAIN_ID } from "../bootstrap.ts";
import { notFound, unauthorized } from "../core/identity-error.ts";
import { effectiveRoles } from "../store/assignments.ts";
import { ec2CredentialOf, findEc2Credential } from "../store/credentials.ts";
import { findDomain, findProject } from "../authentication/references.ts";
import {
  type Ec2Response,
  type PublicKeySet,
  type ReadyInfoResponse,
  tokenStateRequest,
  type V1AuthResponse,
  v1AuthRequest,
} from "../wire.ts";
import { type IdentityRoute, openRoute } from "./identity-route.ts";

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

const showEc2 = openRoute({
  method: "GET",
  path: "/internal/ec2/:access",
  request: { params: Type.Object({ access: Type.String() }) },
  handler: async ({ params: { access } }, context) => {
    const { database, cipher, directory } = context;
    const credential = await findEc2Credential(database, cipher, access);
    if (credential === undefined) throw notFound("credential", access);
    const { userId, projectId, secret } = credential;
    const user = await directory.findUser(userId);
    const project = await findProject(context, projectId);
    const groupIds = await directory.groupIdsOf(userId);
    const roles = await effectiveRoles(context, { userId, groupIds }, { kind: "project", id: projectId });
    // A key gives no more than its user has now.
    if (user?.enabled !== true || project?.enabled !== 1 || roles.length === 0) throw notFound("credential", access);
    const domainId = project.domain_id ?? project.id;
    for (const id of new Set([user.domainId, domainId])) {
      const domain = await findDomain(context, { id });
      if (domain?.enabled !== 1) throw notFound("credential", access);
    }
    const answer: Ec2Response = {
      access,
      secret,
      userId,
      userName: user.name,
      projectId,
      projectName: project.name,
      domainId,
      roles: roles.map(({ name }) => name),
    };
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

/** Served on the Unix socket, and to nodes that know the cluster key: both are the installation itself. */
export const INTERNAL_ROUTES: readonly IdentityRoute[] = [
  v1Auth,
  showEc2,
  readyInfo,
  showRevocations,
  showTokenState,
  showPublicKeys,
  rotateAllKeys,
];
