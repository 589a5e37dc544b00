import { createHmac, randomBytes, randomUUID } from "node:crypto";
import { existsSync, lstatSync, mkdirSync, readFileSync, statSync } from "node:fs";
import { hostname } from "node:os";
import { stringify } from "smol-toml";
import { type ClusterConfig, type ClusterFile, parseClusterFile, resolveConfig } from "../common/config.ts";
import { codeOf, messageOf, RingsteadError } from "../common/errors.ts";
import type { Log } from "../common/log.ts";
import { replaceFile } from "../common/replace-file.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import { checkRings, prepareRings } from "./rings.ts";
import type { UpOptions } from "./up-options.ts";

/** The layout of DIR that this version writes; a higher one is refused. */
export const LAYOUT_VERSION = 1;

const CLUSTER_TOML_HEAD = `# Configuration of this Ringstead installation. Every option of "ringstead up" is a key here (--port-offset: port_offset).
# README.md has the table; an unknown key is refused.
`;

/** A password of 24 letters and digits: what every client and shell takes without quoting. */
const newPassword = (): string => {
  const alphabet = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789";
  let password = "";
  while (password.length < 24) {
    const byte = randomBytes(1)[0] ?? 255;
    // Bytes past the last whole alphabet would favour its first letters.
    if (byte < alphabet.length * 4) password += alphabet[byte % alphabet.length];
  }
  return password;
};

const makeFolder = (path: string, mode: number): void => {
  try {
    mkdirSync(path, { recursive: true, mode });
  } catch (thrown) {
    const reason =
      codeOf(thrown) === "EEXIST" || codeOf(thrown) === "ENOTDIR" ? "it is not a folder" : messageOf(thrown);
    throw new RingsteadError("data-folder", `cannot use ${path} as a folder: ${reason}`, { path });
  }
};

/** Makes DIR itself. Throws RingsteadError `data-folder`. */
export const makeDataFolder = (paths: RuntimePaths): void => {
  makeFolder(paths.dataDir, 0o700);
  makeFolder(paths.logsDir, 0o750);
};

const readOptional = (path: string): string | undefined => {
  try {
    return readFileSync(path, "utf8");
  } catch (thrown) {
    // Where DIR itself is a file, making it a folder is what fails, in words.
    if (codeOf(thrown) === "ENOENT" || codeOf(thrown) === "ENOTDIR") return undefined;
    throw thrown;
  }
};

/** Throws RingsteadError `data-folder-newer`. */
const checkLayout = (paths: RuntimePaths): void => {
  const text = readOptional(paths.layoutVersion)?.trim();
  if (text === undefined) return;
  if (!/^\d{1,6}$/.test(text) || Number(text) > LAYOUT_VERSION) {
    throw new RingsteadError(
      "data-folder-newer",
      `${paths.dataDir} was written by a newer version of Ringstead (layout ${text}, this version knows ${LAYOUT_VERSION}); use that version`,
      { layout: text },
    );
  }
};

/** Sets one top-level key in the text of a TOML file and leaves every other line, comments too, as it stands. */
const setKey = (text: string, key: string, value: unknown): string => {
  const line = stringify({ [key]: value }).trimEnd();
  const lines = text.split("\n");
  const firstTable = lines.findIndex((candidate) => candidate.startsWith("["));
  const end = firstTable < 0 ? lines.length : firstTable;
  const at = lines.findIndex((candidate, index) => index < end && new RegExp(`^${key}\\s*=`).test(candidate));
  if (at >= 0) lines[at] = line;
  else lines.splice(firstTable < 0 && lines.at(-1) === "" ? end - 1 : end, 0, line);
  return lines.join("\n");
};

/** The text with the keys set; where a key stands on several lines, the file is written anew without comments. */
export const withKeys = (text: string, keys: Partial<ClusterFile>, source: string): string => {
  const wanted = { ...parseClusterFile(text, source), ...keys };
  // Either takes the other's place.
  if (keys.devices !== undefined) delete wanted.device;
  if (keys.device !== undefined) delete wanted.devices;
  let edited = text;
  for (const [key, value] of Object.entries(keys)) edited = setKey(edited, key, value);
  try {
    if (stringify(parseClusterFile(edited, source)) === stringify(wanted)) return edited;
  } catch {
    // A key that stood on several lines: its rest is no TOML any more.
  }
  return `${CLUSTER_TOML_HEAD}${stringify(wanted)}\n`;
};

/** cluster.toml and the options, without writing anything. Throws RingsteadError `invalid-config`. */
const plannedFile = (paths: RuntimePaths, keys: Partial<ClusterFile>): { text: string; file: ClusterFile } => {
  const before = readOptional(paths.clusterToml) ?? CLUSTER_TOML_HEAD;
  // The options alone first: a wrong one is then named as an option's value, not as a line of the file.
  parseClusterFile(stringify(keys), "options");
  const text = Object.keys(keys).length === 0 ? before : withKeys(before, keys, paths.clusterToml);
  return { text, file: parseClusterFile(text, paths.clusterToml) };
};

/** The configuration as it would be with `options`; nothing is written. */
export const plannedConfig = (paths: RuntimePaths, options: UpOptions, node: string): ClusterConfig => {
  const { file } = plannedFile(paths, options.keys);
  return resolveConfig(
    options.only === undefined ? file : { ...file, only: options.only },
    paths.dataDir,
    node,
    hostname(),
  );
};

/** Folders in DIR are made; other paths are disks that must be there. */
const isOwnDevice = (paths: RuntimePaths, path: string): boolean => path.startsWith(`${paths.devicesDir}/`);

const checkDevicePath = (path: string): void => {
  let isFolder: boolean;
  try {
    isFolder = statSync(path).isDirectory();
  } catch (thrown) {
    throw new RingsteadError("device-path", `device ${path} cannot be used: ${messageOf(thrown)}`, { path });
  }
  if (!isFolder)
    throw new RingsteadError("device-path", `device ${path} is not a folder: give a mounted disk`, { path });
};

/** The socket folder may be in /tmp: a folder or link that another user put there is refused. */
const makeSocketFolder = (path: string): void => {
  makeFolder(path, 0o700);
  const found = lstatSync(path);
  if (!found.isDirectory() || found.uid !== process.getuid?.() || (found.mode & 0o077) !== 0) {
    throw new RingsteadError("data-folder", `${path} must be a folder of this user with mode 0700: remove it`, {
      path,
    });
  }
};

const checkReadable = (path: string | undefined): void => {
  if (path === undefined) return;
  try {
    readFileSync(path);
  } catch (thrown) {
    throw new RingsteadError("invalid-config", `TLS file ${path} cannot be read: ${messageOf(thrown)}`, { path });
  }
};

/** Only identity knows the password: other nodes of several keep none. */
const preparePassword = (paths: RuntimePaths, config: ClusterConfig, given: string | undefined): string => {
  makeFolder(paths.identityDir, 0o700);
  const kept = readOptional(paths.adminPassword)?.trimEnd();
  const password = given ?? config.adminPassword ?? (kept === undefined || kept === "" ? newPassword() : kept);
  if (password !== kept) replaceFile(paths.adminPassword, `${password}\n`, 0o600);
  return password;
};

export type PreparedFolder = {
  readonly config: ClusterConfig;
  readonly adminPassword: string;
  /** Devices that were added to existing rings. */
  readonly addedDevices: number;
};

/** Nodes that made up a key each would refuse each other. Throws RingsteadError `cluster-key-absent`. */
const checkClusterKey = (paths: RuntimePaths, config: ClusterConfig): void => {
  if (config.cluster === undefined || existsSync(paths.clusterKey)) return;
  throw new RingsteadError(
    "cluster-key-absent",
    `node ${config.node} is one of several and has no cluster key: give --key-file F, the same file on every node (make it once: ` +
      "openssl rand -hex 32 >F; chmod 600 F)",
  );
};

/** Everything about DIR and the options that can be refused; nothing is changed. Returns the configuration as it would be. */
export const checkDataFolder = (
  paths: RuntimePaths,
  options: UpOptions,
  node: string,
  roles: readonly string[],
): ClusterConfig => {
  checkLayout(paths);
  const config = plannedConfig(paths, options, node);
  checkReadable(config.tlsCert);
  checkReadable(config.tlsKey);
  checkClusterKey(paths, config);
  checkRings(paths, config, roles);
  if (roles.includes("storage-node"))
    for (const path of config.devices) if (!isOwnDevice(paths, path)) checkDevicePath(path);
  return config;
};

/** All nodes of several derive the same id from their key, so that device folders carry one that moving them keeps. */
const newClusterId = (paths: RuntimePaths, config: ClusterConfig): string => {
  if (config.cluster === undefined) return randomUUID();
  const digest = createHmac("sha256", readFileSync(paths.clusterKey, "utf8").trim()).update("cluster id").digest("hex");
  return digest.slice(0, 32).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
};

/**
 * Makes DIR ready for the processes: configuration, keys, rings, device folders, sockets' folder, password. Requires: the
 * supervisor's lock is held, `checkDataFolder` found nothing to refuse.
 */
export const prepareDataFolder = async (
  paths: RuntimePaths,
  options: UpOptions,
  node: string,
  roles: readonly string[],
  log: Log,
): Promise<PreparedFolder> => {
  const config = plannedConfig(paths, options, node);
  const { text } = plannedFile(paths, options.keys);
  if (roles.includes("storage-node"))
    for (const path of config.devices) if (isOwnDevice(paths, path)) makeFolder(path, 0o700);
  if (readOptional(paths.clusterToml) !== text) replaceFile(paths.clusterToml, text, 0o600);
  if (!existsSync(paths.clusterKey)) replaceFile(paths.clusterKey, `${randomBytes(32).toString("hex")}\n`, 0o600);
  // Of a node of several the others may remember what its own folder has lost.
  if (!existsSync(paths.clusterId) && config.cluster === undefined) replaceFile(paths.founding, "", 0o600);
  if (!existsSync(paths.clusterId)) replaceFile(paths.clusterId, `${newClusterId(paths, config)}\n`, 0o644);
  if (!existsSync(paths.layoutVersion)) replaceFile(paths.layoutVersion, `${LAYOUT_VERSION}\n`, 0o644);
  makeSocketFolder(paths.socketDir);
  const adminPassword = roles.includes("identity") ? preparePassword(paths, config, options.adminPassword) : "";
  const addedDevices = await prepareRings(paths, config, log);
  return { config, adminPassword, addedDevices };
};
