import { type Static, Type } from "typebox";
import { revocationEvent } from "./core/revocation.ts";

/** The one signature algorithm. Pinned on both sides: a token cannot choose another, or none. */
export const TOKEN_ALGORITHM = "ES256";

/** One access rule of an application credential: service, method, path. */
const accessRuleClaim = Type.Tuple([Type.String(), Type.String(), Type.String()]);

/**
 * What a token carries; names are short because it travels with every request. Additional claims are refused, so that a
 * newer shape is never half understood. The table is in store/FORMAT.md.
 */
export const tokenClaims = Type.Object(
  {
    sub: Type.String(),
    un: Type.String(),
    ud: Type.String(),
    pj: Type.Optional(Type.String()),
    pn: Type.Optional(Type.String()),
    dm: Type.Optional(Type.String()),
    sy: Type.Optional(Type.Literal(1)),
    rl: Type.Array(Type.String()),
    am: Type.Array(Type.String()),
    iat: Type.Number({ minimum: 0 }),
    exp: Type.Number({ minimum: 0 }),
    jti: Type.String(),
    pa: Type.Optional(Type.String()),
    ac: Type.Optional(Type.String()),
    ar: Type.Optional(Type.Array(accessRuleClaim)),
    tr: Type.Optional(Type.String()),
    tu: Type.Optional(Type.Array(Type.String())),
    td: Type.Optional(Type.Array(Type.String())),
    ot: Type.Optional(Type.String()),
    fd: Type.Optional(Type.Tuple([Type.String(), Type.String(), Type.Array(Type.String())])),
  },
  { additionalProperties: false },
);
export type TokenClaims = Static<typeof tokenClaims>;

/** DIR/identity/jwks.json: the public halves of all keys whose tokens may still live. */
export const publicKeySet = Type.Object({
  keys: Type.Array(
    Type.Object({
      kty: Type.Literal("EC"),
      crv: Type.Literal("P-256"),
      x: Type.String(),
      y: Type.String(),
      kid: Type.String({ minLength: 1 }),
      alg: Type.Literal(TOKEN_ALGORITHM),
      use: Type.Literal("sig"),
    }),
    { maxItems: 64 },
  ),
});
export type PublicKeySet = Static<typeof publicKeySet>;

/** `POST /internal/v1-auth`: `user` is `PROJECT:USER` in the domain Default, `key` the password. */
export const v1AuthRequest = Type.Object({
  user: Type.String({ maxLength: 512 }),
  key: Type.String({ maxLength: 4096 }),
  /** The client's, for the limit of failed logins. */
  remoteAddress: Type.Optional(Type.String({ maxLength: 64 })),
});
export const v1AuthResponse = Type.Object({
  token: Type.String(),
  storageUrl: Type.String(),
  expiresInSeconds: Type.Integer(),
});
export type V1AuthResponse = Static<typeof v1AuthResponse>;

/**
 * `GET /internal/ec2/:access`: the secret, and what it gives as the claims of a token: `iat` is when it was looked up, `exp` until when who
 * verifies may go on with it, `jti` the credential's id, which an event names when the credential is changed or removed.
 */
export const ec2Response = Type.Object({ access: Type.String(), secret: Type.String(), claims: tokenClaims });
export type Ec2Response = Static<typeof ec2Response>;

/** What others are told of revocations: those with an id after the one asked for. Core of it: core/revocation.ts. */
export const revocationFeedResponse = Type.Object({
  /** Another one after each start of the identity process: ids begin anew in nobody's memory but its own. */
  instance: Type.String(),
  lastId: Type.Integer({ minimum: 0 }),
  events: Type.Array(revocationEvent),
});
export type RevocationFeedResponse = Static<typeof revocationFeedResponse>;

/** `POST /internal/token-state`: a token as it stands now, after an event that told to look again. */
export const tokenStateRequest = Type.Object({ token: Type.String({ maxLength: 16_384 }) });
export const tokenStateResponse = Type.Object({ claims: tokenClaims });

/** `GET /internal/ready-info`: what the supervisor writes into ready.json about the admin. */
export const readyInfoResponse = Type.Object({
  projectId: Type.String(),
  access: Type.String(),
  secret: Type.String(),
});
export type ReadyInfoResponse = Static<typeof readyInfoResponse>;

/** `POST /internal/service-token`: a service of this installation that keeps things in the object store asks for its own right to do so. */
export const serviceTokenRequest = Type.Object({ service: Type.Literal("block") });
export const serviceTokenResponse = Type.Object({
  token: Type.String(),
  /** Its own: nobody else is a member. */
  projectId: Type.String(),
  expiresInSeconds: Type.Integer(),
});
export type ServiceTokenResponse = Static<typeof serviceTokenResponse>;
