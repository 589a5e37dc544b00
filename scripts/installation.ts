import { existsSync } from "node:fs";
import { version } from "../common/version.ts";
import { join } from "node:path";
import { type ClusterConfig, SERVICES, type ServiceName } from "../common/config.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import type { Unavailable } from "./ready-file.ts";
import type { ProcessSpec } from "./supervised-process.ts";
import { CHECKOUT } from "./up-options.ts";

/** Threads of libuv's pool that everything but devices needs, and what each syncing device takes (DESIGN section 9). */
const POOL_THREADS_BASE = 4;
const POOL_THREADS_PER_DEVICE = 2;

/** A process that `up` and `serve` know how to run. */
type ProcessKind = {
  readonly role: "identity" | "storage-node" | "proxy";
  /** Names its socket and its log. */
  readonly processRole: string;
  readonly folder: string;
  readonly service: ServiceName;
};

/** In the order in which they start; they stop in the opposite one. */
export const PROCESS_KINDS: readonly ProcessKind[] = [
  { role: "identity", processRole: "control", folder: "identity", service: "identity" },
  { role: "storage-node", processRole: "storage-node", folder: "storage-node", service: "object" },
  { role: "proxy", processRole: "proxy", folder: "proxy", service: "object" },
];

/** The roles of `serve`; those without a kind above belong to services that this version does not have. */
export const SERVE_ROLES = [
  "storage-node",
  "proxy",
  "identity",
  "image",
  "block-api",
  "block-host",
  "compute-api",
  "compute-host",
  "network-api",
  "network-host",
] as const;

const entryOf = (kind: ProcessKind): string => join(CHECKOUT, kind.folder, "main.ts");

const isBuilt = (service: ServiceName): boolean => {
  const kinds = PROCESS_KINDS.filter((kind) => kind.service === service);
  return kinds.length > 0 && kinds.every((kind) => existsSync(entryOf(kind)));
};

/** What `up` starts for the chosen services, in order; only those of `roles`. */
export const processSpecs = (paths: RuntimePaths, config: ClusterConfig, roles: readonly string[]): ProcessSpec[] =>
  PROCESS_KINDS.filter(
    (kind) => roles.includes(kind.role) && config.services.includes(kind.service) && isBuilt(kind.service),
  ).map((kind) => ({
    role: kind.role,
    processRole: kind.processRole,
    entry: entryOf(kind),
    arguments: ["--data", paths.dataDir, "--node", config.node, "--role", kind.processRole],
    environment:
      kind.role === "storage-node"
        ? { UV_THREADPOOL_SIZE: String(POOL_THREADS_BASE + POOL_THREADS_PER_DEVICE * config.devices.length) }
        : {},
    outputFile: join(paths.logsDir, `${kind.processRole}.out`),
  }));

/** Every service that does not run with this configuration, with the reason and what to do about it. */
export const unavailableServices = (config: ClusterConfig): Unavailable[] => {
  const absent = SERVICES.flatMap((service): Unavailable[] => {
    if (!isBuilt(service)) {
      const reason = `this version of Ringstead (${version()}) does not have the ${service} service`;
      return [{ service, reason, remedy: "use a later version" }];
    }
    if (config.services.includes(service)) return [];
    const reason = `not among the chosen services (${config.services.join(",")})`;
    const remedy = `./scripts/start --only ${[...config.services, service].join(",")}`;
    return [{ service, reason, remedy }];
  });
  const reason = `this version of Ringstead (${version()}) does not have the S3 face`;
  return [...absent, { service: "s3", reason, remedy: "use the Swift API of the object service" }];
};
