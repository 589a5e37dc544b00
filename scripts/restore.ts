import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { RingsteadError } from "../common/errors.ts";
import { replaceFile, syncFolder } from "../common/replace-file.ts";
import { runtimePaths } from "../common/runtime-paths.ts";
import { checkBackup } from "./backup-folder.ts";
import { takeLock } from "./supervisor-lock.ts";
import { dataDirOf, parseOptions } from "./up-options.ts";

const PUBLIC_FILES = /^(rings\/|cluster\.id$|layout-version$|identity\/jwks\.json$)/;

/**
 * `ringstead restore DIR2`: puts control database, rings and keys of a backup into DIR, which must not be running. What stood in
 * their place is kept beside it. Device folders stay as they are: they open with the restored keys.
 */
export const restore = async (argv: readonly string[]): Promise<number> => {
  const { values, positionals } = parseOptions(argv, { data: { type: "string" } }, true);
  const [given, ...rest] = positionals;
  if (given === undefined || rest.length > 0)
    throw new RingsteadError("usage", "ringstead restore takes one folder: DIR2");
  const source = resolve(given);
  const manifest = checkBackup(source);
  const paths = runtimePaths(dataDirOf(values.data));
  const ownId = existsSync(paths.clusterId) ? readFileSync(paths.clusterId, "utf8").trim() : undefined;
  const backupId = readFileSync(join(source, "cluster.id"), "utf8").trim();
  if (ownId !== undefined && ownId !== backupId) {
    throw new RingsteadError(
      "backup-foreign",
      `${source} is of installation ${backupId}, ${paths.dataDir} is ${ownId}: restore into a new folder with --data`,
    );
  }
  mkdirSync(paths.dataDir, { recursive: true, mode: 0o700 });
  using _lock = takeLock(paths.supervisorLock, paths.dataDir);
  const kept = join(paths.dataDir, `before-restore-${new Date().toISOString().replaceAll(/[:.]/g, "-")}`);
  const isThere = [paths.identityDir, paths.ringsDir].filter((path) => existsSync(path));
  if (isThere.length > 0) mkdirSync(kept, { mode: 0o700 });
  // Whole folders move, so that no file of a database's newer state is left beside the restored one.
  for (const path of isThere) renameSync(path, join(kept, path === paths.ringsDir ? "rings" : "identity"));
  for (const name of Object.keys(manifest.files)) {
    const target = join(paths.dataDir, name);
    mkdirSync(dirname(target), { recursive: true, mode: name.startsWith("rings/") ? 0o755 : 0o700 });
    replaceFile(target, readFileSync(join(source, name)), PUBLIC_FILES.test(name) ? 0o644 : 0o600);
  }
  syncFolder(paths.dataDir);
  rmSync(paths.readyJson, { force: true });
  process.stdout.write(
    `The backup of ${manifest.createdAt} is in ${paths.dataDir}${isThere.length > 0 ? `; what it replaced is in ${kept}` : ""}. ` +
      "Start it with ./scripts/start.\n",
  );
  return 0;
};
