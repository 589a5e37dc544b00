import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import { hostname } from "node:os";
import { join, resolve } from "node:path";
import { parse } from "smol-toml";
import { type Static, Type } from "typebox";
import { Value } from "typebox/value";
import { codeOf, messageOf, RingsteadError } from "./errors.ts";
import type { RpcTlsFiles, TcpAddress } from "./rpc/secure-transport.ts";
import { runtimePaths } from "./runtime-paths.ts";
import { type DatabaseServer, databaseSchema, databaseServerOf } from "./sql/database-config.ts";
import { storagePoliciesOf, storagePoliciesSchema, type StoragePolicy } from "./storage-policy.ts";

/** The name of the only node of an installation that `up` started. */
export const LOCAL_NODE = "local";

/** What `--only` and the key `only` choose from. */
export const SERVICES = ["identity", "object", "image", "block", "compute", "network"] as const;
export type ServiceName = (typeof SERVICES)[number];

/** Public ports before `port_offset`; `s3` is the port that speaks S3 alone. */
export const PUBLIC_PORTS = {
  identity: 5000,
  object: 8080,
  s3: 9000,
  block: 8776,
  image: 9292,
  compute: 8774,
  network: 9696,
} as const;
export type PublicPort = keyof typeof PUBLIC_PORTS;

/** The Prometheus page where `metrics_bind` says nothing; moves with `port_offset` as the public ports do. */
export const METRICS_PORT = 9187;
/** The highest public port of the design, 10809, plus the offset must stay a port. */
const PORT_OFFSET_MAX = 50_000;
const DEVICES_MAX = 64;
/** Where a node's storage processes listen for the other nodes; its identity process listens on the next port. */
const RPC_PORT = 6200;

/** Keys that a `[node.NAME]` table may set for its node; top-level ones hold for all. */
const nodeKeys = {
  /** Address that public APIs listen on. */
  bind: Type.Optional(Type.String({ minLength: 1 })),
  /** Host name or address that catalogs give to clients. */
  public_url: Type.Optional(Type.String({ minLength: 1 })),
  /** Added to every public port. */
  port_offset: Type.Optional(Type.Integer({ minimum: 0, maximum: PORT_OFFSET_MAX })),
  /** Number of device folders in DIR/devices. */
  devices: Type.Optional(Type.Integer({ minimum: 1, maximum: DEVICES_MAX })),
  /** Mounted disks, absolute paths; takes the place of `devices`. */
  device: Type.Optional(Type.Array(Type.String({ pattern: "^/" }), { minItems: 1, maxItems: DEVICES_MAX })),
  /** PEM files, both or neither. */
  tls_cert: Type.Optional(Type.String({ minLength: 1 })),
  tls_key: Type.Optional(Type.String({ minLength: 1 })),
  /**
   * PEM files of this node's certificate and key and of the authority of all nodes' certificates: RPC between nodes is then in TLS by these; all three
   * or none. A node's certificate names its `address`. Without them the cluster key is what both sides prove in TLS.
   */
  rpc_tls_cert: Type.Optional(Type.String({ minLength: 1 })),
  rpc_tls_key: Type.Optional(Type.String({ minLength: 1 })),
  rpc_tls_ca: Type.Optional(Type.String({ minLength: 1 })),
  /** host:port of the Prometheus page; without authentication, therefore local by default. */
  metrics_bind: Type.Optional(Type.String({ pattern: "^.+:[0-9]{1,5}$" })),
  /** Port on which this node's storage processes listen for the other nodes, where there are any. */
  rpc_port: Type.Optional(Type.Integer({ minimum: 1, maximum: 65_534 })),
};

const nodeSchema = Type.Object(
  {
    ...nodeKeys,
    /** Host name or address at which the other nodes reach this one; its own name where it is not given. */
    address: Type.Optional(Type.String({ minLength: 1, maxLength: 253 })),
  },
  { additionalProperties: false },
);

const fileSchema = Type.Object(
  {
    ...nodeKeys,
    region: Type.Optional(Type.String({ pattern: "^[A-Za-z0-9_.-]{1,64}$" })),
    /** Copies of every object, container and account row. */
    replicas: Type.Optional(Type.Integer({ minimum: 1, maximum: 7 })),
    /** The rings have 2^partition_power partitions; fixed once the rings are made. Devices compare what they hold in 2^16 parts. */
    partition_power: Type.Optional(Type.Integer({ minimum: 1, maximum: 16 })),
    only: Type.Optional(Type.Array(Type.Enum(SERVICES), { minItems: 1 })),
    /** Sets the password of user `admin`, as `--admin-password` does; normally kept in a file of its own. */
    admin_password: Type.Optional(Type.String({ minLength: 1, maxLength: 256 })),
    detach: Type.Optional(Type.Boolean()),
    /** The node whose identity process the others ask; the first `[node.NAME]` table where it is not given. */
    identity_node: Type.Optional(Type.String({ minLength: 1 })),
    /** The PostgreSQL server of the control plane. */
    database: Type.Optional(databaseSchema),
    node: Type.Optional(Type.Record(Type.String(), nodeSchema)),
    /**
     * Seconds that the data plane goes on with the revocations it knows when it hears of no new ones; 0: without the identity service
     * tokens are refused at once.
     */
    revocation_grace_seconds: Type.Optional(Type.Integer({ minimum: 0, maximum: 86_400 })),
    /** Days in which every byte of every device is read and checked once; 0: only when an operator asks for it. */
    /**
     * Days after which a deletion may be forgotten, once all replicas have it; 0: never. Long enough for whoever was away to come back: as long as one of them is
     * away nothing is forgotten there.
     */
    reclaim_days: Type.Optional(Type.Number({ minimum: 0, maximum: 365 })),
    scrub_days: Type.Optional(Type.Number({ minimum: 0, maximum: 365 })),
    container: Type.Optional(
      Type.Object(
        {
          /** Names of one listing above which it is split into two; neighbours that have less than a quarter of it together are merged. */
          shard_names: Type.Optional(Type.Integer({ minimum: 10, maximum: 1_000_000_000 })),
        },
        { additionalProperties: false },
      ),
    ),
    /** What containers may choose from, by name. */
    storage_policy: Type.Optional(storagePoliciesSchema),
    /** Checked by the identity service: identity/config.ts. */
    identity: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
    /** Checked by the block service: block/config.ts. */
    block: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
  },
  { additionalProperties: false },
);

/** The keys of cluster.toml as they stand in the file. */
export type ClusterFile = Static<typeof fileSchema>;

/** Where a node of several is reached. */
type NodeAddress = { readonly host: string; readonly rpcPort: number };

/** The other machines of an installation that `serve` runs on several. */
type Cluster = {
  /** Every `[node.NAME]` table, this node's too. */
  readonly nodes: Readonly<Record<string, NodeAddress>>;
  readonly identityNode: string;
  /** The files that this node has; absent where the cluster key does. */
  readonly rpcTls?: RpcTlsFiles;
};

/** What every process of one node knows of its installation. Frozen. */
export type ClusterConfig = {
  readonly node: string;
  readonly bind: string;
  /** Scheme and host without a port, such as `http://127.0.0.1`; use `publicEndpoint` for a service's address. */
  readonly publicUrl: string;
  readonly portOffset: number;
  readonly region: string;
  /** Absolute paths. The device at index i is `deviceName(i)` in the rings. */
  readonly devices: readonly string[];
  readonly replicas: number;
  readonly partitionPower: number;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly metricsBind: string;
  readonly services: readonly ServiceName[];
  readonly adminPassword?: string;
  readonly detach: boolean;
  /** Absent where each service of the control plane has a SQLite file. */
  readonly database?: DatabaseServer;
  readonly revocationGraceSeconds: number;
  readonly scrubDays: number;
  readonly reclaimDays: number;
  /** Names of one listing above which it is split. */
  readonly shardNames: number;
  /** By their numbers; one at least. */
  readonly storagePolicies: readonly StoragePolicy[];
  /** The table `[identity]` as it stands in the file. */
  readonly identity: Readonly<Record<string, unknown>>;
  readonly block: Readonly<Record<string, unknown>>;
  /** Absent where all is on one machine: then nothing internal has a TCP port. */
  readonly cluster?: Cluster;
};

/** The name in the rings of the device at `index` of `ClusterConfig.devices`. */
export const deviceName = (index: number): string => `d${index + 1}`;

const refuse = (message: string, fields: Record<string, unknown> = {}): never => {
  throw new RingsteadError("invalid-config", message, fields);
};

/** Messages quote what they complain of, and the URL of a database may have a password in it. */
const withoutPassword = (text: string): string => text.replace(/(:\/\/[^:@/\s]*):\S*@/g, "$1:…@");

/** Parses and validates the text of a cluster.toml; `source` names it in messages. Throws RingsteadError `invalid-config`. */
export const parseClusterFile = (text: string, source: string): ClusterFile => {
  let value: unknown;
  try {
    value = parse(text);
  } catch (thrown) {
    return refuse(`${source} is not TOML: ${withoutPassword(messageOf(thrown))}`);
  }
  if (Value.Check(fileSchema, value)) return value;
  const problems = Value.Errors(fileSchema, value).flatMap(
    (error) => withoutPassword(describe(error, value) ?? "") || [],
  );
  return refuse(`${source}: ${[...new Set(problems)].join("; ")}`, { problems });
};

type SchemaProblem = { keyword: string; instancePath: string; message: string; params: object };

/** One problem in words, or undefined where another problem of the same key says it better. */
const describe = ({ keyword, instancePath, message, params }: SchemaProblem, value: unknown): string | undefined => {
  const key = instancePath.slice(1).replaceAll("/", ".");
  if (keyword === "additionalProperties" && "additionalProperties" in params) {
    const unknown = [params.additionalProperties].flat().map((name) => (key ? `${key}.${String(name)}` : String(name)));
    return `unknown key ${unknown.join(", ")}`;
  }
  if (keyword === "boolean") return undefined;
  let given = value;
  for (const part of instancePath.split("/").slice(1)) given = (given as Record<string, unknown> | undefined)?.[part];
  const wanted = keyword === "enum" ? `must be one of ${SERVICES.join(", ")}` : message;
  return `${key} ${wanted}, not ${JSON.stringify(given)}`;
};

const publicUrlOf = (scheme: string, bind: string, given: string | undefined, ownHost: string): string => {
  const unspecified = bind === "0.0.0.0" || bind === "::";
  const host = given ?? (unspecified ? ownHost : bind);
  // An URL is what people type after reading "public URL"; its host is what is meant.
  const bare = host.replace(/^https?:\/\//, "").replace(/\/+$/, "");
  return `${scheme}://${bare.includes(":") && !bare.startsWith("[") ? `[${bare}]` : bare}`;
};

const rpcTlsOf = (keys: Pick<ClusterFile, "rpc_tls_cert" | "rpc_tls_key" | "rpc_tls_ca">): RpcTlsFiles | undefined => {
  const { rpc_tls_cert: cert, rpc_tls_key: key, rpc_tls_ca: ca } = keys;
  if (cert === undefined && key === undefined && ca === undefined) return undefined;
  if (cert === undefined || key === undefined || ca === undefined)
    return refuse("rpc_tls_cert, rpc_tls_key and rpc_tls_ca belong together: one of them is missing");
  return { cert: resolve(cert), key: resolve(key), ca: resolve(ca) };
};

/** Undefined where cluster.toml names no node but this one, and under `up`, which is one machine by definition. */
const clusterOf = (file: ClusterFile, node: string): Cluster | undefined => {
  const names = Object.keys(file.node ?? {});
  if (node === LOCAL_NODE || !names.includes(node) || names.length < 2) return undefined;
  const nodes = Object.entries(file.node ?? {}).map(([name, table]): [string, NodeAddress] => [
    name,
    Object.freeze({ host: table.address ?? name, rpcPort: table.rpc_port ?? file.rpc_port ?? RPC_PORT }),
  ]);
  const identityNode = file.identity_node ?? names[0] ?? node;
  if (!names.includes(identityNode)) refuse(`identity_node: there is no table [node.${identityNode}]`);
  const rpcTls = rpcTlsOf({ ...file, ...file.node?.[node] });
  return Object.freeze({
    nodes: Object.freeze(Object.fromEntries(nodes)),
    identityNode,
    ...(rpcTls === undefined ? {} : { rpcTls }),
  });
};

/** The frozen configuration of `node` from a validated file. `host` stands in for an unspecified bind address. */
export const resolveConfig = (file: ClusterFile, dataDir: string, node: string, host: string): ClusterConfig => {
  const merged = { ...file, ...file.node?.[node] };
  if ((merged.tls_cert === undefined) !== (merged.tls_key === undefined)) {
    refuse("tls_cert and tls_key belong together: one of them is missing");
  }
  const bind = merged.bind ?? "127.0.0.1";
  const folders = Array.from({ length: merged.devices ?? 4 }, (_, index) => deviceName(index));
  const devices = merged.device ?? folders.map((name) => join(runtimePaths(dataDir).devicesDir, name));
  if (new Set(devices).size !== devices.length) refuse("device: one path is given twice");
  const portOffset = merged.port_offset ?? 0;
  const tls = merged.tls_cert !== undefined;
  const cluster = clusterOf(file, node);
  return Object.freeze({
    node,
    bind,
    publicUrl: publicUrlOf(tls ? "https" : "http", bind, merged.public_url, host),
    portOffset,
    region: merged.region ?? "RegionOne",
    devices: Object.freeze(devices),
    replicas: merged.replicas ?? 3,
    partitionPower: merged.partition_power ?? 10,
    ...(merged.tls_cert === undefined ? {} : { tlsCert: resolve(merged.tls_cert) }),
    ...(merged.tls_key === undefined ? {} : { tlsKey: resolve(merged.tls_key) }),
    metricsBind: merged.metrics_bind ?? `127.0.0.1:${METRICS_PORT + portOffset}`,
    services: Object.freeze([...new Set<ServiceName>(["identity", ...(merged.only ?? SERVICES)])]),
    ...(merged.admin_password === undefined ? {} : { adminPassword: merged.admin_password }),
    detach: merged.detach ?? false,
    ...(file.database === undefined ? {} : { database: databaseServerOf(file.database) }),
    revocationGraceSeconds: merged.revocation_grace_seconds ?? 300,
    scrubDays: merged.scrub_days ?? 7,
    // A disk that lost a deletion which all others have forgotten would bring back what was deleted.
    reclaimDays: merged.reclaim_days ?? 7,
    // Ten million names are then ten listings, each still read from one replica in milliseconds.
    shardNames: merged.container?.shard_names ?? 1_000_000,
    storagePolicies: storagePoliciesOf(file.storage_policy, refuse),
    identity: merged.identity ?? {},
    block: merged.block ?? {},
    ...(cluster === undefined ? {} : { cluster }),
  });
};

/** Reads DIR/cluster.toml. Throws RingsteadError `invalid-config`, also where the file is absent. */
export const loadConfig = (dataDir: string, node: string = LOCAL_NODE, host: string = hostname()): ClusterConfig => {
  const { clusterToml } = runtimePaths(dataDir);
  let text: string;
  try {
    text = readFileSync(clusterToml, "utf8");
  } catch (thrown) {
    return refuse(`${clusterToml} cannot be read (${codeOf(thrown) ?? messageOf(thrown)})`);
  }
  return resolveConfig(parseClusterFile(text, clusterToml), dataDir, node, host);
};

/** The port on which this node serves `port`. */
export const portOf = (config: Pick<ClusterConfig, "portOffset">, port: PublicPort): number =>
  PUBLIC_PORTS[port] + config.portOffset;

/** `http://HOST:PORT` of a public service, without a path, as catalogs and ready.json say it. */
export const publicEndpoint = (config: Pick<ClusterConfig, "portOffset" | "publicUrl">, port: PublicPort): string =>
  `${config.publicUrl}:${portOf(config, port)}`;

/** A process that other nodes reach over TCP. */
export type RpcRole = "storage-node" | "control";

/** Where the process `role` of `node` listens for other nodes, and how they secure what they say, as these reach it. Undefined for an unknown node, and on one machine. */
export const rpcAddress = (
  { cluster }: Pick<ClusterConfig, "cluster">,
  node: string,
  role: RpcRole,
): TcpAddress | undefined => {
  const address = cluster !== undefined && Object.hasOwn(cluster.nodes, node) ? cluster.nodes[node] : undefined;
  if (address === undefined) return undefined;
  const port = address.rpcPort + (role === "control" ? 1 : 0);
  return { host: address.host, port, ...(cluster?.rpcTls === undefined ? {} : { tls: cluster.rpcTls }) };
};

/**
 * Where this node's process `role` listens for the other nodes. An `address` that is an IP address is listened on; behind a name there may be
 * another interface (Debian gives a host's own name 127.0.1.1), so with a name every interface is.
 */
export const rpcListenAddress = (
  config: Pick<ClusterConfig, "cluster" | "node">,
  role: RpcRole,
): TcpAddress | undefined => {
  const address = rpcAddress(config, config.node, role);
  return address === undefined || isIP(address.host) !== 0 ? address : { ...address, host: "::" };
};
