import { mkdir } from "node:fs/promises";
import { request as httpRequest } from "node:http";
import { join } from "node:path";
import type { Static, TSchema } from "typebox";
import { Compile } from "typebox/compile";
import { codeOf, RingsteadError } from "../common/errors.ts";
import { replaceFile } from "../common/replace-file.ts";
import type { RpcClient } from "../common/rpc/client.ts";
import { sleep, type Worker } from "../common/worker.ts";
import { contextOf, refuseToken, type TokenContext } from "./token-verifier.ts";
import {
  type Ec2Response,
  ec2Response,
  type PublicKeySet,
  publicKeySet,
  type ReadyInfoResponse,
  readyInfoResponse,
  type RevocationFeedResponse,
  revocationFeedResponse,
  type ServiceTokenResponse,
  serviceTokenResponse,
  tokenStateResponse,
  type V1AuthResponse,
  v1AuthResponse,
} from "./wire.ts";

/** A login waits for its turn, and the revocations for news. */
const REQUEST_TIMEOUT_MS = 30_000;
/** One row is read: who takes longer hangs, and a client of S3 is told to come again. */
const ACCESS_KEY_TIMEOUT_MS = 3000;
const ANSWER_MAX_BYTES = 1024 * 1024;
/** How long a login waits for an identity process that is not there. */
const ABSENT_PATIENCE_MS = 3000;
const ABSENT_POLL_MS = 100;
const ABSENT_CAUSES: ReadonlySet<string> = new Set(["ENOENT", "ECONNREFUSED", "rpc-unsent", "rpc-unreachable"]);

/** Calls to the identity process. */
export type IdentityClient = {
  /** Throws RingsteadError `unauthorized`, `too-busy`, or `identity-unavailable`. */
  v1Auth(user: string, key: string, remoteAddress?: string): Promise<V1AuthResponse>;
  /** Undefined for an access key that is unknown or gives nothing. `AccessKeys` remembers. Throws RingsteadError `identity-unavailable`, `too-busy`. */
  ec2(access: string): Promise<Ec2Response | undefined>;
  readyInfo(): Promise<ReadyInfoResponse>;
  /** The public halves of all keys whose tokens may still live. Throws RingsteadError `identity-unavailable`. */
  publicKeys(): Promise<PublicKeySet>;
  /**
   * What happened to tokens after the event `after` of the identity process `instance`; all that may still matter where that process is
   * another one. Resolves when there is something, and with nothing after some 10 s. Throws RingsteadError `identity-unavailable`.
   */
  revocations(instance: string, after: number): Promise<RevocationFeedResponse>;
  /** A token as it stands now. Throws RingsteadError `unauthorized` where it has no right left, `identity-unavailable`. */
  tokenState(token: string): Promise<TokenContext>;
  /** The right of a service to its own project's account in the object store. Throws RingsteadError `identity-unavailable`. */
  serviceToken(service: "block"): Promise<ServiceTokenResponse>;
};

type Answer = { readonly status: number; readonly text: string };

/** How an internal operation is asked for; `body` is JSON. Throws RingsteadError `identity-unavailable`. */
type Ask = (method: "GET" | "POST", path: string, body?: Uint8Array, timeoutMs?: number) => Promise<Answer>;

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
  timeoutMs = REQUEST_TIMEOUT_MS,
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
    outgoing.setTimeout(timeoutMs, () => outgoing.destroy(new Error("timed out")));
    outgoing.on("error", unavailable);
    outgoing.end(body);
  });

/** The same over the connection to another node. */
const askPeer =
  (rpc: RpcClient): Ask =>
  (method, path, body, timeoutMs = REQUEST_TIMEOUT_MS) =>
    new Promise((resolve, reject) => {
      rpc.call([method, path], body, timeoutMs, (error, [status], bytes) => {
        if (error === undefined) resolve({ status: Number(status), text: bytes.toString("utf8") });
        else reject(silent(error));
      });
    });

const decode = <Schema extends TSchema>(schema: Schema, { status, text }: Answer): Static<Schema> => {
  if (status === 401) throw refuseToken("refused by the identity service");
  if (status === 503) throw new RingsteadError("too-busy", "The identity service has too many logins under way.");
  if (status === 429) throw new RingsteadError("too-busy", "Too many failed logins. Try again in a minute.");
  const value: unknown = status === 200 ? JSON.parse(text) : undefined;
  const check = Compile(schema);
  if (check.Check(value)) return value as Static<Schema>;
  throw new RingsteadError("identity-unavailable", `the identity service answered ${status}`, { status });
};

/** Only characters that `api/peer-server.ts` lets through, and no dots that lead elsewhere. */
const pathSegment = (text: string): string =>
  encodeURIComponent(text).replaceAll(
    /[!'()*.]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );

/** Asks again where nobody listens: a process that starts, or is started again, is there within a second or two. */
const patiently =
  (ask: Ask): Ask =>
  async (method, path, body) => {
    const deadlineMs = performance.now() + ABSENT_PATIENCE_MS;
    for (;;) {
      try {
        return await ask(method, path, body);
      } catch (error) {
        const isAbsent = error instanceof RingsteadError && ABSENT_CAUSES.has(String(error.fields.cause));
        if (!isAbsent || performance.now() >= deadlineMs) throw error;
        await sleep(ABSENT_POLL_MS);
      }
    }
  };

const clientOver = (ask: Ask): IdentityClient => ({
  v1Auth: async (user, key, remoteAddress) => {
    const asked = Buffer.from(JSON.stringify({ user, key, remoteAddress }));
    return decode(v1AuthResponse, await patiently(ask)("POST", "/internal/v1-auth", asked));
  },
  ec2: async (access) => {
    const answer = await ask("GET", `/internal/ec2/${pathSegment(access)}`, undefined, ACCESS_KEY_TIMEOUT_MS);
    return answer.status === 404 ? undefined : decode(ec2Response, answer);
  },
  readyInfo: async () => decode(readyInfoResponse, await ask("GET", "/internal/ready-info")),
  publicKeys: async () => decode(publicKeySet, await ask("GET", "/internal/public-keys")),
  revocations: async (instance, after) =>
    decode(revocationFeedResponse, await ask("GET", `/internal/revocations/${encodeURIComponent(instance)}/${after}`)),
  tokenState: async (token) => {
    const asked = Buffer.from(JSON.stringify({ token }));
    return contextOf(decode(tokenStateResponse, await ask("POST", "/internal/token-state", asked)).claims);
  },
  serviceToken: async (service) => {
    const asked = Buffer.from(JSON.stringify({ service }));
    return decode(serviceTokenResponse, await ask("POST", "/internal/service-token", asked));
  },
});

/** Asks the identity process of this node. `socketPath`: `runtimePaths(DIR).socket("control")`. */
export const createIdentityClient = (socketPath: string): IdentityClient =>
  clientOver((...asked) => askSocket(socketPath, ...asked));

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

export type { TokenContext, TokenVerifier } from "./token-verifier.ts";
export { createTokenVerifier } from "./token-verifier.ts";
export type { AccessKeys } from "./access-keys/access-keys.ts";
export { openAccessKeys } from "./access-keys/access-keys.ts";
export { createRevocationFollower } from "./revocation-follower.ts";
export { isAllowedByRules } from "./core/access-rules.ts";
