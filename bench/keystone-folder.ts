import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";

/** Everything of one Keystone lies in `folder`. */
export type KeystonePlan = {
  readonly folder: string;
  readonly adminPassword: string;
  readonly ports: { readonly keystone: number; readonly memcached: number };
};

/** Debian's keystone-uwsgi.ini: "For max perf, set this to number of core*2". */
const PROCESSES_PER_CORE = 2;
const THREADS = 8;

/** A server's command and arguments. */
export type KeystoneCommand = readonly [program: string, ...words: string[]];

const configurationText = ({ folder, ports }: KeystonePlan): string =>
  [
    "[DEFAULT]",
    `log_file = ${join(folder, "keystone.log")}`,
    "default_log_levels = keystone=WARNING",
    "[database]",
    `connection = sqlite:///${join(folder, "keystone.db")}`,
    "[fernet_tokens]",
    `key_repository = ${join(folder, "fernet-keys")}`,
    "[credential]",
    `key_repository = ${join(folder, "credential-keys")}`,
    "[cache]",
    "enabled = true",
    "backend = oslo_cache.memcache_pool",
    `memcache_servers = 127.0.0.1:${ports.memcached}`,
    "",
  ].join("\n");

/** Writes configuration, keys and database. Returns the commands that serve them and the file that names the configuration. */
export const makeKeystoneFolder = (plan: KeystonePlan): { commands: KeystoneCommand[]; configuration: string } => {
  const { folder, ports, adminPassword } = plan;
  mkdirSync(folder, { recursive: true });
  const configuration = join(folder, "keystone.conf");
  writeFileSync(configuration, configurationText(plan), { mode: 0o600 });
  const manage = (...words: readonly string[]): void => {
    execFileSync("keystone-manage", ["--config-file", configuration, ...words], { stdio: "pipe" });
  };
  const url = `http://127.0.0.1:${ports.keystone}/v3`;
  manage("db_sync");
  // As SQLite ships, a request that writes while it still reads locks itself out and answers 500 after five seconds.
  const database = new DatabaseSync(join(folder, "keystone.db"));
  database.exec("PRAGMA journal_mode = WAL");
  database.close();
  manage("fernet_setup", "--keystone-user", "root", "--keystone-group", "root");
  manage("credential_setup", "--keystone-user", "root", "--keystone-group", "root");
  const urls = ["public", "internal", "admin"].flatMap((kind) => [`--bootstrap-${kind}-url`, url]);
  manage("bootstrap", "--bootstrap-password", adminPassword, "--bootstrap-region-id", "RegionOne", ...urls);
  const uwsgi = [
    ["--plugins", "python3"],
    ["--http-socket", `127.0.0.1:${ports.keystone}`],
    // A server of HTTP/1.1 that closes after each answer has to say so.
    ["--add-header", "Connection: close"],
    ["--master", "--lazy-apps", "--enable-threads", "--thunder-lock", "--die-on-term", "--disable-logging"],
    ["--processes", String(PROCESSES_PER_CORE * availableParallelism()), "--threads", String(THREADS)],
    ["--buffer-size", "65535", "--wsgi-file", "/usr/bin/keystone-wsgi-public"],
  ];
  return {
    commands: [
      ["memcached", "-u", "root", "-l", "127.0.0.1", "-p", String(ports.memcached), "-m", "64"],
      ["uwsgi", ...uwsgi.flat()],
    ],
    configuration,
  };
};
