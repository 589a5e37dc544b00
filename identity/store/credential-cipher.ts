import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { codeOf, RingsteadError } from "../../common/errors.ts";
import { replaceFile } from "../../common/replace-file.ts";

/** Layout in FORMAT.md: version, nonce, ciphertext, tag. */
const VERSION = 1;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const KEY = /^[0-9a-f]{64}$/;

export type CredentialCipher = {
  /** `id` is bound to the bytes: one credential's blob does not open as another's. */
  seal(id: string, text: string): Uint8Array;
  /** Throws RingsteadError `bad-credential` for bytes that this key and id did not seal. */
  open(id: string, blob: Uint8Array): string;
};

/** AES-256-GCM under `key`. Requires: 32 bytes. */
export const createCredentialCipher = (key: Buffer): CredentialCipher => ({
  seal: (id, text) => {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv("aes-256-gcm", key, nonce).setAAD(Buffer.from(id));
    const sealed = Buffer.concat([cipher.update(text, "utf8"), cipher.final()]);
    return Buffer.concat([Buffer.from([VERSION]), nonce, sealed, cipher.getAuthTag()]);
  },
  open: (id, blob) => {
    const bytes = Buffer.from(blob);
    const bad = (): RingsteadError =>
      new RingsteadError("bad-credential", `credential ${id} cannot be decrypted`, { id });
    if (bytes.length < 1 + NONCE_BYTES + TAG_BYTES || bytes[0] !== VERSION) throw bad();
    const nonce = bytes.subarray(1, 1 + NONCE_BYTES);
    const decipher = createDecipheriv("aes-256-gcm", key, nonce, { authTagLength: TAG_BYTES })
      .setAAD(Buffer.from(id))
      .setAuthTag(bytes.subarray(-TAG_BYTES));
    try {
      return decipher.update(bytes.subarray(1 + NONCE_BYTES, -TAG_BYTES), undefined, "utf8") + decipher.final("utf8");
    } catch {
      throw bad();
    }
  },
});

/** The cipher of the key file at `path`, which is made where it is absent. */
export const openCredentialCipher = async (path: string): Promise<CredentialCipher> => {
  let text: string;
  try {
    text = (await readFile(path, "utf8")).trim();
  } catch (thrown) {
    if (codeOf(thrown) !== "ENOENT") throw thrown;
    text = randomBytes(32).toString("hex");
    replaceFile(path, `${text}\n`, 0o600);
  }
  if (!KEY.test(text)) throw new RingsteadError("bad-key-file", `${path} is not a key`, { path });
  return createCredentialCipher(Buffer.from(text, "hex"));
};
