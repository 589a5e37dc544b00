import { readFile } from "node:fs/promises";
import type { JWTVerifyGetKey } from "jose";
import { Type } from "typebox";
import { Compile } from "typebox/compile";
import type { Clock } from "../../common/clock.ts";
import { codeOf } from "../../common/errors.ts";
import type { OidcConfig } from "../config.ts";
import { identityError, unauthorized } from "../core/identity-error.ts";
import { isSafeUrl } from "../core/safe-url.ts";
import { providerFetch } from "./provider-fetch.ts";

/** A provider's document is read again this often, and after a failure at most this often. */
const DISCOVERY_LIFETIME_MS = 600_000;
const RETRY_MS = 5_000;
/** A token signed with an unknown key has the keys read again, at most this often. */
const KEYS_COOLDOWN_MS = 30_000;
const CLOCK_TOLERANCE_S = 30;
const TOKEN_MAX = 16_384;

/** Only signatures that a public key checks: a token must not be signed with what its client knows. */
const ALGORITHMS = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
  "Ed25519",
];
/** ID tokens and access tokens (RFC 9068). Others, of a logout for instance, are signed with the same keys. */
const TYPES: ReadonlySet<string> = new Set(["jwt", "at+jwt"]);

type Claims = Readonly<Record<string, unknown>> & { readonly iss: string; readonly sub: string };

const discoveryCheck = Compile(
  Type.Object({
    issuer: Type.String(),
    jwks_uri: Type.String(),
    authorization_endpoint: Type.Optional(Type.String()),
    token_endpoint: Type.Optional(Type.String()),
    userinfo_endpoint: Type.Optional(Type.String()),
    token_endpoint_auth_methods_supported: Type.Optional(Type.Array(Type.String())),
    authorization_response_iss_parameter_supported: Type.Optional(Type.Boolean()),
  }),
);
const tokenAnswerCheck = Compile(Type.Object({ id_token: Type.String(), access_token: Type.Optional(Type.String()) }));
const claimsCheck = Compile(Type.Object({ sub: Type.String({ minLength: 1, maxLength: 255 }) }));

type Discovery = {
  readonly authorization: URL | undefined;
  readonly token: URL | undefined;
  readonly userinfo: URL | undefined;
  readonly authMethods: readonly string[];
  readonly saysIssuer: boolean;
  readonly keys: JWTVerifyGetKey;
};

type Redirection = {
  readonly redirectUri: string;
  readonly state: string;
  readonly nonce: string;
  /** SHA-256 of the verifier, base64url. */
  readonly codeChallenge: string;
};

/** Loaded with the first token of a provider: it costs a process 5 MB. */
const jose = () => import("jose");

/** Codes of jose for keys that could not be fetched or read; all others are about the token. */
const KEYS_UNREADABLE: ReadonlySet<string> = new Set(["ERR_JOSE_GENERIC", "ERR_JWKS_TIMEOUT", "ERR_JWKS_INVALID"]);

export type OidcClient = {
  readonly config: OidcConfig;
  /** The claims of an ID or access token. With `nonce` it must be the ID token of that login. Throws `unauthorized`, `directory-unavailable`. */
  verify(token: string, nonce?: string): Promise<Claims>;
  /** Where a browser goes to log in. */
  authorizationUrl(redirection: Redirection): Promise<URL>;
  /** `issuer`: what the answer's parameter `iss` said. Throws `unauthorized`, `directory-unavailable`. */
  redeem(
    code: string,
    issuer: string | undefined,
    login: { readonly redirectUri: string; readonly codeVerifier: string },
  ): Promise<{ readonly idToken: string; readonly accessToken: string | undefined }>;
  /** What the provider tells beside the ID token; empty where it tells nothing. Throws `unauthorized` for another's claims. */
  userinfo(accessToken: string, subject: string): Promise<Readonly<Record<string, unknown>>>;
};

const unavailable = (config: OidcConfig, reason: string) =>
  identityError("directory-unavailable", "The identity provider does not answer as it should.", {
    issuer: config.issuer,
    reason,
  });

const jsonOf = async (response: Response): Promise<unknown> => {
  try {
    return await response.json();
  } catch {
    return undefined;
  }
};

const formEncoded = (text: string): string => encodeURIComponent(text).replaceAll("%20", "+");

/** Speaks to one provider: OpenID Connect Core 1.0, Discovery 1.0, PKCE. */
const createOidcClient = (config: OidcConfig, clock: Clock): OidcClient => {
  let known: { readonly discovery: Discovery; readonly readAtMs: number } | undefined;
  let triedAtMs = Number.NEGATIVE_INFINITY;
  let reading: Promise<Discovery> | undefined;

  const urlOf = (text: string | undefined): URL | undefined => {
    if (text === undefined) return undefined;
    const url = URL.parse(text);
    if (url === null || !isSafeUrl(url)) throw unavailable(config, `${text} is neither https nor loopback`);
    return url;
  };

  const read = async (): Promise<Discovery> => {
    const response = await providerFetch(
      new URL(`${config.issuer.replace(/\/$/, "")}/.well-known/openid-configuration`),
    );
    const document = await jsonOf(response);
    if (response.status !== 200 || !discoveryCheck.Check(document)) throw unavailable(config, "no discovery document");
    if (document.issuer !== config.issuer) throw unavailable(config, `the document is of ${document.issuer}`);
    const jwksUri = urlOf(document.jwks_uri);
    if (jwksUri === undefined) throw unavailable(config, "no keys");
    const { createRemoteJWKSet, customFetch } = await jose();
    return {
      authorization: urlOf(document.authorization_endpoint),
      token: urlOf(document.token_endpoint),
      userinfo: urlOf(document.userinfo_endpoint),
      authMethods: document.token_endpoint_auth_methods_supported ?? ["client_secret_basic"],
      saysIssuer: document.authorization_response_iss_parameter_supported === true,
      keys: createRemoteJWKSet(jwksUri, {
        cooldownDuration: KEYS_COOLDOWN_MS,
        cacheMaxAge: DISCOVERY_LIFETIME_MS,
        [customFetch]: (url: string) => providerFetch(new URL(url)),
      }),
    };
  };

  /** What was read before goes on where the provider does not answer any more. */
  const discovery = async (): Promise<Discovery> => {
    const nowMs = clock.nowMs();
    if (known !== undefined && Math.abs(nowMs - known.readAtMs) < DISCOVERY_LIFETIME_MS) return known.discovery;
    if (reading === undefined && Math.abs(nowMs - triedAtMs) < RETRY_MS) {
      if (known !== undefined) return known.discovery;
      throw unavailable(config, "it did not answer a moment ago");
    }
    triedAtMs = nowMs;
    reading ??= read().finally(() => {
      reading = undefined;
    });
    try {
      const fresh = await reading;
      known = { discovery: fresh, readAtMs: nowMs };
      return fresh;
    } catch (thrown) {
      if (known !== undefined) return known.discovery;
      throw thrown;
    }
  };

  const verify: OidcClient["verify"] = async (token, nonce) => {
    if (token.length > TOKEN_MAX) throw unauthorized("token of the provider is too long");
    const { keys } = await discovery();
    const { errors, jwtVerify } = await jose();
    const audience = nonce === undefined ? [config.clientId, ...config.audiences] : [config.clientId];
    try {
      const { payload, protectedHeader } = await jwtVerify(token, keys, {
        issuer: config.issuer,
        audience,
        algorithms: ALGORITHMS,
        clockTolerance: CLOCK_TOLERANCE_S,
        currentDate: new Date(clock.nowMs()),
        requiredClaims: ["sub", "exp", "iat"],
      });
      const type = (protectedHeader.typ ?? "JWT").toLowerCase().replace(/^application\//, "");
      if (!TYPES.has(type)) throw unauthorized(`a token of type ${type}`);
      if (nonce !== undefined && payload["nonce"] !== nonce) throw unauthorized("ID token of another login");
      const { azp } = payload;
      if (nonce !== undefined && azp !== undefined && azp !== config.clientId)
        throw unauthorized("ID token of another client");
      if (!claimsCheck.Check(payload)) throw unauthorized("token without a subject");
      return { ...payload, iss: config.issuer };
    } catch (thrown) {
      if (!(thrown instanceof errors.JOSEError)) throw thrown;
      if (KEYS_UNREADABLE.has(thrown.code)) throw unavailable(config, thrown.message);
      throw unauthorized(`token of the provider: ${thrown.message}`);
    }
  };

  const clientSecret = async (): Promise<string | undefined> => {
    if (config.clientSecretFile === undefined) return undefined;
    try {
      return (await readFile(config.clientSecretFile, "utf8")).trim();
    } catch (thrown) {
      throw unavailable(config, `the client's secret cannot be read: ${codeOf(thrown) ?? ""}`);
    }
  };

  return {
    config,
    verify,
    authorizationUrl: async ({ redirectUri, state, nonce, codeChallenge }) => {
      const { authorization } = await discovery();
      if (authorization === undefined) throw unavailable(config, "no authorization endpoint");
      const url = new URL(authorization);
      const parameters = {
        response_type: "code",
        client_id: config.clientId,
        redirect_uri: redirectUri,
        scope: config.scopes.join(" "),
        state,
        nonce,
        code_challenge: codeChallenge,
        code_challenge_method: "S256",
      };
      for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
      return url;
    },
    redeem: async (code, issuer, { redirectUri, codeVerifier }) => {
      const { token, authMethods, saysIssuer } = await discovery();
      if (token === undefined) throw unavailable(config, "no token endpoint");
      // RFC 9207: an answer of another provider is not brought to this one.
      if ((issuer !== undefined || saysIssuer) && issuer !== config.issuer)
        throw unauthorized("answer of another issuer");
      const secret = await clientSecret();
      const inHeader = secret !== undefined && authMethods.includes("client_secret_basic");
      const form = new URLSearchParams({
        grant_type: "authorization_code",
        code,
        redirect_uri: redirectUri,
        code_verifier: codeVerifier,
        ...(inHeader ? {} : { client_id: config.clientId }),
        ...(secret === undefined || inHeader ? {} : { client_secret: secret }),
      });
      const basic = Buffer.from(`${formEncoded(config.clientId)}:${formEncoded(secret ?? "")}`).toString("base64");
      const response = await providerFetch(token, {
        method: "POST",
        body: form.toString(),
        headers: {
          "content-type": "application/x-www-form-urlencoded",
          accept: "application/json",
          ...(inHeader ? { authorization: `Basic ${basic}` } : {}),
        },
      });
      const answer = await jsonOf(response);
      if (response.status >= 500) throw unavailable(config, `the token endpoint answers ${response.status}`);
      if (response.status !== 200 || !tokenAnswerCheck.Check(answer)) throw unauthorized("the code was not redeemed");
      return { idToken: answer.id_token, accessToken: answer.access_token };
    },
    userinfo: async (accessToken, subject) => {
      const { userinfo } = await discovery();
      if (userinfo === undefined) return {};
      const response = await providerFetch(userinfo, { headers: { authorization: `Bearer ${accessToken}` } });
      const claims = await jsonOf(response);
      if (response.status !== 200 || !claimsCheck.Check(claims)) return {};
      if (claims.sub !== subject) throw unauthorized("claims of another user");
      return claims;
    },
  };
};

/** The providers of the configuration by the id of the identity provider. */
export const createOidcClients = (
  configs: ReadonlyMap<string, OidcConfig>,
  clock: Clock,
): ReadonlyMap<string, OidcClient> =>
  new Map([...configs].map(([idpId, config]) => [idpId, createOidcClient(config, clock)]));
