import { type Static, Type } from "typebox";

/**
 * Something that happened to tokens which are under way. All members that are given must fit a token. `revoke`: such a token is void.
 * `recheck`: what it says may have changed (a role, a project's state); whoever verifies asks the identity service once, and a token whose
 * user still has a right goes on with the right that is left.
 */
export const revocationEvent = Type.Object(
  {
    kind: Type.Union([Type.Literal("revoke"), Type.Literal("recheck")]),
    auditId: Type.Optional(Type.String()),
    /** The first token of a chain; fits that one too. */
    auditChainId: Type.Optional(Type.String()),
    /** The token's user, or a party to its trust. */
    userId: Type.Optional(Type.String()),
    /** The project of the token's scope. */
    projectId: Type.Optional(Type.String()),
    /** The domain of the token's scope, of its project, of its user, or of a party to its trust. */
    domainId: Type.Optional(Type.String()),
    trustId: Type.Optional(Type.String()),
    applicationCredentialId: Type.Optional(Type.String()),
    accessTokenId: Type.Optional(Type.String()),
    /** Tokens issued later do not fit. */
    issuedBeforeMs: Type.Integer({ minimum: 0 }),
  },
  { additionalProperties: false },
);
export type RevocationEvent = Static<typeof revocationEvent>;

/** What of a token events look at. */
export type RevocableToken = {
  readonly auditId: string;
  readonly parentAuditId: string | undefined;
  readonly userId: string;
  readonly userDomainId: string;
  readonly projectId: string | undefined;
  readonly domainId: string | undefined;
  readonly trustId: string | undefined;
  readonly partyUserIds: readonly string[];
  readonly partyDomainIds: readonly string[];
  readonly applicationCredentialId: string | undefined;
  readonly accessTokenId: string | undefined;
  readonly issuedAtMs: number;
};

const fits = (event: RevocationEvent, token: RevocableToken): boolean =>
  token.issuedAtMs <= event.issuedBeforeMs &&
  (event.auditId === undefined || event.auditId === token.auditId) &&
  (event.auditChainId === undefined ||
    event.auditChainId === token.parentAuditId ||
    event.auditChainId === token.auditId) &&
  (event.userId === undefined || event.userId === token.userId || token.partyUserIds.includes(event.userId)) &&
  (event.projectId === undefined || event.projectId === token.projectId) &&
  (event.domainId === undefined ||
    event.domainId === token.domainId ||
    event.domainId === token.userDomainId ||
    token.partyDomainIds.includes(event.domainId)) &&
  (event.trustId === undefined || event.trustId === token.trustId) &&
  (event.applicationCredentialId === undefined || event.applicationCredentialId === token.applicationCredentialId) &&
  (event.accessTokenId === undefined || event.accessTokenId === token.accessTokenId);

/** An event under the most telling of its members, so that a token is compared with few. */
const indexKey = (event: RevocationEvent): string => {
  if (event.auditId !== undefined) return `a${event.auditId}`;
  if (event.auditChainId !== undefined) return `a${event.auditChainId}`;
  if (event.applicationCredentialId !== undefined) return `c${event.applicationCredentialId}`;
  if (event.trustId !== undefined) return `t${event.trustId}`;
  if (event.accessTokenId !== undefined) return `o${event.accessTokenId}`;
  if (event.userId !== undefined) return `u${event.userId}`;
  if (event.projectId !== undefined) return `p${event.projectId}`;
  if (event.domainId !== undefined) return `d${event.domainId}`;
  return "*";
};

type Entry = { readonly event: RevocationEvent; readonly sequence: number };

export type RevocationVerdict = "valid" | "revoked" | "recheck";

/**
 * The events that may concern living tokens. A token costs one comparison while nothing new is known, else a few look-ups.
 * Memory: an event is kept for `retentionMs` after the last token that it could fit was issued.
 */
export class RevocationList {
  readonly #byKey = new Map<string, Entry[]>();
  readonly #retentionMs: number;
  #count = 0;
  #sequence = 0;

  /** `retentionMs`: how long a token lives at most. */
  constructor(retentionMs: number) {
    this.#retentionMs = retentionMs;
  }

  /** Grows with each event that is added; a token that was judged at this number needs no other judgement. */
  get sequence(): number {
    return this.#sequence;
  }

  get count(): number {
    return this.#count;
  }

  add(event: RevocationEvent): void {
    this.#sequence += 1;
    const entry = { event, sequence: this.#sequence };
    const key = indexKey(event);
    const entries = this.#byKey.get(key);
    if (entries === undefined) {
      this.#byKey.set(key, [entry]);
      this.#count += 1;
      return;
    }
    // The newer of two that say the same says all.
    const known = entries.findIndex((other) => covers(event, other.event));
    if (known === -1) {
      entries.push(entry);
      this.#count += 1;
    } else entries[known] = entry;
  }

  /** `since`: the sequence at which the token was found valid last, 0 for never. */
  judge(token: RevocableToken, since: number): RevocationVerdict {
    if (since === this.#sequence) return "valid";
    let verdict: RevocationVerdict = "valid";
    for (const key of keysOf(token)) {
      const entries = this.#byKey.get(key);
      if (entries === undefined) continue;
      for (const { event, sequence } of entries) {
        if (sequence <= since || !fits(event, token)) continue;
        if (event.kind === "revoke") return "revoked";
        verdict = "recheck";
      }
    }
    return verdict;
  }

  /** Forgets what no living token can fit any more. */
  prune(nowMs: number): void {
    for (const [key, entries] of this.#byKey) {
      const living = entries.filter(({ event }) => event.issuedBeforeMs + this.#retentionMs > nowMs);
      this.#count -= entries.length - living.length;
      if (living.length === 0) this.#byKey.delete(key);
      else if (living.length < entries.length) this.#byKey.set(key, living);
    }
  }
}

const keysOf = (token: RevocableToken): string[] => {
  const keys = ["*", `a${token.auditId}`, `u${token.userId}`, `d${token.userDomainId}`];
  if (token.parentAuditId !== undefined) keys.push(`a${token.parentAuditId}`);
  if (token.projectId !== undefined) keys.push(`p${token.projectId}`);
  if (token.domainId !== undefined && token.domainId !== token.userDomainId) keys.push(`d${token.domainId}`);
  if (token.trustId !== undefined) keys.push(`t${token.trustId}`);
  for (const id of token.partyUserIds) keys.push(`u${id}`);
  for (const id of token.partyDomainIds) keys.push(`d${id}`);
  if (token.applicationCredentialId !== undefined) keys.push(`c${token.applicationCredentialId}`);
  if (token.accessTokenId !== undefined) keys.push(`o${token.accessTokenId}`);
  return keys;
};

const MEMBERS = [
  "auditId",
  "auditChainId",
  "userId",
  "projectId",
  "domainId",
  "trustId",
  "applicationCredentialId",
  "accessTokenId",
] as const;

/** Whether `event` fits every token that `other` fits, with the same effect. */
const covers = (event: RevocationEvent, other: RevocationEvent): boolean =>
  event.kind === other.kind &&
  event.issuedBeforeMs >= other.issuedBeforeMs &&
  MEMBERS.every((member) => event[member] === other[member]);
