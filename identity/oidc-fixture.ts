import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from "jose";
import { Provider } from "oidc-provider";

export const CLIENT_ID = "ringstead";
export const CLIENT_SECRET = "a secret of the client";
/** The audience of access tokens. */
export const AUDIENCE = "urn:ringstead:identity";

type Account = { readonly email: string; readonly groups: readonly string[] };

export type OidcFixture = AsyncDisposable & {
  readonly issuer: string;
  /** Who can log in, by the subject; any password will do. */
  readonly accounts: Map<string, Account>;
  /** Requests that the provider has had, by path. */
  readonly requests: Map<string, number>;
  /** Paths that are answered with 503. */
  readonly broken: Set<string>;
  /** Serves a real provider (package `oidc-provider`); until then all requests are answered with 503. */
  serve(redirectUris: readonly string[]): void;
  /** A token signed as the provider signs: now, for this client, and as `claims` and `header` change it. */
  sign(claims?: JWTPayload, header?: { typ?: string }): Promise<string>;
  /** An access token by the client's own credentials, from the provider's token endpoint. */
  clientToken(): Promise<string>;
};

/** A small real provider of OpenID Connect on a free loopback port, for tests. */
export const createOidcFixture = async (nowMs: () => number = Date.now): Promise<OidcFixture> => {
  const accounts = new Map<string, Account>();
  const requests = new Map<string, number>();
  const broken = new Set<string>();
  const { privateKey } = await generateKeyPair("RS256", { extractable: true });
  const jwk = { ...(await exportJWK(privateKey)), kid: "first", alg: "RS256", use: "sig" };
  let handler: ReturnType<Provider["callback"]> | undefined;
  const server = createServer((request, response) => {
    const path = request.url?.split("?", 1)[0] ?? "/";
    requests.set(path, (requests.get(path) ?? 0) + 1);
    if (handler === undefined || broken.has(path)) response.writeHead(503).end();
    else void handler(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  const providerWith = (redirectUris: readonly string[]): Provider =>
    new Provider(issuer, {
      jwks: { keys: [jwk] },
      cookies: { keys: ["of the tests"] },
      clients: [
        {
          client_id: CLIENT_ID,
          client_secret: CLIENT_SECRET,
          redirect_uris: [...redirectUris],
          grant_types: ["authorization_code", "client_credentials"],
          response_types: ["code"],
        },
      ],
      scopes: ["openid", "email", "groups"],
      claims: { openid: ["sub"], email: ["email"], groups: ["groups"] },
      pkce: { required: () => true },
      findAccount: (_context, sub) => {
        const account = accounts.get(sub);
        if (account === undefined) return undefined;
        return { accountId: sub, claims: () => ({ sub, email: account.email, groups: [...account.groups] }) };
      },
      extraTokenClaims: () => ({ groups: ["robots"] }),
      features: {
        devInteractions: { enabled: true },
        clientCredentials: { enabled: true },
        resourceIndicators: {
          enabled: true,
          defaultResource: (context) => (context.oidc.params?.["grant_type"] === "client_credentials" ? AUDIENCE : []),
          getResourceServerInfo: () => ({ scope: "", audience: AUDIENCE, accessTokenFormat: "jwt" }),
        },
      },
    });

  return {
    issuer,
    accounts,
    requests,
    broken,
    serve: (redirectUris) => {
      handler = providerWith(redirectUris).callback();
    },
    sign: (claims = {}, header = {}) => {
      const seconds = Math.floor(nowMs() / 1000);
      return new SignJWT({ iss: issuer, sub: "alice", aud: CLIENT_ID, iat: seconds, exp: seconds + 300, ...claims })
        .setProtectedHeader({ alg: "RS256", kid: "first", ...header })
        .sign(privateKey);
    },
    clientToken: async () => {
      const response = await fetch(`${issuer}/token`, {
        method: "POST",
        headers: {
          authorization: `Basic ${Buffer.from(`${CLIENT_ID}:${encodeURIComponent(CLIENT_SECRET)}`).toString("base64")}`,
        },
        body: new URLSearchParams({ grant_type: "client_credentials" }),
      });
      const answer: unknown = await response.json();
      const token: unknown =
        typeof answer === "object" && answer !== null && "access_token" in answer ? answer.access_token : undefined;
      if (typeof token !== "string") throw new Error(`no access token: ${JSON.stringify(answer)}`);
      return token;
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
};

/** A browser without scripts: follows redirects, keeps cookies, and fills in the provider's forms. Answers the page where it stops. */
export const createBrowser = () => {
  const jars = new Map<string, Map<string, string>>();

  const visit = async (url: URL, form?: Readonly<Record<string, string>>): Promise<Response> => {
    const jar = jars.get(url.host) ?? new Map<string, string>();
    jars.set(url.host, jar);
    const response = await fetch(url, {
      method: form === undefined ? "GET" : "POST",
      redirect: "manual",
      headers: { cookie: [...jar].map(([name, value]) => `${name}=${value}`).join("; ") },
      ...(form === undefined ? {} : { body: new URLSearchParams(form) }),
    });
    for (const line of response.headers.getSetCookie()) {
      const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
      if (value === "") jar.delete(name);
      else jar.set(name, value);
    }
    return response;
  };

  /** Logs in as `login` wherever a page asks; stops before the address for which `isEnd` holds, and answers that. */
  const walk = async (start: URL, login: string, isEnd: (url: URL) => boolean = () => false) => {
    let url = start;
    let response = await visit(url);
    for (let step = 0; step < 20; step += 1) {
      const location = response.headers.get("location");
      if (location !== null) {
        url = new URL(location, url);
        if (isEnd(url)) break;
        response = await visit(url);
        continue;
      }
      const page = await response.clone().text();
      const [, action] = /<form[^>]* action="([^"]+)"/.exec(page) ?? [];
      const [, prompt] = /name="prompt" value="(\w+)"/.exec(page) ?? [];
      if (action === undefined || prompt === undefined) break;
      url = new URL(action, url);
      response = await visit(url, { prompt, login, password: "any" });
    }
    return { url, response };
  };
  return { visit, walk };
};
