import { mkdir, readFile } from "node:fs/promises";
import { request as httpRequest } from "node:http";
import { join } from "node:path";
import { type CryptoKey, compactVerify, importJWK } from "jose";
import type { Static, TSchema } from "typebox";
import { Compile } from "typebox/compile";
import type { Clock } from "../common/clock.ts";
import { codeOf, messageOf, RingsteadError } from "../common/errors.ts";
import { replaceFile } from "../common/replace-file.ts";
import type { RpcClient } from "../common/rpc/client.ts";
import { sleep, type Worker } from "../common/worker.ts";
import {
  type Ec2Response,
  ec2Response,
  type PublicKeySet,
  publicKeySet,
  type ReadyInfoResponse,
  readyInfoResponse,
  TOKEN_ALGORITHM,
  type TokenClaims,
  tokenClaims,
  type V1AuthResponse,
  v1AuthResponse,
} from "./wire.ts";

/** Verified tokens kept: up to twice this, about 1 KiB each. */
const CACHE_GENERATION_COUNT = 16_384;
/** A token of an unknown key makes the key file be read again, at most this often. */
const KEY_RELOAD_MS = 1_000;
/** Longer strings are no tokens of ours and are refused before any work. */
const TOKEN_MAX_CHARACTERS = 8_192;
/**
 * Three base64url parts of which the last is 64 bytes: 86 characters, the last one with its four unused bits zero.
 * Decoders ignore those bits, so without this a token altered in its last character would pass.
 */
const TOKEN = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{85}[AQgw]$/;

const REQUEST_TIMEOUT_MS = 30_000;
const ANSWER_MAX_BYTES = 1024 * 1024;

/** On whose behalf a request with this token acts, and within which scope. */
export type TokenContext = {
  readonly userId: string;
  readonly userName: string;
  readonly userDomainId: string;
  /** Undefined unless the scope is a project. */
  readonly projectId: string | undefined;
  readonly projectName: string | undefined;
  /** The project's domain, or the domain that is the scope itself. */
  readonly domainId: string | undefined;
  /** Names, those implied by others included. */
  readonly roles: readonly string[];
  readonly system: boolean;
  readonly issuedAtMs: number;
  readonly expiresAtMs: number;
  readonly methods: readonly string[];
  /** What revocation names. */
  readonly auditId: string;
  /** The first token of a chain of tokens issued by token. */
  readonly parentAuditId: string | undefined;
};

export type TokenVerifier = {
  /**
   * The context of a valid token; at once when it was seen before, without a promise. Throws, or rejects with,
   * RingsteadError `unauthorized` for anything else.
   */
  verify(token: string): TokenContext | Promise<TokenContext>;
};

export type TokenVerifierOptions = {
  /** The folder that holds `jwks.json`: `runtimePaths(DIR).identityDir`. */
  readonly keysDir: string;
  readonly clock: Clock;
};

const refuse = (reason: string): RingsteadError =>
  new RingsteadError("unauthorized", "The request you have made requires authentication.", { reason });

const claimsCheck = Compile(tokenClaims);
const keySetCheck = Compile(publicKeySet);

const contextOf = (claims: TokenClaims): TokenContext => ({
  userId: claims.sub,
  userName: claims.un,
  userDomainId: claims.ud,
  projectId: claims.pj,
  projectName: claims.pn,
  domainId: claims.dm,
  roles: claims.rl,
  system: claims.sy === 1,
  issuedAtMs: claims.iat * 1000,
  expiresAtMs: claims.exp * 1000,
  methods: claims.am,
  auditId: claims.jti,
  parentAuditId: claims.pa,
});

type KeyRing = { find(kid: string): Promise<CryptoKey | undefined> };

/** The public keys by id, read again when an unknown one is asked for: that is how a rotation reaches this process. */
const createKeyRing = (file: string, clock: Clock): KeyRing => {
  let keys = new Map<string, CryptoKey>();
  let readAtMs = Number.NEGATIVE_INFINITY;
  let reading: Promise<void> | undefined;

  const read = async (): Promise<void> => {
    const set: unknown = JSON.parse(await readFile(file, "utf8"));
    if (!keySetCheck.Check(set)) throw new Error(`${file} is no set of public keys`);
    const fresh = new Map<string, CryptoKey>();
    for (const key of set.keys) {
      const imported = await importJWK(key, TOKEN_ALGORITHM);
      if (!(imported instanceof Uint8Array)) fresh.set(key.kid, imported);
    }
    keys = fresh;
  };

  return {
    find: async (kid) => {
      const known = keys.get(kid);
      if (known !== undefined) return known;
      const nowMs = clock.nowMs();
      // A clock set back must not block reloads until it has caught up.
      if (reading === undefined && Math.abs(nowMs - readAtMs) >= KEY_RELOAD_MS) {
        readAtMs = nowMs;
        reading = read().finally(() => {
          reading = undefined;
        });
      }
      // An absent or torn file is an unknown key: the token cannot be trusted, and the next one looks again.
      await reading?.catch(() => undefined);
      return keys.get(kid);
    },
  };
};

/**
 * Verifies tokens without asking anyone. A hit is one look-up by the token's text in two generations of a bounded cache
 * (a cheap LRU without bookkeeping per hit) and a comparison of its expiry; a miss is one ES256 verification. A
 * revocation is not seen here.
 */
export const createTokenVerifier = ({ keysDir, clock }: TokenVerifierOptions): TokenVerifier => {
  const keyRing = createKeyRing(join(keysDir, "jwks.json"), clock);
  let young = new Map<string, TokenContext>();
  let old = new Map<string, TokenContext>();

  const remember = (token: string, context: TokenContext): void => {
    if (young.size >= CACHE_GENERATION_COUNT) {
      old = young;
      young = new Map();
    }
    young.set(token, context);
  };

  const verifyUnseen = async (token: string): Promise<TokenContext> => {
    let payload: Uint8Array;
    try {
      const verified = await compactVerify(
        token,
        async ({ kid }) => {
          const key = kid === undefined ? undefined : await keyRing.find(kid);
          if (key === undefined) throw refuse("unknown key");
          return key;
        },
        { algorithms: [TOKEN_ALGORITHM] },
      );
      payload = verified.payload;
    } catch (thrown) {
      // Whatever jose objects to, the bytes came from outside: the answer is the same.
      throw refuse(messageOf(thrown));
    }
    const claims: unknown = JSON.parse(Buffer.from(payload).toString("utf8"));
    if (!claimsCheck.Check(claims)) throw refuse("unknown shape of token");
    const context = contextOf(claims);
    if (context.expiresAtMs <= clock.nowMs()) throw refuse("expired");
    remember(token, context);
    return context;
  };

  return {
    verify: (token) => {
      let context = young.get(token);
      if (context === undefined) {
        context = old.get(token);
        if (context !== undefined) remember(token, context);
      }
      if (context !== undefined) {
        if (context.expiresAtMs > clock.nowMs()) return context;
        young.delete(token);
        old.delete(token);
        throw refuse("expired");
      }
      if (token.length > TOKEN_MAX_CHARACTERS || !TOKEN.test(token)) throw refuse("not a token");
      return verifyUnseen(token);
    },
  };
};

/** Calls to the identity process. */
export type IdentityClient = {
  /** Throws RingsteadError `unauthorized`, `too-busy`, or `identity-unavailable`. */
  v1Auth(user: string, key: string): Promise<V1AuthResponse>;
  /** Undefined for an unknown access key. Throws RingsteadError `identity-unavailable`. */
  ec2(access: string): Promise<Ec2Response | undefined>;
  readyInfo(): Promise<ReadyInfoResponse>;
  /** The public halves of all keys whose tokens may still live. Throws RingsteadError `identity-unavailable`. */
  publicKeys(): Promise<PublicKeySet>;
};

type Answer = { readonly status: number; readonly text: string };

/** How an internal operation is asked for; `body` is JSON. Throws RingsteadError `identity-unavailable`. */
type Ask = (method: "GET" | "POST", path: string, body?: Uint8Array) => Promise<Answer>;

const silent = (error: Error): RingsteadError =>
  new RingsteadError("identity-unavailable", `the identity service does not answer: ${error.message}`, {
    cause: codeOf(error) ?? error.message,
  });

/** One request over the Unix socket of an identity process. Throws RingsteadError `identity-unavailable`. */
export const askSocket = (
  socketPath: string,
  method: "GET" | "POST",
  path: string,
  body?: Uint8Array,
): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const unavailable = (error: Error): void => reject(silent(error));
    const outgoing = httpRequest(
      { socketPath, method, path, headers: { host: "identity", "content-type": "application/json" } },
      (response) => {
        const chunks: Buffer[] = [];
        let sizeBytes = 0;
        response.on("data", (chunk: Buffer) => {
          sizeBytes += chunk.length;
          if (sizeBytes > ANSWER_MAX_BYTES) outgoing.destroy(new Error("answer too large"));
          else chunks.push(chunk);
        });
        response.on("end", () =>
          resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString("utf8") }),
        );
        response.on("error", unavailable);
      },
    );
    outgoing.setTimeout(REQUEST_TIMEOUT_MS, () => outgoing.destroy(new Error("timed out")));
    outgoing.on("error", unavailable);
    outgoing.end(body);
  });

/** The same over the connection to another node. */
const askPeer =
  (rpc: RpcClient): Ask =>
  (method, path, body) =>
    new Promise((resolve, reject) => {
      rpc.call([method, path], body, REQUEST_TIMEOUT_MS, (error, [status], bytes) => {
        if (error === undefined) resolve({ status: Number(status), text: bytes.toString("utf8") });
        else reject(silent(error));
      });
    });

const decode = <Schema extends TSchema>(schema: Schema, { status, text }: Answer): Static<Schema> => {
  if (status === 401) throw refuse("refused by the identity service");
  if (status === 503) throw new RingsteadError("too-busy", "The identity service has too many logins under way.");
  const value: unknown = status === 200 ? JSON.parse(text) : undefined;
  const check = Compile(schema);
  if (check.Check(value)) return value as Static<Schema>;
  throw new RingsteadError("identity-unavailable", `the identity service answered ${status}`, { status });
};

const clientOver = (ask: Ask): IdentityClient => ({
  v1Auth: async (user, key) =>
    decode(v1AuthResponse, await ask("POST", "/internal/v1-auth", Buffer.from(JSON.stringify({ user, key })))),
  ec2: async (access) => {
    const answer = await ask("GET", `/internal/ec2/${encodeURIComponent(access)}`);
    return answer.status === 404 ? undefined : decode(ec2Response, answer);
  },
  readyInfo: async () => decode(readyInfoResponse, await ask("GET", "/internal/ready-info")),
  publicKeys: async () => decode(publicKeySet, await ask("GET", "/internal/public-keys")),
});

/** Asks the identity process of this node. `socketPath`: `runtimePaths(DIR).socket("control")`. */
export const createIdentityClient = (socketPath: string): IdentityClient =>
  clientOver((method, path, body) => askSocket(socketPath, method, path, body));

/** Asks the identity process of another node. */
export const createRemoteIdentityClient = (rpc: RpcClient): IdentityClient => clientOver(askPeer(rpc));

/** A new key of the identity process is known here so late at most; its tokens are refused until then. */
const FOLLOW_INTERVAL_MS = 10_000;

/**
 * Keeps `keysDir`/jwks.json as the identity process of another node has it, so that tokens are verified here while that node is down, after a
 * restart too.
 */
export const identityKeyFollower = (client: IdentityClient, keysDir: string): Worker => {
  const file = join(keysDir, "jwks.json");
  let kept: string | undefined;
  let lastReadAt: string | undefined;
  return {
    name: "identity-keys",
    status: () => ({ lastReadAt }),
    work: async () => {
      const text = `${JSON.stringify(await client.publicKeys(), undefined, 2)}\n`;
      if (text !== kept) {
        await mkdir(keysDir, { recursive: true, mode: 0o700 });
        replaceFile(file, text, 0o644);
        kept = text;
      }
      lastReadAt = new Date().toISOString();
      return "idle";
    },
    waitForWork: (signal) => sleep(FOLLOW_INTERVAL_MS, signal),
  };
};
