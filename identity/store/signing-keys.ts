import { createPrivateKey, generateKeyPairSync, type KeyObject, randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { chmod, mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Static, Type } from "typebox";
import { Value } from "typebox/value";
import type { Clock } from "../../common/clock.ts";
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

const KEY_FILE = /^(\d{13})-[0-9a-f]{8}\.json$/;
/** A new key is published for this long before it signs, so that verifiers on other nodes, which ask every 10 s, know it by then. */
const PUBLISHED_BEFORE_MS = 15_000;

export type SigningKey = { readonly kid: string; readonly key: KeyObject };

/** The keys that tokens are, or lately were, signed with. */
export type SigningKeys = {
  /** The key that signs now. */
  current(): SigningKey;
  /** Makes and publishes a key, which signs 15 s later. On the disk when it returns. Its id. */
  rotate(): string;
  /** Removes keys whose tokens have all ended. How many went. */
  retire(tokensLiveMs: number): number;
};

type StoredKey = SigningKey & { readonly file: string; readonly createdAtMs: number; readonly jwk: PrivateKey };

const stored = (file: string, jwk: PrivateKey): StoredKey => ({
  file,
  jwk,
  kid: jwk.kid,
  createdAtMs: Number(KEY_FILE.exec(file)?.[1]),
  key: createPrivateKey({ key: jwk, format: "jwk" }),
});

const makeKey = (paths: IdentityPaths, nowMs: number): StoredKey => {
  const kid = randomBytes(4).toString("hex");
  const jwk = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" });
  const file = `${String(nowMs).padStart(13, "0")}-${kid}.json`;
  const whole = { ...jwk, kid };
  if (!Value.Check(privateKey, whole)) throw new RingsteadError("bad-key-file", "no key could be made");
  replaceFile(join(paths.keysDir, file), `${JSON.stringify(whole)}\n`, 0o600);
  return stored(file, whole);
};

const readKeys = async (paths: IdentityPaths): Promise<StoredKey[]> => {
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
      return stored(name, value);
    }),
  );
};

/** Reads the keys; one is made when there is none. Writes jwks.json with the public halves of all keys. */
export const openSigningKeys = async (paths: IdentityPaths, clock: Clock): Promise<SigningKeys> => {
  await mkdir(paths.keysDir, { recursive: true, mode: 0o700 });
  await chmod(paths.keysDir, 0o700);
  let keys = await readKeys(paths);

  const publish = (next: StoredKey[]): void => {
    keys = next;
    const set: PublicKeySet = {
      keys: keys.map(({ jwk: { kty, crv, x, y, kid } }) => ({ kty, crv, x, y, kid, alg: TOKEN_ALGORITHM, use: "sig" })),
    };
    replaceFile(paths.publicKeys, `${JSON.stringify(set, null, 2)}\n`, 0o644);
  };
  publish(keys.length === 0 ? [makeKey(paths, clock.nowMs())] : keys);

  const current = (): StoredKey => {
    const readyMs = clock.nowMs() - PUBLISHED_BEFORE_MS;
    const ready = keys.findLast(({ createdAtMs }) => createdAtMs <= readyMs) ?? keys[0];
    if (ready === undefined) throw new RingsteadError("bad-key-file", `${paths.keysDir} holds no usable key`);
    return ready;
  };

  return {
    current,
    rotate: () => {
      // Names sort in the order in which keys were made, also where the clock was set back.
      const nowMs = Math.max(clock.nowMs(), (keys.at(-1)?.createdAtMs ?? 0) + 1);
      const made = makeKey(paths, nowMs);
      publish([...keys, made]);
      return made.kid;
    },
    retire: (tokensLiveMs) => {
      const nowMs = clock.nowMs();
      const isOver = (index: number): boolean => {
        const successor = keys[index + 1];
        return successor !== undefined && successor.createdAtMs + PUBLISHED_BEFORE_MS + tokensLiveMs < nowMs;
      };
      const living = keys.filter((_key, index) => !isOver(index));
      const gone = keys.filter((key) => !living.includes(key));
      if (gone.length > 0) publish(living);
      for (const { file } of gone) rmSync(join(paths.keysDir, file));
      return gone.length;
    },
  };
};
