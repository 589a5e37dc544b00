import { type Static, Type } from "typebox";

/** The one signature algorithm. Pinned on both sides: a token cannot choose another, or none. */
export const TOKEN_ALGORITHM = "ES256";

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
    iat: Type.Integer({ minimum: 0 }),
    exp: Type.Integer({ minimum: 0 }),
    jti: Type.String(),
    pa: Type.Optional(Type.String()),
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
});
export const v1AuthResponse = Type.Object({
  token: Type.String(),
  storageUrl: Type.String(),
  expiresInSeconds: Type.Integer(),
});
export type V1AuthResponse = Static<typeof v1AuthResponse>;

/** `GET /internal/ec2/:access`: the secret and on whose behalf it signs. */
export const ec2Response = Type.Object({
  access: Type.String(),
  secret: Type.String(),
  userId: Type.String(),
  userName: Type.String(),
  projectId: Type.String(),
  projectName: Type.String(),
  domainId: Type.String(),
  roles: Type.Array(Type.String()),
});
export type Ec2Response = Static<typeof ec2Response>;

/** `GET /internal/ready-info`: what the supervisor writes into ready.json about the admin. */
export const readyInfoResponse = Type.Object({
  projectId: Type.String(),
  access: Type.String(),
  secret: Type.String(),
});
export type ReadyInfoResponse = Static<typeof readyInfoResponse>;
