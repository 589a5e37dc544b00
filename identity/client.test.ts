import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CompactSign, type CompactJWSHeaderParameters } from "jose";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createIdentityClient, createTokenVerifier, type TokenContext, type TokenVerifier } from "./client.ts";
import { RevocationList } from "./core/revocation.ts";
import { signToken } from "./token-signer.ts";
import type { TokenClaims } from "./wire.ts";

const NOW_MS = 1_800_000_000_000;
const claims: TokenClaims = {
  sub: "0".repeat(32),
  un: "admin",
  ud: "default",
  pj: "1".repeat(32),
  pn: "admin",
  dm: "default",
  rl: ["admin", "reader"],
  am: ["password"],
  iat: NOW_MS / 1000,
  exp: NOW_MS / 1000 + 3600,
  jti: "audit",
};

type Key = { kid: string; privateKey: KeyObject; publicKey: KeyObject };

let folder: string;
let nowMs: number;
let key: Key;
let verifier: TokenVerifier;

const makeKey = (kid: string): Key => ({ kid, ...generateKeyPairSync("ec", { namedCurve: "P-256" }) });

const publish = (...keys: Key[]): void => {
  const set = keys.map(({ kid, publicKey }) => ({
    ...publicKey.export({ format: "jwk" }),
    kid,
    alg: "ES256",
    use: "sig",
  }));
  writeFileSync(join(folder, "jwks.json"), JSON.stringify({ keys: set }));
};

const sign = (payload: object, { kid, privateKey }: Key = key): string =>
  signToken(payload as TokenClaims, { kid, key: privateKey });

/** With other headers, and with either value of s. */
const signByHeader = (payload: object, { kid, privateKey }: Key, header: Partial<CompactJWSHeaderParameters> = {}) =>
  new CompactSign(Buffer.from(JSON.stringify(payload)))
    .setProtectedHeader({ alg: "ES256", kid, ...header })
    .sign(privateKey);

const verdict = async (token: string): Promise<TokenContext | string> => {
  try {
    return await verifier.verify(token);
  } catch (thrown) {
    return (thrown as { code: string }).code;
  }
};

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ringstead-token-"));
  nowMs = NOW_MS;
  key = makeKey("aaaa");
  publish(key);
  verifier = createTokenVerifier({
    keysDir: folder,
    clock: { nowMs: () => nowMs },
    revocations: { list: new RevocationList(3_600_000), assertFresh: () => {}, recheck: undefined },
  });
});

afterEach(() => rmSync(folder, { recursive: true }));

test("a valid token tells who it is for, the second time without a promise", async () => {
  const token = sign(claims);
  const context = await verifier.verify(token);
  expect(context).toMatchObject({
    userId: "0".repeat(32),
    projectId: "1".repeat(32),
    roles: ["admin", "reader"],
    system: false,
  });
  expect(verifier.verify(token)).toBe(context);
});

test("a token altered in any byte is refused, seen before or not", async () => {
  const token = sign(claims);
  await verifier.verify(token);
  const accepted: string[] = [];
  for (let index = 0; index < token.length; index += 1) {
    const original = token.charCodeAt(index);
    // Every bit on its own, and the neighbours in the alphabet, which share most bits after decoding.
    const others = [1, 2, 4, 8, 16, 32, 64].map((bit) => original ^ bit).concat(original + 1, original - 1);
    for (const other of others) {
      const altered = token.slice(0, index) + String.fromCharCode(other) + token.slice(index + 1);
      if ((await verdict(altered)) !== "unauthorized") accepted.push(altered);
    }
  }
  expect(accepted).toEqual([]);
});

test("the last character of a signature is refused in every form that decodes to the same bytes", async () => {
  const token = sign(claims);
  for (const last of "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
    const altered = token.slice(0, -1) + last;
    expect(await verdict(altered)).toEqual(
      altered === token ? expect.objectContaining({ userName: "admin" }) : "unauthorized",
    );
  }
  for (const altered of [
    `${token}=`,
    `${token} `,
    ` ${token}`,
    `${token}A`,
    token.slice(0, -1),
    `${token}.`,
    "",
    "a.b.c",
  ]) {
    expect(await verdict(altered)).toBe("unauthorized");
  }
});

test("no other algorithm is accepted: none, HMAC keyed with the public key, a foreign curve", async () => {
  const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  expect(await verdict(`${encode({ alg: "none", kid: key.kid })}.${encode(claims)}.`)).toBe("unauthorized");
  expect(await verdict(`${encode({ alg: "none", kid: key.kid })}.${encode(claims)}.${"A".repeat(86)}`)).toBe(
    "unauthorized",
  );
  const secret = key.publicKey.export({ type: "spki", format: "pem" });
  const hmac = await new CompactSign(Buffer.from(JSON.stringify(claims)))
    .setProtectedHeader({ alg: "HS256", kid: key.kid })
    .sign(Buffer.from(secret));
  expect(await verdict(hmac)).toBe("unauthorized");
  const curve = generateKeyPairSync("ec", { namedCurve: "P-384" });
  expect(await verdict(await signByHeader(claims, { kid: key.kid, ...curve }, { alg: "ES384" }))).toBe("unauthorized");
});

test("a token of another key is refused, also under the known key's id and with an embedded key", async () => {
  const other = makeKey("bbbb");
  expect(await verdict(sign(claims, other))).toBe("unauthorized");
  expect(await verdict(sign(claims, { ...other, kid: key.kid }))).toBe("unauthorized");
  const jwk = other.publicKey.export({ format: "jwk" }) as { kty: string };
  expect(await verdict(await signByHeader(claims, { ...other, kid: key.kid }, { jwk }))).toBe("unauthorized");
});

test("a rotated key is found without a restart, the old one stays good", async () => {
  const old = sign(claims);
  await verifier.verify(old);
  const fresh = makeKey("cccc");
  const token = sign(claims, fresh);
  publish(key, fresh);
  nowMs += 1_000;
  expect(await verdict(token)).toMatchObject({ userName: "admin" });
  expect(await verdict(old)).toMatchObject({ userName: "admin" });
});

test("expiry is checked each time, also for a remembered token", async () => {
  const token = sign(claims);
  await verifier.verify(token);
  nowMs = claims.exp * 1000 - 1;
  expect(await verdict(token)).toMatchObject({ userName: "admin" });
  nowMs = claims.exp * 1000;
  expect(await verdict(token)).toBe("unauthorized");
  expect(await verdict(sign({ ...claims, jti: "another" }))).toBe("unauthorized");
});

test("a signed token of another shape is refused", async () => {
  const { rl: _, ...lacking } = claims;
  for (const payload of [lacking, { ...claims, extra: 1 }, { ...claims, exp: "never" }, [], {}]) {
    expect(await verdict(sign(payload))).toBe("unauthorized");
  }
});

test("without the key file a token is refused, and accepted once it is there", async () => {
  rmSync(join(folder, "jwks.json"));
  const token = sign(claims);
  expect(await verdict(token)).toBe("unauthorized");
  publish(key);
  nowMs += 1_000;
  expect(await verdict(token)).toMatchObject({ userName: "admin" });
});

test("a login waits for an identity process that is about to listen", async () => {
  const socketPath = join(folder, "late.sock");
  const login = createIdentityClient(socketPath).v1Auth("admin:admin", "key");
  const refused = expect(login).rejects.toMatchObject({ code: "unauthorized" });
  // The first attempt has met nobody.
  await new Promise((resolve) => setTimeout(resolve, 20));
  const server = createServer((_request, response) => response.writeHead(401).end());
  await once(server.listen(socketPath), "listening");
  await refused;
  server.close();
});
