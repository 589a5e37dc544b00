import { readFile } from "node:fs/promises";
import { Type } from "typebox";
import { DEFAULT_DOMAIN_ID } from "../bootstrap.ts";
import { notFound, unauthorized } from "../core/identity-error.ts";
import { effectiveRoles } from "../store/assignments.ts";
import { ec2CredentialOf, findEc2Credential } from "../store/credentials.ts";
import { selectRows } from "../store/rows.ts";
import { TOKEN_LIFETIME_SECONDS } from "../token-service.ts";
import {
  type Ec2Response,
  type PublicKeySet,
  type ReadyInfoResponse,
  type V1AuthResponse,
  v1AuthRequest,
} from "../wire.ts";
import { type IdentityRoute, openRoute } from "./identity-route.ts";

/** v1 auth of the old Swift clients: `PROJECT:USER` and its password. The proxy answers the client. */
const v1Auth = openRoute({
  method: "POST",
  path: "/internal/v1-auth",
  request: { body: v1AuthRequest },
  handler: async ({ body }, { tokens, objectEndpoint }) => {
    const colon = body.user.indexOf(":");
    const projectName = body.user.slice(0, Math.max(colon, 0));
    const domain = { id: DEFAULT_DOMAIN_ID };
    const { token, details } = await tokens.authenticate({
      password: { user: { name: body.user.slice(colon + 1), domain }, password: body.key },
      token: undefined,
      scope: { kind: "project", project: { name: projectName, domain } },
    });
    if (details.scope.kind !== "project") throw unauthorized("no project");
    const answer: V1AuthResponse = {
      token,
      storageUrl: `${objectEndpoint}/v1/AUTH_${details.scope.project.id}`,
      expiresInSeconds: TOKEN_LIFETIME_SECONDS,
    };
    return { status: 200, body: answer };
  },
});

const showEc2 = openRoute({
  method: "GET",
  path: "/internal/ec2/:access",
  request: { params: Type.Object({ access: Type.String() }) },
  handler: async ({ params: { access } }, { database, cipher }) => {
    const credential = await findEc2Credential(database, cipher, access);
    if (credential === undefined) throw notFound("credential", access);
    const { userId, projectId, secret } = credential;
    const [user] = await selectRows(database, "users", { id: userId, enabled: 1 });
    const [project] = await selectRows(database, "projects", { id: projectId, enabled: 1 });
    const roles = await effectiveRoles(database, userId, { kind: "project", id: projectId });
    // A key gives no more than its user has now.
    if (user === undefined || project === undefined || roles.length === 0) throw notFound("credential", access);
    for (const id of new Set([user.domain_id, project.domain_id])) {
      const [domain] = await selectRows(database, "domains", { id, enabled: 1 });
      if (domain === undefined) throw notFound("credential", access);
    }
    const answer: Ec2Response = {
      access,
      secret,
      userId,
      userName: user.name,
      projectId,
      projectName: project.name,
      domainId: project.domain_id,
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

/** Served on the Unix socket, and to nodes that know the cluster key: both are the installation itself. */
export const INTERNAL_ROUTES: readonly IdentityRoute[] = [v1Auth, showEc2, readyInfo, showPublicKeys];
