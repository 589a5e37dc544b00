import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { Type } from "typebox";
import { Compile } from "typebox/compile";
import { findDomain } from "./authentication/references.ts";
import { missingFactors } from "./core/factors.ts";
import { identityError, unauthorized } from "./core/identity-error.ts";
import type { RevocationList } from "./core/revocation.ts";
import type { Reader } from "./store/assignments.ts";
import type { Changes } from "./store/changes.ts";
import type { DirectoryUser } from "./store/directory.ts";
import type { SigningKey } from "./store/signing-keys.ts";
import { publicKeySet, TOKEN_ALGORITHM } from "./wire.ts";

/** Time to bring the other factor. */
const LIFETIME_MS = 300_000;
const RECEIPT_MAX = 4_096;
/** In the header: no token has one, so that neither can be taken for the other. */
const RECEIPT_TYPE = "auth-receipt+jwt";

/**
 * Methods that a receipt remembers. Not those that limit what they give (an application credential, a token): the login that a receipt
 * completes would know nothing of the limit.
 */
const REMEMBERED: ReadonlySet<string> = new Set(["password", "totp", "openid", "mapped"]);

/** Loaded when a login lacks a factor for the first time: it costs a process 5 MB. */
const jose = () => import("jose");

const keySetCheck = Compile(publicKeySet);
const claimsCheck = Compile(
  Type.Object({
    sub: Type.String(),
    am: Type.Array(Type.String()),
    iat: Type.Number(),
    exp: Type.Number(),
    jti: Type.String(),
  }),
);

export type FactorOptions = Reader & {
  readonly changes: Pick<Changes, "issueTimeMs">;
  readonly clock: { nowMs(): number };
  signingKey(): SigningKey;
  /** jwks.json. */
  readonly publicKeysFile: string;
  readonly revocations: Pick<RevocationList, "judge">;
  /** Names of all methods. */
  readonly offered: ReadonlySet<string>;
};

/** What a login lacks, for the answer that asks for it. */
export type MissingFactors = {
  readonly receipt: string;
  readonly methods: readonly string[];
  readonly user: { readonly id: string; readonly name: string; readonly domain: { id: string; name: string } };
  readonly issuedAtMs: number;
  readonly expiresAtMs: number;
  readonly required: readonly (readonly string[])[];
};

/**
 * The check of multi-factor rules. Answers the methods that count, those of the receipt among them. Throws `unauthorized`, where more is
 * asked for with the field `missing`: MissingFactors.
 */
export type FactorCheck = (
  user: DirectoryUser,
  methods: readonly string[],
  receipt: string | undefined,
) => Promise<readonly string[]>;

export const createFactorCheck = (options: FactorOptions): FactorCheck => {
  const { clock, revocations } = options;

  const claimsOf = async (receipt: string) => {
    try {
      const set: unknown = JSON.parse(await readFile(options.publicKeysFile, "utf8"));
      if (receipt.length > RECEIPT_MAX || !keySetCheck.Check(set)) return undefined;
      const { createLocalJWKSet, jwtVerify } = await jose();
      const { payload } = await jwtVerify(receipt, createLocalJWKSet(set), {
        algorithms: [TOKEN_ALGORITHM],
        typ: RECEIPT_TYPE,
        currentDate: new Date(clock.nowMs()),
      });
      return claimsCheck.Check(payload) ? payload : undefined;
    } catch {
      return undefined;
    }
  };

  /** A receipt ends with what it was given for: a changed password, a user who was disabled. */
  const methodsOfReceipt = async (receipt: string, user: DirectoryUser): Promise<readonly string[]> => {
    const claims = await claimsOf(receipt);
    const verdict =
      claims &&
      revocations.judge(
        {
          auditId: claims.jti,
          parentAuditId: undefined,
          userId: user.id,
          userDomainId: user.domainId,
          projectId: undefined,
          domainId: undefined,
          trustId: undefined,
          partyUserIds: [],
          partyDomainIds: [],
          applicationCredentialId: undefined,
          accessTokenId: undefined,
          issuedAtMs: Math.round(claims.iat * 1000),
        },
        0,
      );
    if (claims?.sub !== user.id || verdict === "revoked") {
      throw identityError("unauthorized", "Could not find auth receipt.", { reason: "receipt does not hold" });
    }
    return claims.am;
  };

  const missing = async (
    user: DirectoryUser,
    methods: readonly string[],
    required: MissingFactors["required"],
  ): Promise<MissingFactors> => {
    const issuedAtMs = options.changes.issueTimeMs();
    const expiresAtMs = clock.nowMs() + LIFETIME_MS;
    const { kid, key } = options.signingKey();
    const claims = {
      sub: user.id,
      am: [...methods],
      iat: issuedAtMs / 1000,
      exp: expiresAtMs / 1000,
      jti: randomUUID(),
    };
    const { SignJWT } = await jose();
    const receipt = await new SignJWT(claims)
      .setProtectedHeader({ alg: TOKEN_ALGORITHM, kid, typ: RECEIPT_TYPE })
      .sign(key);
    const domain = await findDomain(options, { id: user.domainId });
    // Who can never get a token gets no receipt either.
    if (!user.enabled || domain?.enabled !== 1) throw unauthorized("user or domain is disabled");
    const shown = { id: user.id, name: user.name, domain: { id: domain.id, name: domain.name } };
    return { receipt, methods, user: shown, issuedAtMs, expiresAtMs, required };
  };

  return async (user, methods, receipt) => {
    const earlier = receipt === undefined ? [] : await methodsOfReceipt(receipt, user);
    const all = [...new Set([...earlier, ...methods])];
    if (missingFactors(user.options, all, options.offered) === undefined) return all;
    const remembered = all.filter((method) => REMEMBERED.has(method));
    if (remembered.length === 0) throw unauthorized(`methods ${all.join(", ")} are not enough`);
    throw identityError("unauthorized", "Additional authentications steps required.", {
      reason: `methods ${all.join(", ")} are not enough`,
      missing: await missing(user, remembered, missingFactors(user.options, remembered, options.offered) ?? []),
    });
  };
};
