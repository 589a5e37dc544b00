import { accessSync, constants, existsSync, statSync } from "node:fs";
import { version } from "../common/version.ts";
import { delimiter, join } from "node:path";
import {
  type ClusterConfig,
  deviceName,
  type PublicPort,
  type RpcRole,
  portOf,
  rpcListenAddress,
  SERVICES,
  type ServiceName,
} from "../common/config.ts";
import { CONTROL_ROLES } from "./control-roles.ts";
import { type DeviceGroups, formatDeviceGroups, storageNodeName } from "../common/device-groups.ts";
import type { BindAddress } from "../common/listeners.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import type { Unavailable } from "./ready-file.ts";
import type { ProcessSpec } from "./supervised-process.ts";
import { CHECKOUT } from "./up-options.ts";

/** Threads of libuv's pool that everything but devices needs, and what each syncing device takes (DESIGN section 9). */
const POOL_THREADS_BASE = 4;
const POOL_THREADS_PER_DEVICE = 2;

/** A process that `up` and `serve` know how to run. */
type ProcessKind = {
  readonly role: "identity" | "block-api" | "block-host" | "storage-node" | "proxy";
  /** Names its socket and its log. Kinds with the same one are one process. */
  readonly processRole: string;
  /** In the checkout. */
  readonly entry: string;
  readonly service: ServiceName;
  /** Public ports it listens on. */
  readonly ports: readonly PublicPort[];
  /** What it is to other nodes, where there are any. */
  readonly rpc?: RpcRole;
  /** Programs without which its service does not run, with what to do about it. */
  readonly needs?: { readonly program: string; readonly remedy: string };
  /** The others serve without it: that it cannot start is said, and tried again. */
  readonly isOptional?: true;
};

const CONTROL_ENTRY = "scripts/control-process.ts";

/** In the order in which they start; they stop in the opposite one. */
export const PROCESS_KINDS: readonly ProcessKind[] = [
  {
    role: "identity",
    processRole: "control",
    entry: CONTROL_ENTRY,
    service: "identity",
    ports: ["identity"],
    rpc: "control",
  },
  { role: "block-api", processRole: "control", entry: CONTROL_ENTRY, service: "block", ports: ["block"] },
  {
    role: "block-host",
    processRole: "block-host",
    entry: "block/host/main.ts",
    service: "block",
    ports: [],
    needs: {
      program: "qemu-storage-daemon",
      remedy: "apt-get install qemu-system-common, then start again; ./scripts/start --install does it",
    },
    isOptional: true,
  },
  {
    role: "storage-node",
    processRole: "storage-node",
    entry: "storage-node/main.ts",
    service: "object",
    ports: [],
    rpc: "storage-node",
  },
  { role: "proxy", processRole: "proxy", entry: "proxy/main.ts", service: "object", ports: ["object", "s3"] },
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

const entryOf = (kind: ProcessKind): string => join(CHECKOUT, kind.entry);

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
};

/** Asked anew each time: a few system calls, and an operator installs what is missing while this runs. */
const isInstalled = (program: string): boolean =>
  (process.env["PATH"] ?? "").split(delimiter).some((folder) => isExecutable(join(folder, program)));

/** What keeps a service from running on this machine; only where its processes are to run here. */
const missingProgram = (service: ServiceName, roles: readonly string[]): ProcessKind["needs"] =>
  PROCESS_KINDS.find(
    (kind) =>
      kind.service === service &&
      kind.needs !== undefined &&
      roles.includes(kind.role) &&
      !isInstalled(kind.needs.program),
  )?.needs;

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
    (kind) =>
      roles.includes(kind.role) &&
      config.services.includes(kind.service) &&
      isBuilt(kind.service) &&
      missingProgram(kind.service, roles) === undefined,
  );

const environmentOf = ({ role }: ProcessKind, deviceCount: number): Readonly<Record<string, string>> => {
  switch (role) {
    case "storage-node":
      return { UV_THREADPOOL_SIZE: String(POOL_THREADS_BASE + POOL_THREADS_PER_DEVICE * deviceCount) };
    case "identity":
      // A password hash takes 19 MiB for a moment; in an arena of the thread that made it, they would stay.
      return { MALLOC_ARENA_MAX: "2" };
    case "block-api":
    case "block-host":
    case "proxy":
      return {};
  }
};

/**
 * How V8 collects garbage where bodies pass through. Buffers count against the old space, which by default is collected every 14 MiB of
 * bodies: a GET of 1 MiB took 4.9 ms of CPU in the proxy, 2.1 ms with a heap that may grow to four times what lives. A young space collected by one
 * thread: waking others for 4 MiB cost more than they did. With 16 MiB a quarter less of what is under way is copied than with 4 MiB.
 */
const BODY_HEAP_FLAGS = ["--max-semi-space-size=16", "--no-parallel-scavenge", "--heap-growing-percent=300"];

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

/**
 * The sockets that the supervisor holds for a process: while it is restarted its clients wait in them. Not those of storage nodes: who asks one that
 * is away has others to ask, and wants to know it at once.
 */
const listenersOf = (kind: ProcessKind, paths: RuntimePaths, config: ClusterConfig): readonly BindAddress[] => {
  const ports = kind.ports.map((port) => ({ host: config.bind, port: portOf(config, port) }));
  if (kind.rpc !== "control") return ports;
  const forOthers = rpcListenAddress(config, kind.rpc);
  const rpc = forOthers === undefined ? [] : [{ host: forOthers.host, port: forOthers.port }];
  return [...ports, ...rpc, { path: paths.socket(kind.processRole) }];
};

/**
 * Proxies share nothing. Two processes of identity see each other's changes by way of PostgreSQL; on SQLite the one that is new would not hear of
 * tokens that the old one still revokes. What shares a process with identity was not made to run twice.
 */
const successionOf = (
  kinds: readonly [ProcessKind, ...ProcessKind[]],
  { database }: ClusterConfig,
): ProcessSpec["succession"] => {
  const [{ role }] = kinds;
  if (role === "proxy") return "overlapping";
  return role === "identity" && kinds.length === 1 && database !== undefined ? "overlapping" : "in-turn";
};

/** In order; those that one process is made of together. */
const byProcess = (kinds: readonly ProcessKind[]): readonly (readonly [ProcessKind, ...ProcessKind[]])[] => {
  const groups = new Map<string, [ProcessKind, ...ProcessKind[]]>();
  for (const kind of kinds) {
    const group = groups.get(kind.processRole);
    if (group === undefined) groups.set(kind.processRole, [kind]);
    else group.push(kind);
  }
  return [...groups.values()];
};

/** What the supervisor starts. */
export const processSpecs = (paths: RuntimePaths, config: ClusterConfig, roles: readonly string[]): ProcessSpec[] => {
  const groups = deviceGroupsOf(config);
  const specOf = (
    kinds: readonly [ProcessKind, ...ProcessKind[]],
    name: string,
    processRole: string,
    deviceCount: number,
  ): ProcessSpec => {
    const [kind] = kinds;
    const own = ["--data", paths.dataDir, "--node", config.node, "--role", processRole];
    const role = kinds.map((one) => one.role).join(",");
    return {
      role,
      name,
      processRole,
      entry: entryOf(kind),
      arguments: [...own, "--device-groups", formatDeviceGroups(groups)],
      environment: {
        ...environmentOf(kind, deviceCount),
        ...(kind.entry === CONTROL_ENTRY ? { [CONTROL_ROLES]: role } : {}),
      },
      nodeFlags: kind.service === "object" ? BODY_HEAP_FLAGS : [],
      outputFile: join(paths.logsDir, `${processRole}.out`),
      listeners: kinds.flatMap((one) => listenersOf(one, paths, config)),
      succession: successionOf(kinds, config),
    };
  };
  return byProcess(chosenKinds(config, roles)).flatMap((kinds) => {
    const [{ role, processRole }] = kinds;
    if (role !== "storage-node" || groups.length <= 1) return [specOf(kinds, role, processRole, config.devices.length)];
    return groups.map((devices) => {
      const name = storageNodeName(groups, devices[0] ?? "");
      return specOf(kinds, name, name, devices.length);
    });
  });
};

/** Whether the others serve without the process of this role. */
export const isOptionalRole = (role: string): boolean =>
  PROCESS_KINDS.some((kind) => kind.role === role && kind.isOptional === true);

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
    const missing = missingProgram(service, roles);
    if (missing !== undefined)
      return [{ service, reason: `${missing.program} is not installed`, remedy: missing.remedy }];
    const kind = PROCESS_KINDS.find(({ ports }) => ports.some((port) => port === service));
    const reason = `node ${config.node} has the roles ${roles.join(",")}`;
    return [{ service, reason, remedy: `ask a node with the role ${kind?.role ?? service}` }];
  });
  const reason = `this version of Ringstead (${version()}) does not have the S3 face: its port answers 501 NotImplemented`;
  return [...absent, { service: "s3", reason, remedy: "use the Swift API of the object service" }];
};
