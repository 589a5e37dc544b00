import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { RingsteadError } from "../common/errors.ts";
import { replaceFile, syncFolder } from "../common/replace-file.ts";
import { runtimePaths } from "../common/runtime-paths.ts";
import type { DatabaseServer } from "../common/sql/database-config.ts";
import {
  DATABASE_FILES,
  databaseServerIn,
  type LoadedDatabases,
  loadDatabases,
  REQUIRED_DATABASE_FILES,
} from "./backup-database.ts";
import { checkBackup } from "./backup-folder.ts";
import { takeLock } from "./supervisor-lock.ts";
import { dataDirOf, parseOptions } from "./up-options.ts";

const CLUSTER_TOML = "cluster.toml";
const PUBLIC_FILES = /^(rings\/|cluster\.id$|layout-version$|identity\/jwks\.json$)/;

/** From copies: a backup may lie where nothing can be written, which SQLite would. */
const loadedFrom = async (source: string, dataDir: string, server: DatabaseServer): Promise<LoadedDatabases> => {
  const copies = mkdtempSync(join(dataDir, ".restore-"));
  try {
    for (const name of DATABASE_FILES.filter((one) => existsSync(join(source, one)))) {
      mkdirSync(dirname(join(copies, name)), { recursive: true, mode: 0o700 });
      copyFileSync(join(source, name), join(copies, name));
    }
    return await loadDatabases(server, copies);
  } finally {
    rmSync(copies, { recursive: true });
  }
};

/**
 * `ringstead restore DIR2 [--config FILE]`: puts control database, rings and keys of a backup into DIR, which must not be running. What stood in
 * their place is kept beside it. Device folders stay as they are: they open with the restored keys. Rows go to where cluster.toml says, the
 * backup's or FILE, which takes its place: a database server, or files in DIR.
 */
export const restore = async (argv: readonly string[]): Promise<number> => {
  const { values, positionals } = parseOptions(argv, { data: { type: "string" }, config: { type: "string" } }, true);
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
  const clusterToml = values.config === undefined ? join(source, CLUSTER_TOML) : resolve(values.config);
  if (values.config !== undefined && !existsSync(clusterToml))
    throw new RingsteadError("usage", `--config: there is no ${clusterToml}`);
  const configuration = existsSync(clusterToml) ? readFileSync(clusterToml) : undefined;
  const server = databaseServerIn(clusterToml);
  const missing = REQUIRED_DATABASE_FILES.filter((name) => manifest.files[name] === undefined);
  if (missing.length > 0)
    throw new RingsteadError("backup-damaged", `${source} has no rows of the control plane (${missing.join(", ")})`);
  const loaded = server === undefined ? undefined : await loadedFrom(source, paths.dataDir, server);
  const stamp = new Date().toISOString().replaceAll(/[:.]/g, "-");
  const kept = join(paths.dataDir, `before-restore-${stamp}`);
  const isThere = [paths.identityDir, paths.blockDir, paths.ringsDir].filter((path) => existsSync(path));
  if (isThere.length > 0) mkdirSync(kept, { mode: 0o700 });
  // Whole folders move, so that no file of a database's newer state is left beside the restored one.
  for (const path of isThere) renameSync(path, join(kept, basename(path)));
  for (const name of Object.keys(manifest.files)) {
    if (name === CLUSTER_TOML || (loaded !== undefined && DATABASE_FILES.includes(name))) continue;
    const target = join(paths.dataDir, name);
    mkdirSync(dirname(target), { recursive: true, mode: name.startsWith("rings/") ? 0o755 : 0o700 });
    replaceFile(target, readFileSync(join(source, name)), PUBLIC_FILES.test(name) ? 0o644 : 0o600);
  }
  if (configuration !== undefined) replaceFile(paths.clusterToml, configuration, 0o600);
  syncFolder(paths.dataDir);
  const schemas = (await loaded?.replace(stamp.replaceAll("-", "").toLowerCase())) ?? [];
  rmSync(paths.readyJson, { force: true });
  process.stdout.write(
    `The backup of ${manifest.createdAt} is in ${paths.dataDir}${isThere.length > 0 ? `; what it replaced is in ${kept}` : ""}. ` +
      `${schemas.length > 0 ? `The database keeps what it had in ${schemas.join(", ")}. ` : ""}Start it with ./scripts/start.\n`,
  );
  return 0;
};
