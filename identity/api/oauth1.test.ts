import { afterAll, beforeAll, expect, test } from "vitest";
import { oauthSignature } from "../authentication/oauth1-signature.ts";
import { askSocket } from "../client.ts";
import { ADMIN_SCOPE, ADMIN_USER, type Answer, at, createTestClient, listAt, textAt, tokenOf } from "../test-client.ts";
import { createTestInstallation, type TestInstallation } from "../test-service.ts";

let installation: TestInstallation;
let base = "";
let offsetMs = 0;
let admin = "";
let adminId = "";
let projectId = "";
let nonce = 0;
const roles = new Map<string, string>();
const { call, login, rescope, adminToken } = createTestClient(() => base);

type Pair = { readonly id: string; readonly secret: string };
type Signing = { readonly consumer: Pair; readonly token?: Pair; readonly more?: Readonly<Record<string, string>> };

const header = (path: string, { consumer, token, more }: Signing): string => {
  nonce += 1;
  const parameters = new Map(
    Object.entries({
      oauth_nonce: String(nonce),
      oauth_timestamp: String(Math.floor((Date.now() + offsetMs) / 1000)),
      oauth_version: "1.0",
      oauth_signature_method: "HMAC-SHA1",
      oauth_consumer_key: consumer.id,
      ...(token === undefined ? {} : { oauth_token: token.id }),
      ...more,
    }),
  );
  const request = { method: "POST", origin: base, path, query: [], authorization: undefined };
  const secrets = { consumer: consumer.secret, token: token?.secret ?? "" };
  const signature = oauthSignature(request, base, parameters, secrets) ?? "";
  const pairs = [...parameters, ["oauth_signature", signature]];
  return `OAuth ${pairs.map(([name = "", value = ""]) => `${name}="${encodeURIComponent(value)}"`).join(", ")}`;
};

type FormAnswer = { readonly status: number; readonly form: URLSearchParams; readonly text: string };

const post = async (path: string, authorization: string | undefined, project?: string): Promise<FormAnswer> => {
  const response = await fetch(base + path, {
    method: "POST",
    headers: {
      ...(authorization === undefined ? {} : { authorization }),
      ...(project === undefined ? {} : { "requested-project-id": project }),
    },
  });
  const text = await response.text();
  return { status: response.status, form: new URLSearchParams(text), text };
};

const pairOf = ({ form }: FormAnswer): Pair => ({
  id: form.get("oauth_token") ?? "",
  secret: form.get("oauth_token_secret") ?? "",
});

const newConsumer = async (): Promise<Pair> => {
  const made = await call("POST", "/v3/OS-OAUTH1/consumers", { token: admin, body: { consumer: {} } });
  return { id: textAt(made, "consumer.id"), secret: textAt(made, "consumer.secret") };
};

const REQUEST = "/v3/OS-OAUTH1/request_token";
const ACCESS = "/v3/OS-OAUTH1/access_token";

const requestToken = async (consumer: Pair): Promise<Pair> =>
  pairOf(await post(REQUEST, header(REQUEST, { consumer, more: { oauth_callback: "oob" } }), projectId));

const authorize = (token: Pair, body: unknown, bearer = admin): Promise<Answer> =>
  call("PUT", `/v3/OS-OAUTH1/authorize/${token.id}`, { token: bearer, body });

const accessToken = async (consumer: Pair, role = "reader"): Promise<Pair> => {
  const token = await requestToken(consumer);
  const verifier = textAt(await authorize(token, { roles: [{ name: role }] }), "token.oauth_verifier");
  return pairOf(await post(ACCESS, header(ACCESS, { consumer, token, more: { oauth_verifier: verifier } })));
};

const byToken = (authorization: string): Promise<Answer> =>
  call("POST", "/v3/auth/tokens", {
    headers: { authorization },
    body: { auth: { identity: { methods: ["oauth1"], oauth1: {} } } },
  });

const LOGIN = "/v3/auth/tokens";

beforeAll(async () => {
  installation = createTestInstallation();
  const service = await installation.start({ nowMs: () => Date.now() + offsetMs });
  base = `http://127.0.0.1:${service.port}`;
  const answer = await login(ADMIN_USER, ADMIN_SCOPE);
  admin = tokenOf(answer);
  adminId = textAt(answer, "token.user.id");
  projectId = textAt(answer, "token.project.id");
  const list = await call("GET", "/v3/roles", { token: admin });
  for (const { id, name } of listAt(list, "roles")) roles.set(String(name), String(id));
});

afterAll(() => installation[Symbol.asyncDispose]());

test("a consumer's secret is shown when it is made and never again", async () => {
  const body = { consumer: { description: "d", further: "kept", secret: "mine" } };
  const made = await call("POST", "/v3/OS-OAUTH1/consumers", { token: admin, body });
  expect(made.status).toBe(201);
  expect(textAt(made, "consumer.secret")).toMatch(/^[0-9a-f]{32}$/);
  const path = `/v3/OS-OAUTH1/consumers/${textAt(made, "consumer.id")}`;
  const shown = await call("GET", path, { token: admin });
  expect(shown.body["consumer"]).toMatchObject({ description: "d", further: "kept" });
  expect(JSON.stringify(shown.body)).not.toContain("secret");
  expect(JSON.stringify((await call("GET", "/v3/OS-OAUTH1/consumers", { token: admin })).body)).not.toContain("secret");
  const changed = await call("PATCH", path, { token: admin, body: { consumer: { description: "e" } } });
  expect(changed.body["consumer"]).toMatchObject({ description: "e", further: "kept" });
  for (const consumer of [{ secret: "x" }, {}, { description: 1 }]) {
    expect((await call("PATCH", path, { token: admin, body: { consumer } })).status).toBe(400);
  }
  expect((await call("DELETE", path, { token: admin })).status).toBe(204);
  expect((await call("GET", path, { token: admin })).status).toBe(404);
  expect((await call("POST", "/v3/OS-OAUTH1/consumers", { token: admin, body: {} })).status).toBe(201);
});

test("secrets of consumers and tokens lie encrypted in the database, and rotations of keys keep them", async () => {
  const consumer = await newConsumer();
  const token = await accessToken(consumer);
  const kept = [
    await installation.query("SELECT * FROM consumers"),
    await installation.query("SELECT * FROM access_tokens"),
    await installation.query("SELECT * FROM request_tokens"),
  ];
  expect(kept[0]).not.toEqual([]);
  expect(kept[1]).not.toEqual([]);
  for (const secret of [consumer.secret, token.secret]) expect(JSON.stringify(kept)).not.toContain(secret);
  for (let rotation = 1; rotation <= 3; rotation += 1) {
    const { status } = await askSocket(installation.paths.socket("control"), "POST", "/internal/rotate-keys");
    expect(status).toBe(200);
  }
  expect((await byToken(header(LOGIN, { consumer, token }))).status).toBe(201);
});

test("three signed steps give a token of the delegated role and no other", async () => {
  const consumer = await newConsumer();
  const asked = await post(REQUEST, header(REQUEST, { consumer, more: { oauth_callback: "oob" } }), projectId);
  expect(asked.status).toBe(201);
  expect([...asked.form.keys()]).toEqual(["oauth_token", "oauth_token_secret", "oauth_expires_at"]);
  const request = pairOf(asked);
  const authorized = await authorize(request, { roles: [{ id: roles.get("reader") }] });
  const verifier = textAt(authorized, "token.oauth_verifier");
  expect(verifier).toMatch(/^[A-Za-z0-9]{8}$/);
  const more = { oauth_verifier: verifier };
  const granted = await post(ACCESS, header(ACCESS, { consumer, token: request, more }));
  expect(granted.status).toBe(201);
  const access = pairOf(granted);
  const answer = await byToken(header(LOGIN, { consumer, token: access }));
  expect(answer.status).toBe(201);
  expect(answer.body["token"]).toMatchObject({
    methods: ["oauth1"],
    user: { id: adminId },
    project: { id: projectId },
    roles: [{ name: "reader" }],
    "OS-OAUTH1": { access_token_id: access.id, consumer_id: consumer.id },
  });
  // A request token is good for one access token.
  expect((await post(ACCESS, header(ACCESS, { consumer, token: request, more }))).status).toBe(404);
});

test("a request that was seen before, is too old or lies ahead is refused", async () => {
  const consumer = await newConsumer();
  const token = await accessToken(consumer);
  const authorization = header(LOGIN, { consumer, token });
  expect((await byToken(authorization)).status).toBe(201);
  expect((await byToken(authorization)).status).toBe(401);
  for (const seconds of [-301, 302]) {
    const timestamp = String(Math.floor((Date.now() + offsetMs) / 1000) + seconds);
    expect((await byToken(header(LOGIN, { consumer, token, more: { oauth_timestamp: timestamp } }))).status).toBe(401);
  }
});

test("what is signed by another secret, for another path or with an altered parameter is refused", async () => {
  const consumer = await newConsumer();
  const token = await accessToken(consumer);
  const good = header(LOGIN, { consumer, token });
  for (const authorization of [
    header(LOGIN, { consumer: { ...consumer, secret: "x" }, token }),
    header(LOGIN, { consumer, token: { ...token, secret: "x" } }),
    header("/v3/other", { consumer, token }),
    good.replace(/oauth_nonce="\d+"/, 'oauth_nonce="other"'),
    header(LOGIN, { consumer: await newConsumer(), token }),
    header(LOGIN, { consumer, token: { id: "0".repeat(32), secret: "x" } }),
    header(LOGIN, { consumer, token, more: { oauth_signature_method: "PLAINTEXT" } }),
  ]) {
    expect((await byToken(authorization)).status).toBe(401);
  }
});

test("requests that lack something say what", async () => {
  const consumer = await newConsumer();
  const token = await requestToken(consumer);
  expect((await post(REQUEST, undefined, projectId)).status).toBe(400);
  expect((await post(REQUEST, header(REQUEST, { consumer }))).text).toContain("Requested-Project-Id");
  expect((await post(REQUEST, header(REQUEST, { consumer }), "nowhere")).status).toBe(404);
  const stranger = { id: "0".repeat(32), secret: "x" };
  expect((await post(REQUEST, header(REQUEST, { consumer: stranger }), projectId)).status).toBe(404);
  expect((await post(ACCESS, header(ACCESS, { consumer, token }))).text).toContain("oauth_verifier");
  const answer = await byToken(header(LOGIN, { consumer }));
  expect([answer.status, at(answer, "error.message")]).toEqual([400, expect.stringContaining("oauth_token")]);
  for (const path of [REQUEST, ACCESS, "/v3/OS-OAUTH1/authorize/x"]) expect((await call("GET", path)).status).toBe(405);
});

test("nobody gets an access token without the verifier, nor another consumer with it", async () => {
  const consumer = await newConsumer();
  const other = await newConsumer();
  const token = await requestToken(consumer);
  const early = header(ACCESS, { consumer, token, more: { oauth_verifier: "12345678" } });
  expect((await post(ACCESS, early)).status).toBe(401);
  const verifier = textAt(await authorize(token, { roles: [{ name: "reader" }] }), "token.oauth_verifier");
  for (const signing of [
    { consumer, token, more: { oauth_verifier: `${verifier}x` } },
    { consumer: other, token, more: { oauth_verifier: verifier } },
  ]) {
    expect((await post(ACCESS, header(ACCESS, signing))).status).toBe(401);
  }
});

test("roles that the user does not have, that are not there, or that are named oddly cannot be delegated", async () => {
  const consumer = await newConsumer();
  const token = await requestToken(consumer);
  const role = textAt(await call("POST", "/v3/roles", { token: admin, body: { role: { name: "rare" } } }), "role.id");
  expect((await authorize(token, { roles: [{ id: role }] })).status).toBe(401);
  expect((await authorize(token, { roles: [{ name: "nowhere" }] })).status).toBe(404);
  for (const given of [[{}], [{ id: 1 }], [{ id: "a", name: "b" }], "x", null]) {
    expect((await authorize(token, { roles: given })).status).toBe(400);
  }
  expect((await authorize({ id: "nowhere", secret: "" }, { roles: [] })).status).toBe(404);
});

test("a delegated token authorizes nothing, lists nothing and is not scoped anew", async () => {
  const consumer = await newConsumer();
  const access = await accessToken(consumer, "admin");
  const delegated = tokenOf(await byToken(header(LOGIN, { consumer, token: access })));
  const token = await requestToken(consumer);
  expect((await authorize(token, { roles: [{ name: "reader" }] }, delegated)).status).toBe(403);
  const list = `/v3/users/${adminId}/OS-OAUTH1/access_tokens`;
  expect((await call("GET", list, { token: delegated })).status).toBe(403);
  expect((await call("DELETE", `${list}/${access.id}`, { token: delegated })).status).toBe(403);
  expect((await rescope(delegated, ADMIN_SCOPE)).status).toBe(403);
});

test("a user's access tokens and their roles are listed without secrets, and end when they are deleted", async () => {
  const consumer = await newConsumer();
  const access = await accessToken(consumer, "member");
  const issued = tokenOf(await byToken(header(LOGIN, { consumer, token: access })));
  const list = `/v3/users/${adminId}/OS-OAUTH1/access_tokens`;
  const tokens = listAt(await call("GET", list, { token: admin }), "access_tokens");
  expect(tokens.find(({ id }) => id === access.id)).toMatchObject({
    authorizing_user_id: adminId,
    project_id: projectId,
    consumer_id: consumer.id,
  });
  const shown = await call("GET", `${list}/${access.id}`, { token: admin });
  expect(JSON.stringify(shown.body)).not.toContain("secret");
  const held = await call("GET", `${list}/${access.id}/roles`, { token: admin });
  expect(listAt(held, "roles").map(({ name }) => name)).toEqual(["member"]);
  const one = `${list}/${access.id}/roles/`;
  expect((await call("GET", one + roles.get("member"), { token: admin })).status).toBe(200);
  expect((await call("GET", one + roles.get("reader"), { token: admin })).status).toBe(404);
  expect((await call("GET", `/v3/users/other/OS-OAUTH1/access_tokens/${access.id}`, { token: admin })).status).toBe(
    404,
  );
  expect((await call("DELETE", `${list}/${access.id}`, { token: admin })).status).toBe(204);
  expect((await call("GET", `${list}/${access.id}`, { token: admin })).status).toBe(404);
  expect((await call("GET", "/v3/auth/catalog", { token: issued })).status).toBe(401);
  expect((await byToken(header(LOGIN, { consumer, token: access }))).status).toBe(401);
});

test("with a consumer everything goes that was granted to it", async () => {
  const consumer = await newConsumer();
  const access = await accessToken(consumer);
  const issued = tokenOf(await byToken(header(LOGIN, { consumer, token: access })));
  expect((await call("GET", "/v3/auth/catalog", { token: issued })).status).toBe(200);
  expect((await call("DELETE", `/v3/OS-OAUTH1/consumers/${consumer.id}`, { token: admin })).status).toBe(204);
  expect((await call("GET", "/v3/auth/catalog", { token: issued })).status).toBe(401);
  const list = await call("GET", `/v3/users/${adminId}/OS-OAUTH1/access_tokens`, { token: admin });
  expect(listAt(list, "access_tokens").some(({ id }) => id === access.id)).toBe(false);
});

test("request tokens end after eight hours, access tokens after a day", async () => {
  const consumer = await newConsumer();
  const request = await requestToken(consumer);
  const access = await accessToken(consumer);
  try {
    offsetMs = 28_801_000;
    admin = await adminToken();
    expect((await authorize(request, { roles: [{ name: "reader" }] })).status).toBe(401);
    offsetMs = 86_401_000;
    expect((await byToken(header(LOGIN, { consumer, token: access }))).status).toBe(401);
  } finally {
    offsetMs = 0;
    admin = await adminToken();
  }
});
