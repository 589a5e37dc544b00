import { createHmac, hkdfSync } from "node:crypto";
import { linkSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { codeOf, RingsteadError } from "../../common/errors.ts";
import { replaceFile, syncFolder } from "../../common/replace-file.ts";

const SECRET_BYTES = 32;
const KEY_BYTES = 32;
const KEY_ID_BYTES = 8;

/** What the names and the bytes of one project's backups hang on. Another project's names tell nothing about its content. */
export type BackupKeys = {
  /** Which keys these are, in hexadecimal; it tells nothing about them. */
  readonly id: string;
  readonly encryption: Buffer;
  /** The name of what is stored as `kind`: 64 hexadecimal digits, the same for the same bytes. */
  nameOf(kind: "chunk" | "page" | "list", bytes: Uint8Array): string;
};

/** The keys of a project, from the installation's secret. */
export const projectKeys = (secret: Uint8Array, projectId: string): BackupKeys => {
  const derived = (use: string, length = KEY_BYTES): Buffer =>
    Buffer.from(hkdfSync("sha256", secret, "ringstead volume backup", `${use} ${projectId}`, length));
  const naming = derived("names");
  return {
    id: derived("id", KEY_ID_BYTES).toString("hex"),
    encryption: derived("encryption"),
    nameOf: (kind, bytes) => createHmac("sha256", naming).update(`${kind}\0`).update(bytes).digest("hex"),
  };
};

const secretIn = (path: string): Buffer => {
  const secret = Buffer.from(readFileSync(path, "utf8").trim(), "hex");
  if (secret.length === SECRET_BYTES) return secret;
  throw new RingsteadError(
    "backup-key-damaged",
    `${path} does not hold ${SECRET_BYTES} bytes in hexadecimal: no backup can be read without the file that was there`,
  );
};

/**
 * The installation's secret, made where there is none; mode 0600. It is made from the cluster's key, so that all nodes have the same, and kept beside
 * it, so that backups can be read wherever this file is brought. Errors: "backup-key-damaged".
 */
export const openBackupSecret = (path: string, clusterKey: Uint8Array): Buffer => {
  try {
    return secretIn(path);
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
  }
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const own = `${path}.new-${process.pid}`;
  const secret = Buffer.from(hkdfSync("sha256", clusterKey, "ringstead volume backup", "secret", SECRET_BYTES));
  replaceFile(own, `${secret.toString("hex")}\n`, 0o600);
  try {
    // Of two processes that begin at once one wins, and both go by that.
    linkSync(own, path);
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw error;
  } finally {
    rmSync(own, { force: true });
  }
  syncFolder(dirname(path));
  return secretIn(path);
};
