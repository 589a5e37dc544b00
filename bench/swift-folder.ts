import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { userInfo } from "node:os";
import { join } from "node:path";

/** Everything of one Swift lies in `folder`; only the hash path of /etc/swift/swift.conf is Debian's, as shipped. */
export type SwiftPlan = {
  readonly folder: string;
  readonly key: string;
  readonly ports: Record<"proxy" | "memcached" | StorageServer, number>;
};

const STORAGE_SERVERS = ["account", "container", "object"] as const;
type StorageServer = (typeof STORAGE_SERVERS)[number];

const DEVICES = ["d1", "d2", "d3", "d4"] as const;
const PART_POWER = 10;
const REPLICAS = 3;
const MIN_PART_HOURS = 1;
const PROXY_WORKERS = 2;
const STORAGE_WORKERS: Record<StorageServer, number> = { account: 1, container: 2, object: 2 };

type Section = readonly [name: string, keys: Readonly<Record<string, string | number>>];

const iniText = (sections: readonly Section[]): string =>
  sections
    .map(([name, keys]) => {
      const lines = Object.entries(keys).map(([key, value]) => `${key} = ${value}`);
      return [`[${name}]`, ...lines, ""].join("\n");
    })
    .join("\n");

/** Of every server: no access log, nothing below warnings. */
const common = (plan: SwiftPlan, port: number, workers: number): Section => [
  "DEFAULT",
  {
    bind_ip: "127.0.0.1",
    bind_port: port,
    workers,
    user: userInfo().username,
    swift_dir: plan.folder,
    log_level: "WARNING",
  },
];

const proxyText = (plan: SwiftPlan): string =>
  iniText([
    common(plan, plan.ports.proxy, PROXY_WORKERS),
    ["pipeline:main", { pipeline: "healthcheck cache tempauth proxy-server" }],
    ["app:proxy-server", { use: "egg:swift#proxy", account_autocreate: "true" }],
    ["filter:healthcheck", { use: "egg:swift#healthcheck" }],
    ["filter:cache", { use: "egg:swift#memcache", memcache_servers: `127.0.0.1:${plan.ports.memcached}` }],
    ["filter:tempauth", { use: "egg:swift#tempauth", user_admin_admin: `${plan.key} .admin .reseller_admin` }],
  ]);

const storageText = (plan: SwiftPlan, server: StorageServer): string => {
  const [name, keys] = common(plan, plan.ports[server], STORAGE_WORKERS[server]);
  return iniText([
    [name, { ...keys, devices: join(plan.folder, "devices"), mount_check: "false" }],
    ["pipeline:main", { pipeline: `${server}-server` }],
    [`app:${server}-server`, { use: `egg:swift#${server}`, log_requests: "false" }],
  ]);
};

const buildRing = (plan: SwiftPlan, server: StorageServer): void => {
  const builder = (...words: readonly (string | number)[]): void => {
    const file = join(plan.folder, `${server}.builder`);
    execFileSync("swift-ring-builder", [file, ...words.map(String)], { stdio: "pipe" });
  };
  builder("create", PART_POWER, REPLICAS, MIN_PART_HOURS);
  DEVICES.forEach((device, index) => builder("add", `r1z${index + 1}-127.0.0.1:${plan.ports[server]}/${device}`, 100));
  builder("rebalance");
};

/** A server's command and arguments. */
export type SwiftCommand = readonly [program: string, ...words: string[]];

/** Writes configurations, rings and device folders. Returns the commands that serve them, in the order in which they start. */
export const makeSwiftFolder = (plan: SwiftPlan): SwiftCommand[] => {
  for (const device of DEVICES) mkdirSync(join(plan.folder, "devices", device), { recursive: true });
  const configurationOf = (server: string): string => join(plan.folder, `${server}-server.conf`);
  for (const server of STORAGE_SERVERS) {
    buildRing(plan, server);
    writeFileSync(configurationOf(server), storageText(plan, server));
  }
  writeFileSync(configurationOf("proxy"), proxyText(plan), { mode: 0o600 });
  return [
    ["memcached", "-u", userInfo().username, "-l", "127.0.0.1", "-p", String(plan.ports.memcached), "-m", "64"],
    ...STORAGE_SERVERS.map((server): SwiftCommand => [`swift-${server}-server`, configurationOf(server)]),
    ["swift-proxy-server", configurationOf("proxy")],
  ];
};
