import { Type } from "typebox";
import { RingsteadError } from "../../common/errors.ts";
import { blockError, notFound } from "../core/block-error.ts";
import { schedulerPool } from "../hosts.ts";
import { type BlockContext, type BlockRoute, blockRoute, timeText, truthOf } from "./block-route.ts";
import { parameter, queryOf } from "./list-parameters.ts";

const BACKEND_STATE_SINCE = 49;
const POOL_FILTER_SINCE = 28;
const SCHEDULER = "cinder-scheduler";
export const VOLUME_SERVICE = "cinder-volume";
export const DRIVER_VERSION = "1.0";

export type ShownService = {
  readonly binary: string;
  readonly host: string;
  readonly zone: string;
  readonly status: "enabled" | "disabled";
  readonly state: "up" | "down";
  readonly updated_at: string | null;
  readonly disabled_reason: string | null;
};

/** Services as operators know them: what schedules, and one for each back-end. */
export const servicesOf = async ({
  database,
  hosts,
  config,
  clock,
}: BlockContext): Promise<readonly ShownService[]> => {
  const now = timeText(clock.nowMs());
  const rows = new Map((await database.selectFrom("services").selectAll().execute()).map((row) => [row.node, row]));
  const { silent, pools } = await hosts.reports();
  const away = new Set(silent.map(({ node }) => node));
  const zone = config.availabilityZone;
  // One that never answered has no back-ends with names yet.
  const backends = hosts.nodes.flatMap((node) => {
    const names = new Set(pools.filter((pool) => pool.node === node).map(({ name }) => name.split("#", 1)[0] ?? node));
    return (names.size === 0 ? [node] : [...names]).map((host) => ({ node, host }));
  });
  return [
    {
      binary: SCHEDULER,
      host: hosts.nodes[0] ?? "",
      zone,
      status: "enabled",
      state: "up",
      updated_at: now,
      disabled_reason: null,
    },
    ...backends.map(({ node, host }): ShownService => {
      const row = rows.get(node);
      return {
        binary: VOLUME_SERVICE,
        host,
        zone,
        status: row?.disabled === 1 ? "disabled" : "enabled",
        state: away.has(node) ? "down" : "up",
        updated_at: row === undefined ? now : timeText(row.updated_at_ms),
        disabled_reason: row?.disabled_reason ?? null,
      };
    }),
  ];
};

/** Says whether new volumes may be placed on the node of a back-end. */
export const setServiceEnabled = async (
  { writer, clock }: BlockContext,
  host: string,
  isEnabled: boolean,
  reason: string | null,
): Promise<void> => {
  const row = {
    disabled: Number(!isEnabled),
    disabled_reason: isEnabled ? null : reason,
    updated_at_ms: clock.nowMs(),
  };
  await writer
    .insertInto("services")
    .values({ node: host.split("@", 1)[0] ?? host, ...row })
    .onConflict((conflict) => conflict.column("node").doUpdateSet(row))
    .execute();
};

const updateBody = Type.Object({
  host: Type.String({ minLength: 1, maxLength: 255 }),
  binary: Type.Optional(Type.String({ maxLength: 255 })),
  service: Type.Optional(Type.String({ maxLength: 255 })),
  disabled_reason: Type.Optional(Type.Union([Type.String({ minLength: 1, maxLength: 255 }), Type.Null()])),
});

const ACTIONS: Readonly<Record<string, { readonly isDisabling: boolean; readonly needsReason: boolean }>> = {
  enable: { isDisabling: false, needsReason: false },
  disable: { isDisabling: true, needsReason: false },
  "disable-log-reason": { isDisabling: true, needsReason: true },
};
/** Known to the real service, not built here. */
const ABSENT_ACTIONS = new Set(["freeze", "thaw", "failover_host", "failover", "set-log", "get-log"]);

export const SERVICE_ROUTES: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: "/os-services",
    request: {},
    operation: "volume_extension:services:index",
    handler: async (request, context, caller) => {
      const query = queryOf(request.query);
      const [host, binary] = [parameter(query, "host"), parameter(query, "binary") ?? parameter(query, "service")];
      const found = (await servicesOf(context)).filter(
        (one) =>
          (host === undefined || one.host === host || one.host.split("@", 1)[0] === host) &&
          (binary ?? one.binary) === one.binary,
      );
      const more = (one: ShownService): object =>
        one.binary === VOLUME_SERVICE
          ? {
              frozen: false,
              replication_status: "disabled",
              active_backend_id: null,
              ...(caller.version >= BACKEND_STATE_SINCE ? { backend_state: one.state } : {}),
            }
          : {};
      return { status: 200, body: { services: found.map((one) => ({ ...one, ...more(one) })) } };
    },
  }),
  ...blockRoute({
    method: "PUT",
    path: "/os-services/:action",
    request: { params: Type.Object({ action: Type.String() }), body: updateBody },
    operation: "volume_extension:services:update",
    handler: async (request, context) => {
      const { action } = request.params;
      if (ABSENT_ACTIONS.has(action)) {
        const isKnown = (await servicesOf(context)).some((one) => one.host === request.body.host);
        if (!isKnown)
          throw blockError("bad-request", `Invalid input received: there is no service on ${request.body.host}.`);
        throw new RingsteadError("not-implemented", `The action ${action} of services is not implemented.`);
      }
      const known = Object.hasOwn(ACTIONS, action) ? ACTIONS[action] : undefined;
      if (known === undefined) throw notFound("Action", action);
      const { host, disabled_reason: reason = null } = request.body;
      const binary = request.body.binary ?? request.body.service ?? "";
      if (known.needsReason && reason === null)
        throw blockError("bad-request", "'disabled_reason' is a required property");
      const found = (await servicesOf(context)).find((one) => one.host === host && one.binary === binary);
      // The scheduler has no host that could be taken out of use.
      if (found === undefined || found.binary !== VOLUME_SERVICE)
        throw notFound("Service", `${binary} on host ${host}`);
      await setServiceEnabled(context, host, !known.isDisabling, reason);
      const status = known.isDisabling ? "disabled" : "enabled";
      const shownReason = action === "disable" ? {} : { disabled_reason: known.isDisabling ? reason : null };
      return {
        status: 200,
        body: { host, binary, service: binary, disabled: known.isDisabling, status, ...shownReason },
      };
    },
  }),
  ...blockRoute({
    method: "GET",
    path: "/scheduler-stats/get_pools",
    request: {},
    operation: "scheduler_extension:scheduler_stats:get_pools",
    handler: async (request, context, caller) => {
      const query = queryOf(request.query);
      const isDetailed = truthOf(parameter(query, "detail") ?? "false") === true;
      const name = caller.version >= POOL_FILTER_SINCE ? parameter(query, "name") : undefined;
      const { pools } = await context.hosts.reports();
      const { scheduler, availabilityZone, storageProtocol } = context.config;
      const now = timeText(context.clock.nowMs());
      const shown = pools
        .filter((pool) => name === undefined || pool.name === name)
        .map((reported) => {
          if (!isDetailed) return { name: reported.name };
          const pool = schedulerPool(reported, availabilityZone, true, 0);
          const capabilities = {
            ...pool.capabilities,
            // Clients take one word here: that of volumes whose type says nothing.
            storage_protocol: storageProtocol,
            total_capacity_gb: pool.totalGib,
            free_capacity_gb: pool.freeGib,
            provisioned_capacity_gb: pool.provisionedGib,
            allocated_capacity_gb: pool.provisionedGib,
            reserved_percentage: scheduler.reservedPercentage,
            max_over_subscription_ratio: String(scheduler.maxOverSubscriptionRatio),
            thin_provisioning_support: pool.isThin,
            thick_provisioning_support: !pool.isThin,
            multiattach: true,
            QoS_support: false,
            total_volumes: pool.volumeCount,
            backend_state: pool.failure === undefined ? "up" : "down",
            driver_version: DRIVER_VERSION,
            location_info: null,
            timestamp: now,
            updated: now,
          };
          return { name: reported.name, capabilities };
        });
      return { status: 200, body: { pools: shown } };
    },
  }),
  ...blockRoute({
    method: "GET",
    path: "/os-availability-zone",
    request: {},
    operation: "volume:availability_zone_list",
    handler: (_request, { config }) => ({
      status: 200,
      body: { availabilityZoneInfo: [{ zoneName: config.availabilityZone, zoneState: { available: true } }] },
    }),
  }),
];
