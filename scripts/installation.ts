import { existsSync, statSync } from "node:fs";
import { version } from "../common/version.ts";
import { join } from "node:path";
import {
  type ClusterConfig,
  deviceName,
  type PublicPort,
  type RpcRole,
  SERVICES,
  type ServiceName,
} from "../common/config.ts";
import { type DeviceGroups, formatDeviceGroups, storageNodeName } from "../common/device-groups.ts";
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
  /** Public ports it listens on. */
  readonly ports: readonly PublicPort[];
  /** What it is to other nodes, where there are any. */
  readonly rpc?: RpcRole;
};

/** In the order in which they start; they stop in the opposite one. */
export const PROCESS_KINDS: readonly ProcessKind[] = [
  {
    role: "identity",
    processRole: "control",
    folder: "identity",
    service: "identity",
    ports: ["identity"],
    rpc: "control",
  },
  {
    role: "storage-node",
    processRole: "storage-node",
    folder: "storage-node",
    service: "object",
    ports: [],
    rpc: "storage-node",
  },
  { role: "proxy", processRole: "proxy", folder: "proxy", service: "object", ports: ["object", "s3"] },
];

/** Every role that this version can run; what `up` runs, and `serve` a part of. */
export const ALL_ROLES: readonly string[] = PROCESS_KINDS.map(({ role }) => role);

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

/** The processes of the chosen services, in the order of their start; only those of `roles`. */
export const chosenKinds = (
  config: Pick<ClusterConfig, "services">,
  roles: readonly string[],
): readonly ProcessKind[] =>
  PROCESS_KINDS.filter(
    (kind) => roles.includes(kind.role) && config.services.includes(kind.service) && isBuilt(kind.service),
  );

const environmentOf = ({ role }: ProcessKind, deviceCount: number): Readonly<Record<string, string>> => {
  switch (role) {
    case "storage-node":
      return { UV_THREADPOOL_SIZE: String(POOL_THREADS_BASE + POOL_THREADS_PER_DEVICE * deviceCount) };
    case "identity":
      // A password hash takes 19 MiB for a moment; in an arena of the thread that made it, they would stay.
      return { MALLOC_ARENA_MAX: "2" };
    case "proxy":
      return {};
  }
};

/**
 * How V8 collects garbage where bodies pass through. Buffers count against the old space, which by default is collected every 14 MiB of
 * bodies: a GET of 1 MiB took 4.9 ms of CPU in the proxy, 2.1 ms with a heap that may grow to four times what lives. A young space of
 * 4 MiB instead of 16 makes storage node and proxy some 60 MiB smaller under PUTs, and was no slower in any run.
 */
const BODY_HEAP_FLAGS = ["--max-semi-space-size=4", "--heap-growing-percent=300"];

/** A file system's number; a path that cannot be looked at is a disk of its own. */
const fileSystemOf = (path: string): string => {
  try {
    return String(statSync(path).dev);
  } catch {
    return path;
  }
};

/** Which devices share a file system. Where there are other nodes a node has one storage node, at the one port they know. */
export const deviceGroupsOf = ({ devices, cluster }: Pick<ClusterConfig, "devices" | "cluster">): DeviceGroups => {
  if (cluster !== undefined) return [];
  const groups = new Map<string, string[]>();
  for (const [index, path] of devices.entries()) {
    const fileSystem = fileSystemOf(path);
    groups.set(fileSystem, [...(groups.get(fileSystem) ?? []), deviceName(index)]);
  }
  return [...groups.values()];
};

/** What the supervisor starts. */
export const processSpecs = (paths: RuntimePaths, config: ClusterConfig, roles: readonly string[]): ProcessSpec[] => {
  const groups = deviceGroupsOf(config);
  const specOf = (kind: ProcessKind, name: string, processRole: string, deviceCount: number): ProcessSpec => {
    const own = ["--data", paths.dataDir, "--node", config.node, "--role", processRole];
    return {
      role: kind.role,
      name,
      processRole,
      entry: entryOf(kind),
      arguments: [...own, "--device-groups", formatDeviceGroups(groups)],
      environment: environmentOf(kind, deviceCount),
      nodeFlags: kind.role === "identity" ? [] : BODY_HEAP_FLAGS,
      outputFile: join(paths.logsDir, `${processRole}.out`),
    };
  };
  return chosenKinds(config, roles).flatMap((kind) => {
    if (kind.role !== "storage-node" || groups.length <= 1)
      return [specOf(kind, kind.role, kind.processRole, config.devices.length)];
    return groups.map((devices) => {
      const name = storageNodeName(groups, devices[0] ?? "");
      return specOf(kind, name, name, devices.length);
    });
  });
};

/** Every service whose public API does not run here with this configuration and these roles, with the reason and what to do about it. */
export const unavailableServices = (
  config: Pick<ClusterConfig, "services" | "node">,
  roles: readonly string[],
): Unavailable[] => {
  const open = new Set<string>(chosenKinds(config, roles).flatMap(({ ports }) => ports));
  const absent = SERVICES.flatMap((service): Unavailable[] => {
    if (!isBuilt(service)) {
      const reason = `this version of Ringstead (${version()}) does not have the ${service} service`;
      return [{ service, reason, remedy: "use a later version" }];
    }
    if (!config.services.includes(service)) {
      const reason = `not among the chosen services (${config.services.join(",")})`;
      const remedy = `./scripts/start --only ${[...config.services, service].join(",")}`;
      return [{ service, reason, remedy }];
    }
    if (open.has(service)) return [];
    const kind = PROCESS_KINDS.find(({ ports }) => ports.some((port) => port === service));
    const reason = `node ${config.node} has the roles ${roles.join(",")}`;
    return [{ service, reason, remedy: `ask a node with the role ${kind?.role ?? service}` }];
  });
  const reason = `this version of Ringstead (${version()}) does not have the S3 face: its port answers 501 NotImplemented`;
  return [...absent, { service: "s3", reason, remedy: "use the Swift API of the object service" }];
};
