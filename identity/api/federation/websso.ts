import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { type Static, Type } from "typebox";
import { Compile } from "typebox/compile";
import type { HttpMethod, HttpRequest, HttpResponse } from "../../../common/http/route.ts";
import type { OidcClient } from "../../authentication/oidc-client.ts";
import { identityError, unauthorized } from "../../core/identity-error.ts";
import { findProtocol } from "../../store/federation.ts";
import { baseUrl, type IdentityContext, type IdentityRoute, openRoute } from "../identity-route.ts";
import { anyQuery, parameter } from "../list-parameters.ts";

const OF_PROVIDER = "/v3/auth/OS-FEDERATION/identity_providers/:idp_id/protocols/:protocol_id/websso";
const OF_ANY = "/v3/auth/OS-FEDERATION/websso/:protocol_id";

/** What a browser carries between its two visits, sealed: it must neither read the verifier nor alter the rest. */
const COOKIE = "ringstead-websso";
const COOKIE_PATH = "/v3/auth/OS-FEDERATION";
const SEAL = "websso login";
const LOGIN_LIFETIME_MS = 600_000;
const COOKIE_MAX = 4_096;

const loginState = Type.Object({
  idpId: Type.String(),
  protocolId: Type.String(),
  origin: Type.String(),
  redirectUri: Type.String(),
  state: Type.String(),
  nonce: Type.String(),
  codeVerifier: Type.String(),
  expiresAtMs: Type.Number(),
});
type LoginState = Static<typeof loginState>;
const loginStateCheck = Compile(loginState);

const secret = (): string => randomBytes(32).toString("base64url");

const cookie = (request: Pick<HttpRequest, "origin">, value: string, maxAgeSeconds: number): string => {
  // Lax, not Strict: the second visit comes from the provider's page.
  const attributes = [`Path=${COOKIE_PATH}`, `Max-Age=${maxAgeSeconds}`, "HttpOnly", "SameSite=Lax"];
  if (request.origin?.startsWith("https:") === true) attributes.push("Secure");
  return [`${COOKIE}=${value}`, ...attributes].join("; ");
};

const redirectUriOf = (
  request: Pick<HttpRequest, "origin">,
  context: IdentityContext,
  idpId: string,
  protocolId: string,
) =>
  `${baseUrl(request, context)}/auth/OS-FEDERATION/identity_providers/${encodeURIComponent(idpId)}/protocols/${encodeURIComponent(protocolId)}/websso`;

/** Browsers write a host in lower case, operators as they like. Pages are compared whole, never by their beginning. */
const isTrusted = (client: OidcClient, origin: string): boolean => {
  const asked = URL.parse(origin)?.href;
  return asked !== undefined && client.config.trustedDashboards.some((page) => URL.parse(page)?.href === asked);
};

const clientOf = (idpId: string, { oidc }: IdentityContext): OidcClient => {
  const client = oidc.get(idpId);
  if (client === undefined) throw unauthorized(`cluster.toml has no table [identity.oidc.${idpId}]`);
  return client;
};

/** The browser's first visit: off to the provider. */
const begin = async (
  request: HttpRequest,
  context: IdentityContext,
  idpId: string,
  protocolId: string,
): Promise<HttpResponse> => {
  const origin = parameter(request.query, "origin");
  if (origin === undefined) throw identityError("bad-request", "Request must have an origin query parameter");
  const client = clientOf(idpId, context);
  if (!isTrusted(client, origin)) {
    throw identityError("unauthorized", `${origin.slice(0, 255)} is not a trusted dashboard host`);
  }
  if ((await findProtocol(context.database, idpId, protocolId)) === undefined) {
    const message = `Could not find federated protocol ${protocolId} for Identity Provider: ${idpId}.`;
    throw identityError("not-found", message);
  }
  const login: LoginState = {
    idpId,
    protocolId,
    origin,
    redirectUri: redirectUriOf(request, context, idpId, protocolId),
    state: secret(),
    nonce: secret(),
    codeVerifier: secret(),
    expiresAtMs: context.clock.nowMs() + LOGIN_LIFETIME_MS,
  };
  const codeChallenge = createHash("sha256").update(login.codeVerifier).digest("base64url");
  const { redirectUri, state, nonce } = login;
  const url = await client.authorizationUrl({ redirectUri, state, nonce, codeChallenge });
  const sealed = Buffer.from(context.cipher.seal(SEAL, JSON.stringify(login))).toString("base64url");
  return {
    status: 302,
    headers: {
      location: url.href,
      "set-cookie": cookie(request, sealed, LOGIN_LIFETIME_MS / 1000),
      "cache-control": "no-store",
    },
  };
};

/** What the browser brought back of its first visit; undefined where it is altered or old. */
const openLogin = (request: HttpRequest, { cipher, clock }: IdentityContext): LoginState | undefined => {
  const [, sealed = ""] = new RegExp(`(?:^|; *)${COOKIE}=([A-Za-z0-9_-]+)`).exec(request.header("cookie") ?? "") ?? [];
  if (sealed === "" || sealed.length > COOKIE_MAX) return undefined;
  try {
    const login: unknown = JSON.parse(cipher.open(SEAL, Buffer.from(sealed, "base64url")));
    return loginStateCheck.Check(login) && login.expiresAtMs > clock.nowMs() ? login : undefined;
  } catch {
    return undefined;
  }
};

const isEqual = (left: string, right: string): boolean =>
  timingSafeEqual(createHash("sha256").update(left).digest(), createHash("sha256").update(right).digest());

const escaped = (text: string): string => text.replaceAll(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

const SUBMIT = "document.forms[0].submit();";
const SUBMIT_HASH = createHash("sha256").update(SUBMIT).digest("base64");

/** A page that hands the token to the dashboard, as Keystone's does. */
const handOver = (request: HttpRequest, origin: string, token: string): HttpResponse => ({
  status: 200,
  headers: {
    "content-type": "text/html; charset=utf-8",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "content-security-policy": `default-src 'none'; script-src 'sha256-${SUBMIT_HASH}'; form-action ${new URL(origin).origin}; frame-ancestors 'none'; base-uri 'none'`,
    "set-cookie": cookie(request, "", 0),
  },
  body: `<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Login</title></head>
<body>
<form method="post" action="${escaped(origin)}">
<input type="hidden" name="token" id="token" value="${escaped(token)}">
<noscript><button type="submit">Continue</button></noscript>
</form>
<script>${SUBMIT}</script>
</body>
</html>
`,
});

/** The browser's second visit: the provider's code becomes a token. */
const finish = async (
  request: HttpRequest,
  context: IdentityContext,
  idpId: string,
  protocolId: string,
): Promise<HttpResponse> => {
  const login = openLogin(request, context);
  const state = parameter(request.query, "state") ?? "";
  if (login?.idpId !== idpId || login.protocolId !== protocolId || !isEqual(login.state, state)) {
    throw unauthorized("no login of this browser is under way");
  }
  const code = parameter(request.query, "code");
  const refusal = parameter(request.query, "error");
  if (code === undefined) throw unauthorized(`the provider answers ${refusal ?? "without a code"}`);
  const client = clientOf(idpId, context);
  // The operator may have taken the dashboard's name off the list meanwhile.
  if (!isTrusted(client, login.origin)) throw unauthorized(`${login.origin} is not trusted any more`);
  const { idToken, accessToken } = await client.redeem(code, parameter(request.query, "iss"), login);
  const payload = {
    identity_provider: idpId,
    protocol: protocolId,
    token: idToken,
    nonce: login.nonce,
    access_token: accessToken,
  };
  const { token } = await context.tokens.authenticate({
    methods: [{ name: protocolId, payload }],
    scope: { kind: "unscoped" },
    remoteAddress: request.remoteAddress,
  });
  return handOver(request, login.origin, token);
};

const ofProvider = (method: HttpMethod): IdentityRoute =>
  openRoute({
    method,
    path: OF_PROVIDER,
    request: { params: Type.Object({ idp_id: Type.String(), protocol_id: Type.String() }), query: anyQuery },
    handler: (request, context) => {
      const { idp_id: idpId, protocol_id: protocolId } = request.params;
      const isReturn = parameter(request.query, "state") !== undefined;
      return isReturn ? finish(request, context, idpId, protocolId) : begin(request, context, idpId, protocolId);
    },
  });

/** Without the name of a provider it is the one that has the protocol and is configured. */
const ofAny = (method: HttpMethod): IdentityRoute =>
  openRoute({
    method,
    path: OF_ANY,
    request: { params: Type.Object({ protocol_id: Type.String() }), query: anyQuery },
    handler: async (request, context) => {
      const protocolId = request.params.protocol_id;
      const rows = await context.database
        .selectFrom("federation_protocols")
        .innerJoin("identity_providers", "identity_providers.id", "federation_protocols.idp_id")
        .select("identity_providers.id")
        .where("federation_protocols.id", "=", protocolId)
        .where("identity_providers.enabled", "=", 1)
        .execute();
      const idpIds = rows.map(({ id }) => id).filter((id) => context.oidc.has(id));
      const [idpId] = idpIds;
      if (idpId === undefined) throw unauthorized(`no provider with protocol ${protocolId} is configured`);
      if (idpIds.length > 1) {
        throw identityError(
          "bad-request",
          `Several identity providers have protocol ${protocolId}: ask /v3/auth/OS-FEDERATION/identity_providers/{idp_id}/protocols/${protocolId}/websso.`,
        );
      }
      return begin(request, context, idpId, protocolId);
    },
  });

/** Login of browsers: by the provider's page, and back to a dashboard with a token. Authorization code with state, nonce and PKCE. */
export const WEBSSO_ROUTES: readonly IdentityRoute[] = [
  ofProvider("GET"),
  ofProvider("POST"),
  ofAny("GET"),
  ofAny("POST"),
];
