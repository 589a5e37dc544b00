import { createHmac, randomBytes } from "node:crypto";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { silentLog } from "../../common/log.ts";
import { runWorkers } from "../../common/worker.ts";
import { isTextSignedBy } from "../authentication/ec2-signature.ts";
import { type AccessKeys, createIdentityClient, createRevocationFollower, openAccessKeys } from "../client.ts";
import type { RevocationFollower } from "../revocation-follower.ts";
import { ADMIN_SCOPE, ADMIN_USER, createTestClient, listAt, textAt } from "../test-client.ts";
import { createTestInstallation, type TestInstallation } from "../test-service.ts";

const DAY_MS = 24 * 3_600_000;
const MINUTE_MS = 60_000;
const GRACE_SECONDS = 300;
/** What "within a second" leaves. */
const SOON = { timeout: 1_000, interval: 10 };

/** What a proxy has of identity. Disposal ends it as a process that is asked to stop does. */
type Proxy = AsyncDisposable & {
  readonly follower: RevocationFollower;
  readonly keys: AccessKeys;
  /** Questions that went to the identity service. */
  readonly asked: string[];
};

let installation: TestInstallation;
let port = 0;
let offsetMs = 0;
let clusterKey: Buffer;
let proxies: Proxy[];
const now = (): number => Date.now() + offsetMs;
const { call, login, adminToken } = createTestClient(() => `http://127.0.0.1:${port}`);
let admin: string;

const startIdentity = async (): Promise<void> => {
  ({ port } = await installation.start({ nowMs: now }));
};

const startProxy = async (graceSeconds = GRACE_SECONDS, key = clusterKey): Promise<Proxy> => {
  const real = createIdentityClient(installation.paths.socket("control"));
  const asked: string[] = [];
  const client = {
    ...real,
    ec2: (access: string) => {
      asked.push(access);
      return real.ec2(access);
    },
  };
  const clock = { nowMs: now };
  const follower = createRevocationFollower({ client, clock, graceSeconds });
  const folder = installation.paths.identityDir;
  const keys = await openAccessKeys({
    client,
    news: follower.source,
    clock,
    clusterKey: key,
    folder,
    log: silentLog,
  });
  const workers = runWorkers([follower.worker, keys.worker], { log: silentLog });
  const proxy: Proxy = {
    follower,
    keys,
    asked,
    [Symbol.asyncDispose]: async () => {
      await workers[Symbol.asyncDispose]();
      await keys[Symbol.asyncDispose]();
      proxies = proxies.filter((other) => other !== proxy);
    },
  };
  proxies.push(proxy);
  return proxy;
};

const connected = ({ follower }: Proxy) => expect.poll(() => follower.source.connection, SOON).toBeGreaterThan(0);
const silent = ({ follower }: Proxy) => expect.poll(() => follower.source.isSilent(), { timeout: 5_000 }).toBe(true);

/** Until it was heard again after the clock was set on. */
const heard = ({ follower }: Proxy) => expect.poll(() => follower.source.isSilent(), { timeout: 7_000 }).toBe(false);

const TEXT = `AWS4-HMAC-SHA256\n20330518T033320Z\n20330518/RegionOne/s3/aws4_request\n${"0".repeat(64)}`;
const hmac = (key: string | Buffer, text: string): Buffer => createHmac("sha256", key).update(text).digest();
/** As a client signs: AWS Signature Version 4. */
const signatureOf = (secret: string): string => {
  const signing = ["20330518", "RegionOne", "s3", "aws4_request"].reduce<string | Buffer>(hmac, `AWS4${secret}`);
  return hmac(signing, TEXT).toString("hex");
};

/** What a request with this signature is answered: on whose behalf it acts, or a status. */
const request = async ({ keys }: Proxy, access: string, signature: string): Promise<string | number> => {
  try {
    const key = await keys.find(access);
    if (key === undefined || !isTextSignedBy(Buffer.from(TEXT), signature, key.secret)) return 403;
    return `${key.context.userName} as ${key.context.roles.join()}`;
  } catch (thrown) {
    if ((thrown as { code: string }).code === "identity-unavailable") return 503;
    throw thrown;
  }
};

type Made = { readonly userId: string; readonly projectId: string; readonly access: string; readonly secret: string };
const OWNER = "owner as member,reader";

const send = (method: string, path: string, body?: unknown) => call(method, path, { token: admin, body });
const roleNamed = async (name: string): Promise<string> =>
  String(listAt(await send("GET", `/v3/roles?name=${name}`), "roles")[0]?.["id"]);

/** A user with a role in a project and a key there. */
const makeKey = async (): Promise<Made> => {
  const suffix = randomBytes(4).toString("hex");
  const domain = await send("POST", "/v3/domains", { domain: { name: `domain ${suffix}` } });
  const domainId = textAt(domain, "domain.id");
  const project = await send("POST", "/v3/projects", { project: { name: "project", domain_id: domainId } });
  const projectId = textAt(project, "project.id");
  const user = await send("POST", "/v3/users", { user: { name: "owner", domain_id: domainId, password: "pw" } });
  const userId = textAt(user, "user.id");
  await send("PUT", `/v3/projects/${projectId}/users/${userId}/roles/${await roleNamed("member")}`);
  const made = await send("POST", `/v3/users/${userId}/credentials/OS-EC2`, { tenant_id: projectId });
  return {
    userId,
    projectId,
    access: textAt(made, "credential.access"),
    secret: textAt(made, "credential.secret"),
  };
};

beforeEach(async () => {
  installation = createTestInstallation();
  offsetMs = 0;
  proxies = [];
  clusterKey = randomBytes(32);
  await startIdentity();
  admin = await adminToken();
});

afterEach(async () => {
  for (const proxy of proxies) await proxy[Symbol.asyncDispose]();
  await installation[Symbol.asyncDispose]();
});

test("requests with a key that was seen go on while identity is down, those with an unknown one answer 503", async () => {
  const { access, secret } = await makeKey();
  const other = await makeKey();
  const proxy = await startProxy();
  await connected(proxy);
  expect(await request(proxy, access, signatureOf(secret))).toBe(OWNER);
  expect(await request(proxy, access, signatureOf("wrong"))).toBe(403);
  expect(await request(proxy, "nobody's key", signatureOf(secret))).toBe(403);
  await installation.stop();
  await silent(proxy);
  expect(await request(proxy, access, signatureOf(secret))).toBe(OWNER);
  expect(await request(proxy, access, signatureOf("wrong"))).toBe(403);
  expect(await request(proxy, other.access, signatureOf(other.secret))).toBe(503);
  offsetMs += GRACE_SECONDS * 1000;
  // As for tokens: nothing was heard of revocations for too long.
  expect(await request(proxy, access, signatureOf(secret))).toBe(503);
  await startIdentity();
  await expect.poll(() => request(proxy, access, signatureOf(secret)), SOON).toBe(OWNER);
  expect(await request(proxy, other.access, signatureOf(other.secret))).toBe(OWNER);
});

test("a known key is found without a promise, and the identity service is asked once for many", async () => {
  const { access } = await makeKey();
  const proxy = await startProxy();
  await connected(proxy);
  const found = await Promise.all(Array.from({ length: 50 }, async () => proxy.keys.find(access)));
  expect(proxy.asked).toEqual([access]);
  expect(proxy.keys.find(access)).toBe(found[0]);
});

test("a key that was deleted through either API is void within a second, and stays so after a restart without identity", async () => {
  const [ec2, general] = [await makeKey(), await makeKey()];
  const proxy = await startProxy();
  await connected(proxy);
  for (const { access, secret } of [ec2, general]) {
    expect(await request(proxy, access, signatureOf(secret))).toBe(OWNER);
  }
  expect((await send("DELETE", `/v3/users/${ec2.userId}/credentials/OS-EC2/${ec2.access}`)).status).toBe(204);
  const [credential] = listAt(await send("GET", `/v3/credentials?user_id=${general.userId}`), "credentials");
  expect((await send("DELETE", `/v3/credentials/${String(credential?.["id"])}`)).status).toBe(204);
  for (const { access, secret } of [ec2, general]) {
    await expect.poll(() => request(proxy, access, signatureOf(secret)), SOON).toBe(403);
  }
  await proxy[Symbol.asyncDispose]();
  await installation.stop();
  const next = await startProxy();
  for (const { access, secret } of [ec2, general]) {
    expect(await request(next, access, signatureOf(secret))).toBe(503);
  }
});

test("a secret that was changed counts within a second, and the old one no more", async () => {
  const { access, secret, userId } = await makeKey();
  const proxy = await startProxy();
  await connected(proxy);
  expect(await request(proxy, access, signatureOf(secret))).toBe(OWNER);
  const [credential] = listAt(await send("GET", `/v3/credentials?user_id=${userId}`), "credentials");
  const blob = JSON.stringify({ access, secret: "another" });
  const changed = await send("PATCH", `/v3/credentials/${String(credential?.["id"])}`, { credential: { blob } });
  expect(changed.status).toBe(200);
  await expect.poll(() => request(proxy, access, signatureOf("another")), SOON).toBe(OWNER);
  expect(await request(proxy, access, signatureOf(secret))).toBe(403);
});

test("a key gives within a second what its owner has: other roles, nothing once disabled or without a role, and again", async () => {
  const { access, secret, userId, projectId } = await makeKey();
  const proxy = await startProxy();
  await connected(proxy);
  const answered = (): Promise<string | number> => request(proxy, access, signatureOf(secret));
  const becomes = (answer: string | number) => expect.poll(answered, SOON).toBe(answer);
  expect(await answered()).toBe(OWNER);
  const grant = async (name: string) => `/v3/projects/${projectId}/users/${userId}/roles/${await roleNamed(name)}`;
  await send("PUT", await grant("manager"));
  await becomes("owner as manager,member,reader");
  await send("DELETE", await grant("manager"));
  await becomes(OWNER);
  await send("PATCH", `/v3/users/${userId}`, { user: { enabled: false } });
  await becomes(403);
  await send("PATCH", `/v3/users/${userId}`, { user: { enabled: true } });
  await becomes(OWNER);
  await send("PATCH", `/v3/projects/${projectId}`, { project: { enabled: false } });
  await becomes(403);
  await send("PATCH", `/v3/projects/${projectId}`, { project: { enabled: true } });
  await becomes(OWNER);
  // Another password voids tokens, and no keys.
  await send("PATCH", `/v3/users/${userId}`, { user: { password: "another" } });
  await becomes(OWNER);
  await send("DELETE", await grant("member"));
  await becomes(403);
});

test("what an event says of a key counts also where the identity service went away right after it", async () => {
  const { access, secret, userId } = await makeKey();
  const proxy = await startProxy();
  await connected(proxy);
  expect(await request(proxy, access, signatureOf(secret))).toBe(OWNER);
  const { sequence } = proxy.follower.source.list;
  await send("PATCH", `/v3/users/${userId}`, { user: { enabled: false } });
  await expect.poll(() => proxy.follower.source.list.sequence, SOON).toBeGreaterThan(sequence);
  await installation.stop();
  expect(await request(proxy, access, signatureOf(secret))).toBe(503);
});

test("after a restart of the proxy keys seen within 24 hours go on without identity, older ones answer 503", async () => {
  const early = await makeKey();
  const late = await makeKey();
  const first = await startProxy();
  await connected(first);
  expect(await request(first, early.access, signatureOf(early.secret))).toBe(OWNER);
  offsetMs += 2 * 3_600_000;
  expect(await request(first, late.access, signatureOf(late.secret))).toBe(OWNER);
  await first[Symbol.asyncDispose]();
  await installation.stop();

  offsetMs += 22 * 3_600_000 - MINUTE_MS;
  const second = await startProxy();
  expect(await request(second, early.access, signatureOf(early.secret))).toBe(OWNER);
  expect(await request(second, late.access, signatureOf(late.secret))).toBe(OWNER);
  offsetMs += 2 * MINUTE_MS;
  expect(await request(second, early.access, signatureOf(early.secret))).toBe(503);
  expect(await request(second, late.access, signatureOf(late.secret))).toBe(OWNER);
  await second[Symbol.asyncDispose]();

  offsetMs += DAY_MS;
  const third = await startProxy();
  expect(await request(third, late.access, signatureOf(late.secret))).toBe(503);
  await startIdentity();
  await expect.poll(() => request(third, early.access, signatureOf(early.secret)), SOON).toBe(OWNER);
});

test("a key in use is good for 24 hours after it was confirmed last, not after it was seen first", async () => {
  const { access, secret } = await makeKey();
  const proxy = await startProxy(2 * 86_400);
  await connected(proxy);
  expect(await request(proxy, access, signatureOf(secret))).toBe(OWNER);
  offsetMs += 20 * 3_600_000;
  await heard(proxy);
  expect(await request(proxy, access, signatureOf(secret))).toBe(OWNER);
  await installation.stop();
  await silent(proxy);
  offsetMs += DAY_MS - MINUTE_MS;
  expect(await request(proxy, access, signatureOf(secret))).toBe(OWNER);
  offsetMs += 2 * MINUTE_MS;
  expect(await request(proxy, access, signatureOf(secret))).toBe(503);
});

test("what happened while the proxy was down counts at its first request, though nobody tells of it any more", async () => {
  const { access, secret, userId } = await makeKey();
  const first = await startProxy();
  await connected(first);
  expect(await request(first, access, signatureOf(secret))).toBe(OWNER);
  await first[Symbol.asyncDispose]();
  await send("DELETE", `/v3/users/${userId}/credentials/OS-EC2/${access}`);
  const second = await startProxy();
  expect(await request(second, access, signatureOf(secret))).toBe(403);
});

test("the file is the owner's alone and has neither secret nor names in clear; another cluster key opens nothing", async () => {
  const { access, secret } = await makeKey();
  const proxy = await startProxy();
  await connected(proxy);
  expect(await request(proxy, access, signatureOf(secret))).toBe(OWNER);
  const path = join(await keptFolder(proxy), "access-keys");
  expect(statSync(path).mode & 0o777).toBe(0o600);
  const bytes = readFileSync(path);
  expect(bytes.includes(access)).toBe(true);
  for (const text of [secret, "owner", "member"]) expect(bytes.includes(text)).toBe(false);
  await proxy[Symbol.asyncDispose]();
  await installation.stop();
  const stranger = await startProxy(GRACE_SECONDS, randomBytes(32));
  expect(await request(stranger, access, signatureOf(secret))).toBe(503);
});

test("a file that is damaged costs only what it damaged, and is whole again with the next key", async () => {
  const { access, secret } = await makeKey();
  const first = await startProxy();
  await connected(first);
  expect(await request(first, access, signatureOf(secret))).toBe(OWNER);
  const path = join(await keptFolder(first), "access-keys");
  await first[Symbol.asyncDispose]();
  writeFileSync(path, Buffer.concat([readFileSync(path), randomBytes(100)]));
  const second = await startProxy();
  await connected(second);
  expect(await request(second, access, signatureOf(secret))).toBe(OWNER);
  await second[Symbol.asyncDispose]();
  writeFileSync(path, "no such file");
  const third = await startProxy();
  await connected(third);
  expect(await request(third, access, signatureOf(secret))).toBe(OWNER);
  await third[Symbol.asyncDispose]();
  await installation.stop();
  const fourth = await startProxy();
  expect(await request(fourth, access, signatureOf(secret))).toBe(OWNER);
});

test("names that are no keys are refused, and unlike ones never lead to another path of the identity service", async () => {
  const proxy = await startProxy();
  await connected(proxy);
  for (const access of ["", " ", "a b", "x".repeat(256), "ü", "a\nb"]) {
    expect(await request(proxy, access, "x")).toBe(403);
  }
  expect(proxy.asked).toEqual([]);
  for (const access of ["..", "../ready-info", "%2e%2e", "(!'*)", "a/b", "__proto__", "constructor", "x".repeat(255)]) {
    expect([access, await request(proxy, access, "x")]).toEqual([access, 403]);
  }
});

test("a key made with a trust gives what the trust gives, and ends with it", async () => {
  const { userId, projectId } = await makeKey();
  const trustor = textAt(await login(ADMIN_USER, ADMIN_SCOPE), "token.user.id");
  const adminProject = textAt(await login(ADMIN_USER, ADMIN_SCOPE), "token.project.id");
  const made = await send("POST", "/v3/OS-TRUST/trusts", {
    trust: {
      trustor_user_id: trustor,
      trustee_user_id: userId,
      project_id: adminProject,
      impersonation: false,
      roles: [{ name: "reader" }],
      expires_at: new Date(now() + 3_600_000).toISOString(),
    },
  });
  const trustId = textAt(made, "trust.id");
  const blob = JSON.stringify({ access: "trusted", secret: "s", trust_id: trustId });
  const credential = { type: "ec2", user_id: userId, project_id: projectId, blob };
  expect((await send("POST", "/v3/credentials", { credential })).status).toBe(201);
  const proxy = await startProxy();
  await connected(proxy);
  const key = await proxy.keys.find("trusted");
  expect(key?.context).toMatchObject({ userId, projectId: adminProject, roles: ["reader"], trustId });
  expect(await request(proxy, "trusted", signatureOf("s"))).toBe("owner as reader");
  offsetMs += 3_700_000;
  expect(await request(proxy, "trusted", signatureOf("s"))).toBe(403);
});

/** The folder of the file, once everything is in it. */
const keptFolder = async ({ keys }: Proxy): Promise<string> => {
  await expect.poll(() => keys.worker.status()["isKept"], { timeout: 5_000 }).toBe(true);
  return installation.paths.identityDir;
};
