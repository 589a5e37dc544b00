import { type Selectable, sql } from "kysely";
import { Type } from "typebox";
import { blockError } from "../core/block-error.ts";
import { schedulerPool } from "../hosts.ts";
import type { BlockDatabase } from "../store/schema.ts";
import { type BlockContext, type BlockRoute, blockRoute, truthOf } from "./block-route.ts";
import { parameter, queryOf } from "./list-parameters.ts";
import { DRIVER_VERSION, servicesOf, setServiceEnabled, type ShownService, VOLUME_SERVICE } from "./services.ts";

const CLUSTERS_SINCE = 7;
const CLEANUP_SINCE = 24;
const hostParams = Type.Object({ host: Type.String({ minLength: 1, maxLength: 255 }) });
const text = Type.Optional(Type.Union([Type.String({ maxLength: 255 }), Type.Null()]));
const truth = Type.Optional(Type.Unknown());

const hostOf = (service: ShownService): object => ({
  host_name: service.host,
  service: service.binary,
  zone: service.zone,
  "service-status": service.state === "up" ? "available" : "unavailable",
  "service-state": service.status,
  "last-update": service.updated_at,
});

type Resource = { readonly project: string; readonly volumes: number; readonly volumeGib: number };

/** Per project, what is on a back-end: `NODE@BACKEND`. */
const volumesOn = async (database: BlockDatabase, host: string): Promise<readonly Resource[]> => {
  const rows = await database
    .selectFrom("volumes")
    .select(["project_id", sql<number>`COUNT(*)`.as("volumes"), sql<number>`SUM(size_gib)`.as("gib")])
    .where(sql<string>`SUBSTR(backend, 1, ${host.length + 1})`, "=", `${host}#`)
    .groupBy("project_id")
    .orderBy("project_id")
    .execute();
  return rows.map((row) => ({
    project: row.project_id,
    volumes: Number(row.volumes),
    volumeGib: Number(row.gib),
  }));
};

type Counted = Selectable<{ project: string; snapshots: number; gib: number }>;

const snapshotsOn = async (database: BlockDatabase, host: string): Promise<ReadonlyMap<string, Counted>> => {
  const rows = await database
    .selectFrom("snapshots")
    .innerJoin("volumes", "volumes.id", "snapshots.volume_id")
    .select([
      "volumes.project_id as project",
      sql<number>`COUNT(*)`.as("snapshots"),
      sql<number>`SUM(snapshots.size_gib)`.as("gib"),
    ])
    .where(sql<string>`SUBSTR(volumes.backend, 1, ${host.length + 1})`, "=", `${host}#`)
    .groupBy("volumes.project_id")
    .execute();
  return new Map(rows.map((row) => [row.project, row]));
};

const resourcesOf = async (database: BlockDatabase, host: string): Promise<readonly object[]> => {
  const snapshots = await snapshotsOn(database, host);
  const rows = (await volumesOn(database, host)).map((row) => ({
    ...row,
    snapshots: Number(snapshots.get(row.project)?.snapshots ?? 0),
    snapshotGib: Number(snapshots.get(row.project)?.gib ?? 0),
  }));
  const none = { project: "(total)", volumes: 0, volumeGib: 0, snapshots: 0, snapshotGib: 0 };
  const total = rows.reduce(
    (sum, row) => ({
      project: sum.project,
      volumes: sum.volumes + row.volumes,
      volumeGib: sum.volumeGib + row.volumeGib,
      snapshots: sum.snapshots + row.snapshots,
      snapshotGib: sum.snapshotGib + row.snapshotGib,
    }),
    none,
  );
  return [total, ...rows].map((row) => ({
    resource: {
      host,
      project: row.project,
      volume_count: String(row.volumes),
      total_volume_gb: String(row.volumeGib),
      snapshot_count: String(row.snapshots),
      total_snapshot_gb: String(row.snapshotGib),
    },
  }));
};

const hostNotFound = (host: string): Error => blockError("not-found", `Host '${host}' could not be found.`);

const volumeService = async (context: BlockContext, host: string): Promise<ShownService> => {
  const found = (await servicesOf(context)).find((one) => one.binary === VOLUME_SERVICE && one.host === host);
  if (found === undefined) throw hostNotFound(host);
  return found;
};

const serviceView = (service: ShownService, index: number): object => ({
  id: index + 1,
  host: service.host,
  binary: service.binary,
  cluster_name: null,
});

const cleanupBody = Type.Object({
  cluster_name: text,
  service_id: Type.Optional(Type.Unknown()),
  host: text,
  binary: Type.Optional(Type.Union([Type.Literal("cinder-volume"), Type.Literal("cinder-scheduler"), Type.Null()])),
  is_up: truth,
  disabled: truth,
  resource_id: text,
  resource_type: Type.Optional(
    Type.Union([
      Type.Literal("Volume"),
      Type.Literal("Snapshot"),
      Type.Literal("volume"),
      Type.Literal("snapshot"),
      Type.Null(),
    ]),
  ),
});

/** Throws `bad-request`. */
const truthIn = (value: unknown, field: string): boolean | undefined => {
  if (value === undefined || value === null) return undefined;
  const found = truthOf(value);
  if (found === undefined) throw blockError("bad-request", `Invalid input for field/attribute ${field}.`);
  return found;
};

/** Hosts as operators look at them: what they can do, what is on them, and whether they take more. */
export const HOST_ROUTES: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: "/capabilities/:host",
    request: { params: hostParams },
    operation: "volume_extension:capabilities",
    handler: async (request, context) => {
      const { host } = request.params;
      const { pools } = await context.hosts.reports();
      const reported = pools.find(({ name }) => name === host || name.split("#", 1)[0] === host);
      if (reported === undefined) throw hostNotFound(host);
      const { capabilities } = schedulerPool(reported, context.config.availabilityZone, true, 0);
      return {
        status: 200,
        body: {
          namespace: `OS::Storage::Capabilities::${host}`,
          vendor_name: capabilities["vendor_name"],
          volume_backend_name: capabilities["volume_backend_name"],
          pool_name: host.includes("#") ? capabilities["pool_name"] : null,
          driver_version: DRIVER_VERSION,
          storage_protocol: context.config.storageProtocol,
          display_name: `${String(capabilities["vendor_name"])} ${reported.report.driver}`,
          description: null,
          visibility: "public",
          replication_targets: [],
          properties: {
            thin_provisioning: {
              title: "Thin Provisioning",
              description: "Sets thin provisioning.",
              type: "boolean",
            },
          },
        },
      };
    },
  }),
  ...blockRoute({
    method: "GET",
    path: "/os-hosts",
    request: {},
    operation: "volume_extension:hosts",
    handler: async (request, context) => {
      const zone = parameter(queryOf(request.query), "zone");
      const found = (await servicesOf(context)).filter((one) => zone === undefined || one.zone === zone);
      return { status: 200, body: { hosts: found.map(hostOf) } };
    },
  }),
  ...blockRoute({
    method: "GET",
    path: "/os-hosts/:host",
    request: { params: hostParams },
    operation: "volume_extension:hosts",
    handler: async (request, context) => {
      const { host } = await volumeService(context, request.params.host);
      return { status: 200, body: { host: await resourcesOf(context.database, host) } };
    },
  }),
  ...blockRoute({
    method: "PUT",
    path: "/os-hosts/:host",
    request: {
      params: hostParams,
      body: Type.Object({ status: Type.Union([Type.Literal("enable"), Type.Literal("disable")]) }),
    },
    operation: "volume_extension:hosts",
    handler: async (request, context) => {
      const { host } = await volumeService(context, request.params.host);
      const isEnabled = request.body.status === "enable";
      await setServiceEnabled(context, host, isEnabled, null);
      return { status: 200, body: { host, status: isEnabled ? "enabled" : "disabled" } };
    },
  }),
  ...["/clusters", "/clusters/detail"].flatMap((path) =>
    blockRoute({
      method: "GET",
      path,
      since: CLUSTERS_SINCE,
      request: {},
      operation: "clusters:get_all",
      // Hosts here share no back-end, so that none stands in for another.
      handler: () => ({ status: 200, body: { clusters: [] } }),
    }),
  ),
  ...blockRoute({
    method: "GET",
    path: "/clusters/:cluster_id",
    since: CLUSTERS_SINCE,
    request: { params: Type.Object({ cluster_id: Type.String() }) },
    operation: "clusters:get",
    handler: (request) => {
      throw blockError("not-found", `Cluster ${request.params.cluster_id} could not be found.`);
    },
  }),
  ...blockRoute({
    method: "PUT",
    path: "/clusters/:cluster_id",
    since: CLUSTERS_SINCE,
    request: {
      params: Type.Object({ cluster_id: Type.Union([Type.Literal("enable"), Type.Literal("disable")]) }),
      body: Type.Object({ name: Type.String({ minLength: 1, maxLength: 255 }), binary: text, disabled_reason: text }),
    },
    operation: "clusters:update",
    handler: (request) => {
      throw blockError("not-found", `Cluster ${request.body.name} could not be found.`);
    },
  }),
  ...blockRoute({
    method: "POST",
    path: "/workers/cleanup",
    since: CLEANUP_SINCE,
    request: { body: cleanupBody },
    operation: "workers:cleanup",
    handler: async (request, context) => {
      const wanted = request.body;
      const isUp = truthIn(wanted.is_up, "is_up") ?? false;
      const isDisabled = truthIn(wanted.disabled, "disabled");
      const meant = (await servicesOf(context)).filter(
        (one) =>
          (wanted.host ?? one.host) === one.host &&
          (wanted.binary ?? one.binary) === one.binary &&
          (isDisabled ?? one.status === "disabled") === (one.status === "disabled") &&
          (one.state === "up") === isUp,
      );
      // What a process left stands in the database, and whoever runs goes on with it: this only has it looked at now.
      context.tasks.wake();
      const views = meant.map(serviceView);
      return { status: 202, body: isUp ? { cleaning: views, unavailable: [] } : { cleaning: [], unavailable: views } };
    },
  }),
];
