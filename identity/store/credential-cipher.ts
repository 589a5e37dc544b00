import { createCipheriv, createDecipheriv, createHash, randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { codeOf, RingsteadError } from "../../common/errors.ts";
import { replaceFile } from "../../common/replace-file.ts";

/** Layout in FORMAT.md: version, key id, nonce, ciphertext, tag. Version 1 has no key id. */
const VERSION = 2;
const VERSION_WITHOUT_KEY_ID = 1;
const KEY_ID_BYTES = 4;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const KEY_BYTES = 32;
const KEY_LINE = /^[0-9a-f]{64}$/;
/** A rotation that was killed leaves one key more than it found; the next one takes all but its own away. */
const KEYS_MAX = 16;

export type CredentialCipher = {
  /** `id` is bound to the bytes: one credential's blob does not open as another's. */
  seal(id: string, text: string): Uint8Array;
  /** Throws RingsteadError `bad-credential` for bytes that none of the keys sealed with this id. */
  open(id: string, blob: Uint8Array): string;
};

/** A cipher whose keys are in a file. */
export type StoredCipher = CredentialCipher & {
  /** Seals with a new key from now on; the old ones still open. On the disk when it returns. */
  addKey(): void;
  /**
   * Forgets all keys but the newest and the one before it, which a backup of the database may still need. Requires: everything that was sealed
   * is sealed with the newest.
   */
  dropOldKeys(): void;
};

const keyId = (key: Buffer): Buffer => createHash("sha256").update(key).digest().subarray(0, KEY_ID_BYTES);

const decrypted = (id: string, key: Buffer, sealed: Buffer): string => {
  const nonce = sealed.subarray(0, NONCE_BYTES);
  const decipher = createDecipheriv("aes-256-gcm", key, nonce, { authTagLength: TAG_BYTES })
    .setAAD(Buffer.from(id))
    .setAuthTag(sealed.subarray(-TAG_BYTES));
  return decipher.update(sealed.subarray(NONCE_BYTES, -TAG_BYTES), undefined, "utf8") + decipher.final("utf8");
};

/** AES-256-GCM under the last of `keys()`, which are 32 bytes each. */
export const createCredentialCipher = (keys: () => readonly Buffer[]): CredentialCipher => ({
  seal: (id, text) => {
    const key = keys().at(-1) ?? Buffer.alloc(0);
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv("aes-256-gcm", key, nonce).setAAD(Buffer.from(id));
    const sealed = Buffer.concat([cipher.update(text, "utf8"), cipher.final()]);
    return Buffer.concat([Buffer.from([VERSION]), keyId(key), nonce, sealed, cipher.getAuthTag()]);
  },
  open: (id, blob) => {
    const bytes = Buffer.from(blob);
    const hasKeyId = bytes[0] === VERSION;
    const headBytes = hasKeyId ? 1 + KEY_ID_BYTES : 1;
    if (bytes.length >= headBytes + NONCE_BYTES + TAG_BYTES && (hasKeyId || bytes[0] === VERSION_WITHOUT_KEY_ID)) {
      const named = bytes.subarray(1, headBytes);
      for (const key of keys()) {
        if (hasKeyId && !keyId(key).equals(named)) continue;
        try {
          return decrypted(id, key, bytes.subarray(headBytes));
        } catch {
          // Another key may fit.
        }
      }
    }
    throw new RingsteadError("bad-credential", `credential ${id} cannot be decrypted`, { id });
  },
});

const readKeys = async (path: string): Promise<Buffer[]> => {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (thrown) {
    if (codeOf(thrown) !== "ENOENT") throw thrown;
    return [];
  }
  const lines = text.trim().split("\n");
  if (lines.length > KEYS_MAX || !lines.every((line) => KEY_LINE.test(line))) {
    throw new RingsteadError("bad-key-file", `${path} is not a file of keys`, { path });
  }
  return lines.map((line) => Buffer.from(line, "hex"));
};

/** The cipher of the key file at `path`, a key in each line, the newest last; it is made where it is absent. */
export const openCredentialCipher = async (path: string): Promise<StoredCipher> => {
  let keys = await readKeys(path);
  const keep = (next: Buffer[]): void => {
    replaceFile(path, `${next.map((key) => key.toString("hex")).join("\n")}\n`, 0o600);
    keys = next;
  };
  if (keys.length === 0) keep([randomBytes(KEY_BYTES)]);
  return {
    ...createCredentialCipher(() => keys),
    addKey: () => keep([...keys, randomBytes(KEY_BYTES)]),
    dropOldKeys: () => keep(keys.slice(-2)),
  };
};
