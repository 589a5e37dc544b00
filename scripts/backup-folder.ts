import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { messageOf, RingsteadError } from "../common/errors.ts";
import { replaceFile, syncFolder } from "../common/replace-file.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";

/** Format of a backup folder; a higher one is refused. */
export const BACKUP_VERSION = 1;
export const MANIFEST = "manifest.json";

/** DIR2/manifest.json, written last: a backup without it is none. */
export type BackupManifest = {
  readonly backupVersion: number;
  readonly ringsteadVersion: string;
  readonly createdAt: string;
  /** Path from the folder → SHA-256 as hex. */
  readonly files: Readonly<Record<string, string>>;
};

const isDatabase = (path: string): boolean => path.endsWith(".db");
/** Parts of a database in use; VACUUM INTO has what they hold. */
const isDatabaseShadow = (path: string): boolean => /\.db-(wal|shm|journal)$/.test(path);

const filesBelow = (folder: string): string[] =>
  existsSync(folder)
    ? readdirSync(folder, { withFileTypes: true, recursive: true })
        .filter((entry) => entry.isFile())
        .map((entry) => join(entry.parentPath, entry.name))
    : [];

/** Every file of DIR that a backup holds: control databases, rings, keys, configuration. Objects are not in it. */
export const backedUpFiles = (paths: RuntimePaths): string[] => {
  const single = [paths.clusterToml, paths.clusterKey, paths.clusterId, paths.layoutVersion].filter((path) =>
    existsSync(path),
  );
  const folders = [paths.identityDir, paths.blockDir, paths.ringsDir, paths.policyDir];
  const all = folders.flatMap(filesBelow);
  // Keys after the database: a rotation keeps the key before, so what the copy was sealed with is among them.
  const below = [...all.filter(isDatabase), ...all.filter((path) => !isDatabase(path))];
  return [...single, ...below.filter((path) => !isDatabaseShadow(path) && !/\.tmp(-\d+)?$/.test(path))].map((path) =>
    relative(paths.dataDir, path),
  );
};

export const sha256OfFile = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");

/**
 * Copies one file of DIR into the backup, synced, mode 0600. A database is copied by VACUUM INTO: one transaction's view,
 * whatever is written meanwhile.
 */
export const copyInto = (source: string, target: string): void => {
  mkdirSync(dirname(target), { recursive: true, mode: 0o700 });
  if (isDatabase(source)) {
    const database = new DatabaseSync(source, { timeout: 10_000 });
    try {
      database.prepare("VACUUM INTO ?").run(target);
    } finally {
      database.close();
    }
  } else {
    copyFileSync(source, target);
  }
  syncBackedUp(target);
};

/** Brings a file of a backup to the disk, mode 0600. */
export const syncBackedUp = (target: string): void => {
  replaceFile(target, readFileSync(target), 0o600);
  syncFolder(dirname(target));
};

/** Reads and checks the manifest and every file of a backup. Throws RingsteadError `backup-damaged` or `backup-newer`. */
export const checkBackup = (folder: string): BackupManifest => {
  let manifest: BackupManifest;
  try {
    manifest = JSON.parse(readFileSync(join(folder, MANIFEST), "utf8")) as BackupManifest;
  } catch (thrown) {
    throw new RingsteadError("backup-damaged", `${folder} is no complete backup: ${messageOf(thrown)}`);
  }
  if (!(manifest.backupVersion <= BACKUP_VERSION)) {
    throw new RingsteadError(
      "backup-newer",
      `${folder} was written by a newer version of Ringstead (${manifest.ringsteadVersion})`,
    );
  }
  for (const [path, digest] of Object.entries(manifest.files)) {
    if (path.startsWith("/") || path.split("/").includes(".."))
      throw new RingsteadError("backup-damaged", `${folder} names ${path}`);
    const file = join(folder, path);
    if (!existsSync(file) || sha256OfFile(file) !== digest) {
      throw new RingsteadError("backup-damaged", `${file} is missing or not what the backup wrote`);
    }
  }
  return manifest;
};
