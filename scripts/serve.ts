import { existsSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { parseClusterFile } from "../common/config.ts";
import { messageOf, RingsteadError } from "../common/errors.ts";
import { replaceFile } from "../common/replace-file.ts";
import { runtimePaths } from "../common/runtime-paths.ts";
import { makeDataFolder } from "./data-folder.ts";
import { PROCESS_KINDS, SERVE_ROLES } from "./installation.ts";
import { supervise } from "./supervisor.ts";
import { dataDirOf, parseOptions } from "./up-options.ts";

const read = (option: string, path: string): string => {
  try {
    return readFileSync(resolve(path), "utf8");
  } catch (thrown) {
    throw new RingsteadError("usage", `--${option} ${path} cannot be read: ${messageOf(thrown)}`);
  }
};

/** The roles of a list. Throws RingsteadError `usage` for unknown ones, `role-absent` for those of services that are not built. */
export const parseRoles = (text: string): readonly string[] => {
  const roles = text.split(",").map((role) => role.trim());
  for (const role of roles) {
    if (!SERVE_ROLES.some((known) => known === role)) {
      throw new RingsteadError("usage", `there is no role "${role}": choose from ${SERVE_ROLES.join(",")}`);
    }
    if (!PROCESS_KINDS.some((kind) => kind.role === role)) {
      throw new RingsteadError("role-absent", `this version of Ringstead does not have the role ${role}`);
    }
  }
  return roles;
};

/**
 * `ringstead serve ROLE[,ROLE…] --node NAME --config cluster.toml --data DIR [--key-file F]`. The roles of one DIR find each other over
 * Unix sockets there, those of other nodes over TCP at the addresses of cluster.toml.
 */
export const serve = async (argv: readonly string[]): Promise<number> => {
  const { values, positionals } = parseOptions(
    argv,
    {
      node: { type: "string" },
      config: { type: "string" },
      data: { type: "string" },
      "key-file": { type: "string" },
    },
    true,
  );
  const [list, ...rest] = positionals;
  if (list === undefined || rest.length > 0)
    throw new RingsteadError("usage", "ringstead serve takes one list of roles: ROLE[,ROLE…]");
  const roles = parseRoles(list);
  if (values.node === undefined || values.config === undefined) {
    throw new RingsteadError("usage", "ringstead serve needs --node NAME and --config cluster.toml");
  }
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(values.node)) {
    throw new RingsteadError(
      "usage",
      `--node takes a host name's letters, digits, dots and hyphens, not "${values.node}"`,
    );
  }
  const dataDir = dataDirOf(values.data);
  const paths = runtimePaths(dataDir);
  const text = read("config", values.config);
  const tables = Object.keys(parseClusterFile(text, values.config).node ?? {});
  if (tables.length > 0 && !tables.includes(values.node)) {
    throw new RingsteadError(
      "usage",
      `${values.config} has no table [node.${values.node}]: its nodes are ${tables.join(", ")}`,
    );
  }
  const key = values["key-file"] === undefined ? undefined : read("key-file", values["key-file"]).trim();
  if (key !== undefined && !/^[0-9a-f]{64}$/.test(key)) {
    throw new RingsteadError("usage", `--key-file ${values["key-file"]} must hold 64 hex digits`);
  }
  makeDataFolder(paths);
  if (!existsSync(paths.clusterToml) || readFileSync(paths.clusterToml, "utf8") !== text)
    replaceFile(paths.clusterToml, text, 0o600);
  if (key !== undefined) replaceFile(paths.clusterKey, `${key}\n`, 0o600);
  const options = { dataDir, detach: false, only: undefined, adminPassword: undefined, keys: {} };
  await supervise(
    options,
    values.node,
    (ready) => process.stdout.write(`${roles.join(",")} of node ${values.node} run (pid ${ready.pid}).\n`),
    roles,
  );
  return 0;
};
