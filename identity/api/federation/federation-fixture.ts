import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { AUDIENCE, CLIENT_ID, CLIENT_SECRET, createOidcFixture, type OidcFixture } from "../../oidc-fixture.ts";
import { type Answer, createTestClient, listAt, textAt } from "../../test-client.ts";
import { createTestInstallation } from "../../test-service.ts";

export const DASHBOARD = "https://dashboard.example/auth/websso/";
export const AUTH = "/v3/OS-FEDERATION/identity_providers/sso/protocols/openid/auth";
export const WEBSSO = "/v3/auth/OS-FEDERATION/identity_providers/sso/protocols/openid/websso";

/** Rules of a mapping: who it is, and which groups the provider says. */
export const PERSON = {
  local: [{ user: { name: "{0}", email: "{1}" } }],
  remote: [{ type: "sub" }, { type: "OIDC-email" }],
};
export const GROUPS = {
  local: [{ groups: "{0}", domain: { id: "default" } }],
  remote: [{ type: "HTTP_OIDC_GROUPS" }],
};

const MAPPING = "/v3/OS-FEDERATION/mappings/people";
const PROVIDER = "/v3/OS-FEDERATION/identity_providers/sso";

const succeeded = ({ status, body }: Answer): void => {
  if (status >= 300) throw new Error(`${status} ${JSON.stringify(body)}`);
};

/** An installation whose provider `sso` is a real one with the account `alice`, for tests; with a clock that can be set on. */
export const createFederationFixture = () => {
  const installation = createTestInstallation();
  let provider: OidcFixture | undefined;
  let base = "";
  let admin = "";
  let memberId = "";
  let offsetMs = 0;
  const now = (): number => Date.now() + offsetMs;
  const client = createTestClient(() => base);
  const { call, adminToken } = client;

  const started = (): OidcFixture => {
    if (provider === undefined) throw new Error("the fixture was not started");
    return provider;
  };
  /** As the administrator. */
  const send = (method: string, path: string, body?: unknown): Promise<Answer> =>
    call(method, path, { token: admin, ...(body === undefined ? {} : { body }) });
  const byToken = (token: string): Promise<Answer> =>
    call("POST", AUTH, { headers: { authorization: `Bearer ${token}` } });
  const setRules = async (...rules: unknown[]): Promise<void> =>
    succeeded(await send("PATCH", MAPPING, { mapping: { rules } }));
  const setProvider = async (identity_provider: object): Promise<void> =>
    succeeded(await send("PATCH", PROVIDER, { identity_provider }));
  const logInAgain = async (): Promise<void> => {
    admin = await adminToken();
  };

  return {
    ...client,
    send,
    byToken,
    /** With a token of the provider that has these claims. */
    loginAs: async (claims: Record<string, unknown>): Promise<Answer> => byToken(await started().sign(claims)),
    setRules,
    setProvider,
    newGroup: async (name: string): Promise<string> =>
      textAt(await send("POST", "/v3/groups", { group: { name } }), "group.id"),
    newProject: async (name: string): Promise<string> =>
      textAt(await send("POST", "/v3/projects", { project: { name } }), "project.id"),
    now,
    advance: (byMs: number): void => {
      offsetMs += byMs;
    },
    /** The administrator's token does not live through every advance. */
    logInAgain,
    get provider(): OidcFixture {
      return started();
    },
    get base(): string {
      return base;
    },
    /** Of the role `member`. */
    get memberId(): string {
      return memberId;
    },
    start: async (): Promise<void> => {
      provider = await createOidcFixture(now);
      const secretFile = join(installation.paths.dataDir, "client-secret");
      writeFileSync(secretFile, `${CLIENT_SECRET}\n`, { mode: 0o600 });
      const sso = {
        issuer: provider.issuer,
        client_id: CLIENT_ID,
        client_secret_file: secretFile,
        audiences: [AUDIENCE],
        scopes: ["openid", "email", "groups"],
        trusted_dashboards: [DASHBOARD],
      };
      const file = { identity: { login_failures_per_minute: 1_000, oidc: { sso } } };
      base = `http://127.0.0.1:${(await installation.start({ file, nowMs: now })).port}`;
      provider.serve([base + WEBSSO]);
      provider.accounts.set("alice", { email: "alice@example.com", groups: ["staff"] });
      await logInAgain();
      memberId = String(listAt(await send("GET", "/v3/roles?name=member"), "roles")[0]?.["id"]);
      succeeded(await send("PUT", PROVIDER, { identity_provider: { enabled: true, remote_ids: [provider.issuer] } }));
      succeeded(await send("PUT", MAPPING, { mapping: { rules: [PERSON] } }));
      succeeded(await send("PUT", `${PROVIDER}/protocols/openid`, { protocol: { mapping_id: "people" } }));
    },
    /** What a test may have changed, as it was. */
    reset: async (): Promise<void> => {
      await logInAgain();
      await setRules(PERSON);
      await setProvider({ enabled: true, authorization_ttl: null, remote_ids: [started().issuer] });
    },
    [Symbol.asyncDispose]: async (): Promise<void> => {
      await installation[Symbol.asyncDispose]();
      await provider?.[Symbol.asyncDispose]();
    },
  };
};
