import { createPrivateKey, generateKeyPairSync, type KeyObject, randomBytes } from "node:crypto";
import { chmod, mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Static, Type } from "typebox";
import { Value } from "typebox/value";
import { RingsteadError } from "../../common/errors.ts";
import { replaceFile } from "../../common/replace-file.ts";
import { type PublicKeySet, TOKEN_ALGORITHM } from "../wire.ts";
import type { IdentityPaths } from "./paths.ts";

const privateKey = Type.Object({
  kty: Type.Literal("EC"),
  crv: Type.Literal("P-256"),
  x: Type.String(),
  y: Type.String(),
  d: Type.String(),
  kid: Type.String({ minLength: 1 }),
});
type PrivateKey = Static<typeof privateKey>;

const KEY_FILE = /^\d{13}-[0-9a-f]{8}\.json$/;

export type SigningKey = { readonly kid: string; readonly key: KeyObject };

const makeKey = (paths: IdentityPaths, nowMs: number): void => {
  const kid = randomBytes(4).toString("hex");
  const jwk = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" });
  const name = `${String(nowMs).padStart(13, "0")}-${kid}.json`;
  replaceFile(join(paths.keysDir, name), `${JSON.stringify({ ...jwk, kid })}\n`, 0o600);
};

const readKeys = async (paths: IdentityPaths): Promise<PrivateKey[]> => {
  const names = (await readdir(paths.keysDir)).filter((name) => KEY_FILE.test(name)).toSorted();
  return Promise.all(
    names.map(async (name) => {
      const path = join(paths.keysDir, name);
      let value: unknown;
      try {
        value = JSON.parse(await readFile(path, "utf8"));
      } catch {
        value = undefined;
      }
      // A new key in its place would silently end every live session; the operator decides.
      if (!Value.Check(privateKey, value)) throw new RingsteadError("bad-key-file", `${path} is not a key`, { path });
      return value;
    }),
  );
};

/** The key that signs; made when there is none. Writes jwks.json with the public halves of all keys. */
export const openSigningKeys = async (paths: IdentityPaths, nowMs: number): Promise<SigningKey> => {
  await mkdir(paths.keysDir, { recursive: true, mode: 0o700 });
  await chmod(paths.keysDir, 0o700);
  let keys = await readKeys(paths);
  if (keys.length === 0) {
    makeKey(paths, nowMs);
    keys = await readKeys(paths);
  }
  const set: PublicKeySet = {
    keys: keys.map(({ kty, crv, x, y, kid }) => ({ kty, crv, x, y, kid, alg: TOKEN_ALGORITHM, use: "sig" })),
  };
  replaceFile(paths.publicKeys, `${JSON.stringify(set, null, 2)}\n`, 0o644);
  const newest = keys.at(-1);
  if (newest === undefined) {
    throw new RingsteadError("bad-key-file", `${paths.keysDir} holds no usable key`, { path: paths.keysDir });
  }
  return { kid: newest.kid, key: createPrivateKey({ key: newest, format: "jwk" }) };
};
