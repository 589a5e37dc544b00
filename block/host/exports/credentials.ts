import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { codeOf } from "../../../common/errors.ts";
import { replaceFile } from "../../../common/replace-file.ts";

/** The name that QEMU looks for in the folder of a TLS object, and that GnuTLS reads: lines of `user:key in hexadecimal`. */
const KEYS_FILE = "keys.psk";
const KEY_BYTES = 32;

const readKeys = (folder: string): string | undefined => {
  try {
    return readFileSync(join(folder, KEYS_FILE), "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
};

/** Makes the key of an attachment where it has none: its user is the attachment's id. */
export const ensureCredential = (folder: string, attachmentId: string): void => {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  if (readKeys(folder) !== undefined) return;
  replaceFile(join(folder, KEYS_FILE), `${attachmentId}:${randomBytes(KEY_BYTES).toString("hex")}\n`, 0o600);
};

export const removeCredential = (folder: string): void => rmSync(folder, { recursive: true, force: true });

/**
 * What a daemon checks keys with: those of its own volume's attachments and no others. It reads the file at every handshake, so that a key that
 * is no longer in it opens nothing from then on.
 */
export const writeServerKeys = (folder: string, credentialFolders: readonly string[]): void => {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  replaceFile(join(folder, KEYS_FILE), credentialFolders.map((one) => readKeys(one) ?? "").join(""), 0o600);
};
