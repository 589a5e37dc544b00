import { createPublicKey, type KeyObject, verify as verifySignature } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Compile } from "typebox/compile";
import type { Clock } from "../common/clock.ts";
import { RingsteadError } from "../common/errors.ts";
import type { RevocationList } from "./core/revocation.ts";
import { derOfSignature, hasLowS } from "./token-signature.ts";
import { publicKeySet, TOKEN_ALGORITHM, type TokenClaims, tokenClaims } from "./wire.ts";

/** Verified tokens kept: up to twice this, about 1 KiB each. */
const CACHE_GENERATION_COUNT = 16_384;
/** A token of an unknown key makes the key file be read again, at most this often. */
const KEY_RELOAD_MS = 1_000;
/** Longer strings are no tokens of ours and are refused before any work. */
export const TOKEN_MAX_CHARACTERS = 8_192;
/**
 * Three base64url parts of which the last is 64 bytes: 86 characters, the last one with its four unused bits zero.
 * Decoders ignore those bits, so without this a token altered in its last character would pass.
 */
const TOKEN = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{85}[AQgw]$/;
const SIGNATURE_CHARACTERS = 86;

/** One access rule of an application credential. */
export type AccessRuleText = { readonly service: string; readonly method: string; readonly path: string };

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
  readonly applicationCredentialId: string | undefined;
  /** What an application credential with access rules may be used for; undefined: everything. */
  readonly accessRules: readonly AccessRuleText[] | undefined;
  readonly trustId: string | undefined;
  /** Of a trust's token: everyone who handed the right on or was given it, and their domains. */
  readonly partyUserIds: readonly string[];
  readonly partyDomainIds: readonly string[];
  /** Of OAuth 1.0a. */
  readonly accessTokenId: string | undefined;
  /** The provider that vouched for a federated user, and the groups it mapped to. */
  readonly federation:
    | { readonly idpId: string; readonly protocolId: string; readonly groupIds: readonly string[] }
    | undefined;
};

/** What has happened to tokens since they were issued. */
export type RevocationSource = {
  readonly list: RevocationList;
  /** Throws RingsteadError `identity-unavailable` where too long nothing was heard. */
  assertFresh(): void;
  /**
   * The token as the identity service sees it now. Throws, or rejects with, RingsteadError `unauthorized` where it has no right left, and
   * `identity-unavailable`. Undefined in the identity service itself, which looks everything up for each answer.
   */
  readonly recheck: ((token: string) => Promise<TokenContext>) | undefined;
};

export type TokenVerifier = {
  /**
   * The context of a valid token; at once when it was seen before, without a promise. Throws, or rejects with,
   * RingsteadError `unauthorized` for anything else. `expiredForMs`: so long ago its end may lie, for an operation that a service began in
   * time and that takes longer than a token lives.
   */
  verify(token: string, expiredForMs?: number): TokenContext | Promise<TokenContext>;
};

export type TokenVerifierOptions = {
  /** The folder that holds `jwks.json`: `runtimePaths(DIR).identityDir`. */
  readonly keysDir: string;
  readonly clock: Clock;
  readonly revocations: RevocationSource;
};

export const refuseToken = (reason: string): RingsteadError =>
  new RingsteadError("unauthorized", "The request you have made requires authentication.", { reason });

const claimsCheck = Compile(tokenClaims);
const keySetCheck = Compile(publicKeySet);

/** The protected header of tokens signed with the key `kid`, as it stands in them: a token with any other is refused. */
export const headerText = (kid: string): string =>
  Buffer.from(JSON.stringify({ alg: TOKEN_ALGORITHM, kid })).toString("base64url");

export const contextOf = (claims: TokenClaims): TokenContext => ({
  userId: claims.sub,
  userName: claims.un,
  userDomainId: claims.ud,
  projectId: claims.pj,
  projectName: claims.pn,
  domainId: claims.dm,
  roles: claims.rl,
  system: claims.sy === 1,
  issuedAtMs: Math.round(claims.iat * 1000),
  expiresAtMs: Math.round(claims.exp * 1000),
  methods: claims.am,
  auditId: claims.jti,
  parentAuditId: claims.pa,
  applicationCredentialId: claims.ac,
  accessRules: claims.ar?.map(([service, method, path]) => ({ service, method, path })),
  trustId: claims.tr,
  partyUserIds: claims.tu ?? [],
  partyDomainIds: claims.td ?? [],
  accessTokenId: claims.ot,
  federation: claims.fd && { idpId: claims.fd[0], protocolId: claims.fd[1], groupIds: claims.fd[2] },
});

type KeyRing = {
  /** By the text of a token's header. */
  known(header: string): KeyObject | undefined;
  find(header: string): Promise<KeyObject | undefined>;
};

/** The public keys, read again when an unknown one is asked for: that is how a rotation reaches this process. */
const createKeyRing = (file: string, clock: Clock): KeyRing => {
  let keys = new Map<string, KeyObject>();
  let readAtMs = Number.NEGATIVE_INFINITY;
  let reading: Promise<void> | undefined;

  const read = async (): Promise<void> => {
    const set: unknown = JSON.parse(await readFile(file, "utf8"));
    if (!keySetCheck.Check(set)) throw new Error(`${file} is no set of public keys`);
    keys = new Map(set.keys.map((key) => [headerText(key.kid), createPublicKey({ key, format: "jwk" })]));
  };

  return {
    known: (header) => keys.get(header),
    find: async (header) => {
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
      return keys.get(header);
    },
  };
};

/** The context of a token whose signature `key` made. Throws RingsteadError `unauthorized`. */
const opened = (token: string, headerEnd: number, key: KeyObject): TokenContext => {
  const claimsEnd = token.length - SIGNATURE_CHARACTERS - 1;
  const signature = Buffer.from(token.slice(claimsEnd + 1), "base64url");
  if (!hasLowS(signature)) throw refuseToken("another form of a signature");
  const signed = Buffer.from(token.slice(0, claimsEnd), "latin1");
  if (!verifySignature("sha256", signed, key, derOfSignature(signature))) throw refuseToken("wrong signature");
  const claims: unknown = JSON.parse(Buffer.from(token.slice(headerEnd + 1, claimsEnd), "base64url").toString("utf8"));
  if (!claimsCheck.Check(claims)) throw refuseToken("unknown shape of token");
  return contextOf(claims);
};

/** `checkedAt`: the revocations' sequence at which the token was found valid last. */
type Entry = { context: TokenContext; checkedAt: number };

/**
 * Verifies tokens without asking anyone. A hit is one look-up by the token's text in two generations of a bounded cache
 * (a cheap LRU without bookkeeping per hit), a comparison of its expiry and one of the revocations' sequence; a miss is one ES256
 * verification in this turn. The identity service is asked only about a token that something happened to.
 */
export const createTokenVerifier = ({ keysDir, clock, revocations }: TokenVerifierOptions): TokenVerifier => {
  const keyRing = createKeyRing(join(keysDir, "jwks.json"), clock);
  let young = new Map<string, Entry>();
  let old = new Map<string, Entry>();

  const remember = (token: string, entry: Entry): void => {
    if (young.size >= CACHE_GENERATION_COUNT) {
      old = young;
      young = new Map();
    }
    young.set(token, entry);
  };

  const recheck = async (token: string, ask: (token: string) => Promise<TokenContext>): Promise<TokenContext> => {
    const checkedAt = revocations.list.sequence;
    const context = await ask(token);
    remember(token, { context, checkedAt });
    return context;
  };

  /** Requires: the signature holds. */
  const judged = (token: string, entry: Entry, expiredForMs: number): TokenContext | Promise<TokenContext> => {
    const { context } = entry;
    if (context.expiresAtMs + expiredForMs <= clock.nowMs()) {
      throw refuseToken("expired");
    }
    revocations.assertFresh();
    const { list } = revocations;
    if (entry.checkedAt === list.sequence) return context;
    const verdict = list.judge(context, entry.checkedAt);
    if (verdict === "recheck" && revocations.recheck !== undefined) return recheck(token, revocations.recheck);
    if (verdict === "revoked") {
      young.delete(token);
      old.delete(token);
      throw refuseToken("revoked");
    }
    entry.checkedAt = list.sequence;
    return context;
  };

  const first = (
    token: string,
    headerEnd: number,
    key: KeyObject,
    expiredForMs: number,
  ): TokenContext | Promise<TokenContext> => {
    const entry: Entry = { context: opened(token, headerEnd, key), checkedAt: 0 };
    const context = judged(token, entry, expiredForMs);
    if (!(context instanceof Promise)) remember(token, entry);
    return context;
  };

  return {
    verify: (token, expiredForMs = 0) => {
      let entry = young.get(token);
      if (entry === undefined) {
        entry = old.get(token);
        if (entry !== undefined) remember(token, entry);
      }
      if (entry !== undefined) return judged(token, entry, expiredForMs);
      if (token.length > TOKEN_MAX_CHARACTERS || !TOKEN.test(token)) throw refuseToken("not a token");
      const headerEnd = token.indexOf(".");
      const header = token.slice(0, headerEnd);
      const key = keyRing.known(header);
      if (key !== undefined) return first(token, headerEnd, key, expiredForMs);
      return keyRing.find(header).then((found) => {
        if (found === undefined) throw refuseToken("unknown key");
        return first(token, headerEnd, found, expiredForMs);
      });
    },
  };
};
