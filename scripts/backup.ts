import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { RingsteadError } from "../common/errors.ts";
import { replaceFile, syncFolder } from "../common/replace-file.ts";
import { runtimePaths } from "../common/runtime-paths.ts";
import {
  BACKUP_VERSION,
  type BackupManifest,
  backedUpFiles,
  copyInto,
  MANIFEST,
  sha256OfFile,
  syncBackedUp,
} from "./backup-folder.ts";
import { databaseServerIn, dumpDatabases } from "./backup-database.ts";
import { version } from "../common/version.ts";
import { dataDirOf, parseOptions } from "./up-options.ts";

/**
 * `ringstead backup DIR2`: control database, rings and keys, while running. DIR2 appears whole or not at all. Rows that are on a database server
 * are in it as the SQLite files which an installation without one has.
 */
export const backup = async (argv: readonly string[]): Promise<number> => {
  const { values, positionals } = parseOptions(argv, { data: { type: "string" } }, true);
  const [given, ...rest] = positionals;
  if (given === undefined || rest.length > 0)
    throw new RingsteadError("usage", "ringstead backup takes one folder: DIR2");
  const paths = runtimePaths(dataDirOf(values.data));
  if (!existsSync(paths.clusterKey))
    throw new RingsteadError("no-installation", `there is no installation in ${paths.dataDir}`);
  const target = resolve(given);
  if (existsSync(target) && readdirSync(target).length > 0) {
    throw new RingsteadError("backup-exists", `${target} is not empty: give a new folder for each backup`);
  }
  mkdirSync(dirname(target), { recursive: true });
  const partial = join(dirname(target), `.${basename(target)}.partial-${process.pid}`);
  try {
    mkdirSync(partial, { mode: 0o700 });
    const server = databaseServerIn(paths.clusterToml);
    const dumped = server === undefined ? [] : await dumpDatabases(server, partial);
    for (const name of dumped) syncBackedUp(join(partial, name));
    // Files of before there was a server hold nothing that counts.
    const copied = backedUpFiles(paths).filter((name) => server === undefined || !name.endsWith(".db"));
    for (const name of copied) copyInto(join(paths.dataDir, name), join(partial, name));
    const names = [...dumped, ...copied];
    const files = Object.fromEntries(names.map((name) => [name, sha256OfFile(join(partial, name))]));
    const manifest: BackupManifest = {
      backupVersion: BACKUP_VERSION,
      ringsteadVersion: version(),
      createdAt: new Date().toISOString(),
      files,
    };
    replaceFile(join(partial, MANIFEST), `${JSON.stringify(manifest, undefined, 2)}\n`, 0o600);
    renameSync(partial, target);
    syncFolder(dirname(target));
    process.stdout.write(
      `${names.length} files of ${paths.dataDir} are in ${target}. It holds keys and passwords: keep it safe.\n`,
    );
    return 0;
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
};
