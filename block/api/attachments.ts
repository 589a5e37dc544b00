import { randomUUID } from "node:crypto";
import { sql, type SqlBool } from "kysely";
import { Type } from "typebox";
import type { HttpRequest } from "../../common/http/route.ts";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError, notFound } from "../core/block-error.ts";
import { flatConnectionInfo } from "../core/connection-info.ts";
import type { BlockDatabase } from "../store/schema.ts";
import { type Attachment, changeVolume, followAttachments, type Volume, volumeForChange } from "../store/volumes.ts";
import {
  type BlockContext,
  type BlockRoute,
  blockRoute,
  type Caller,
  enforce,
  isUuid,
  mayDo,
  timeText,
  truthOf,
  visibleVolume,
} from "./block-route.ts";
import {
  awaitTask,
  connectionOf,
  type Connector,
  connectorJson,
  connectorSchema,
  connectorText,
  detach,
  enqueueConnect,
  modeOf,
} from "./connections.ts";
import {
  behindMarker,
  markerNotFound,
  nextLinks,
  orderOf,
  pageOf,
  parameter,
  queryOf,
  type SortColumn,
} from "./list-parameters.ts";
import { uuidParams } from "./volume-fields.ts";

const SINCE = 27;
const COMPLETE_SINCE = 44;
const MODE_SINCE = 54;
/** Identity gives it to services alone. */
const SERVICE_ROLE = "service";

const SORT_COLUMNS: Readonly<Record<string, SortColumn>> = {
  id: { column: "id", kind: "text" },
  volume_id: { column: "volume_id", kind: "text" },
  attach_status: { column: "attach_status", kind: "text" },
  created_at: { column: "created_at_ms", kind: "number" },
};
const FILTERS: Readonly<Record<string, string>> = {
  volume_id: "volume_id",
  instance_id: "instance_uuid",
  status: "attach_status",
  attach_status: "attach_status",
};

const summary = (attachment: Attachment) => ({
  id: attachment.id,
  status: attachment.attach_status,
  instance: attachment.instance_uuid,
  volume_id: attachment.volume_id,
});

/**
 * Whoever may connect attachments of the project could have had the secrets from that; so may the services that connect for others. To read is
 * not to connect: Cinder has no rule for looking at an attachment, and shows everybody everything.
 */
const maySeeSecrets = (context: BlockContext, caller: Caller, { project_id: projectId }: Attachment): boolean =>
  mayDo(context, caller, "volume:attachment_update", projectId) || caller.token.roles.includes(SERVICE_ROLE);

const detail = (context: BlockContext, caller: Caller, attachment: Attachment) => {
  const connection = connectionOf(attachment);
  const withSecrets = maySeeSecrets(context, caller, attachment);
  return {
    ...summary(attachment),
    attached_at: timeText(attachment.attached_at_ms) ?? "",
    detached_at: "",
    attach_mode: attachment.attach_mode,
    connection_info: connection === undefined ? {} : flatConnectionInfo(connection, withSecrets),
  };
};

const list = async (request: HttpRequest, context: BlockContext, caller: Caller, isDetailed: boolean) => {
  const query = queryOf(request.query);
  const page = pageOf(query, SORT_COLUMNS, context.config.listLimit);
  const everywhere = caller.isAdmin && truthOf(parameter(query, "all_tenants") ?? "false") === true;
  const scope = everywhere ? sql<SqlBool>`1 = 1` : sql<SqlBool>`project_id = ${caller.token.projectId ?? ""}`;
  const visible = context.database.selectFrom("attachments").selectAll().where("is_connection", "=", 0).where(scope);
  let select = visible;
  for (const [name, column] of Object.entries(FILTERS)) {
    const value = parameter(query, name);
    if (value !== undefined) select = select.where(sql<SqlBool>`${sql.ref(column)} = ${value}`);
  }
  if (page.marker !== undefined) {
    const marker = await visible.where("id", "=", page.marker).executeTakeFirst();
    if (marker === undefined) throw markerNotFound(page.marker);
    select = select.where(behindMarker(page.order, marker));
  }
  for (const { value, direction } of orderOf(page.order)) select = select.orderBy(value, direction);
  const shown = await select.limit(page.limit).offset(page.offset).execute();
  const lastId = shown.length === page.limit ? shown.at(-1)?.id : undefined;
  const show = isDetailed ? (one: Attachment) => detail(context, caller, one) : summary;
  const links = nextLinks("attachments", request, context, caller, lastId);
  return { status: 200, body: { attachments: shown.map(show), ...links } };
};

const findAttachment = (database: BlockDatabase, id: string): Promise<Attachment | undefined> =>
  database.selectFrom("attachments").selectAll().where("id", "=", id).executeTakeFirst();

/** The attachment, if the caller may know that it is there. Throws `not-found`. */
const visibleAttachment = async (database: BlockDatabase, caller: Caller, id: string): Promise<Attachment> => {
  const found = isUuid(id) ? await findAttachment(database, id) : undefined;
  if (
    found === undefined ||
    found.is_connection === 1 ||
    (!caller.isAdmin && found.project_id !== caller.token.projectId)
  ) {
    throw notFound("Volume attachment", id);
  }
  return found;
};

/** Resolves with the attachment as it is after its task. Throws `host-unavailable` where the host refused or was silent. */
const connected = async (context: BlockContext, id: string, taskId: number | undefined): Promise<Attachment> => {
  if (taskId !== undefined) await awaitTask(context, taskId, "Connecting the volume");
  const attachment = await findAttachment(context.writer, id);
  if (attachment === undefined) throw notFound("Volume attachment", id);
  if (taskId !== undefined && attachment.attach_status === "error_attaching")
    throw blockError(
      "host-unavailable",
      `Unable to connect attachment ${id}: the block host could not open the volume.`,
    );
  return attachment;
};

const connectorFields = (connector: Connector, mode: "rw" | "ro") => ({
  connector_json: connectorJson(connector),
  attached_host: connectorText(connector, "host") ?? null,
  mountpoint: connectorText(connector, "mountpoint") ?? null,
  attach_mode: mode,
  attach_status: "attaching" as const,
});

const createBody = Type.Object({
  attachment: Type.Object({
    volume_uuid: Type.String(),
    instance_uuid: Type.Optional(Type.Union([Type.String({ maxLength: 255 }), Type.Null()])),
    connector: Type.Optional(Type.Union([connectorSchema, Type.Null()])),
    mode: Type.Optional(Type.Union([Type.Literal("rw"), Type.Literal("ro")])),
  }),
});

const connectorOf = (connector: Connector | null | undefined): Connector | undefined =>
  connector === null || connector === undefined || Object.keys(connector).length === 0 ? undefined : connector;

const create = async (
  context: BlockContext,
  volumeId: string,
  instance: string | null,
  connector: Connector | undefined,
  mode: string | undefined,
): Promise<Attachment> => {
  const id = randomUUID();
  const taskId = await withTransaction(context.writer, async (transaction) => {
    const nowMs = context.clock.nowMs();
    const volume = await volumeForChange(transaction, volumeId);
    const given = modeOf(connector ?? {}, volume, mode);
    await changeVolume(transaction, volume, { kind: "reserve" }, nowMs);
    const row: Attachment = {
      id,
      volume_id: volumeId,
      project_id: volume.project_id,
      instance_uuid: instance,
      attached_host: null,
      mountpoint: null,
      attach_mode: connector === undefined && mode === undefined ? null : given,
      attach_status: "reserved",
      is_connection: 0,
      connector_json: null,
      connection_json: null,
      qos_json: null,
      created_at_ms: nowMs,
      attached_at_ms: null,
      ...(connector === undefined ? {} : connectorFields(connector, given)),
    };
    await transaction.insertInto("attachments").values(row).execute();
    if (connector === undefined) return undefined;
    await changeVolume(transaction, await volumeForChange(transaction, volumeId), { kind: "connect" }, nowMs);
    return enqueueConnect(context, transaction, volumeId, id, connector, given);
  });
  return connected(context, id, taskId);
};

const connect = async (context: BlockContext, id: string, volumeId: string, connector: Connector) => {
  const taskId = await withTransaction(context.writer, async (transaction) => {
    const nowMs = context.clock.nowMs();
    const volume = await volumeForChange(transaction, volumeId);
    const attachment = await findAttachment(transaction, id);
    if (attachment === undefined) throw notFound("Volume attachment", id);
    // One that failed holds no place any more: somebody else may have reserved the volume.
    if (attachment.attach_status !== "reserved") {
      const words = `is ${attachment.attach_status}, not reserved, and cannot be connected`;
      throw blockError("invalid-state", `Invalid volume attachment: ${id} ${words}.`);
    }
    const mode = modeOf(connector, volume, attachment.attach_mode ?? undefined);
    await transaction.updateTable("attachments").set(connectorFields(connector, mode)).where("id", "=", id).execute();
    await followAttachments(transaction, volume, nowMs);
    return enqueueConnect(context, transaction, volumeId, id, connector, mode);
  });
  return connected(context, id, taskId);
};

const complete = (context: BlockContext, attachment: Attachment): Promise<void> =>
  withTransaction(context.writer, async (transaction) => {
    const now = await findAttachment(transaction, attachment.id);
    const volume: Volume = await volumeForChange(transaction, attachment.volume_id);
    if (now === undefined) throw notFound("Volume attachment", attachment.id);
    if (now.attach_status !== "attaching" || now.connection_json === null) {
      const words = "attachment has no connection, or is in use already";
      throw blockError("bad-request", `Invalid volume attachment ${now.id}: ${words} (${now.attach_status}).`);
    }
    const attached = { attach_status: "attached", attached_at_ms: context.clock.nowMs() } as const;
    await transaction.updateTable("attachments").set(attached).where("id", "=", now.id).execute();
    await followAttachments(transaction, volume, context.clock.nowMs());
  });

/** The attachments API: reserve, connect, complete, delete. */
export const ATTACHMENT_ROUTES: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: "/attachments",
    since: SINCE,
    request: {},
    handler: (request, context, caller) => list(request, context, caller, false),
  }),
  ...blockRoute({
    method: "GET",
    path: "/attachments/detail",
    since: SINCE,
    request: {},
    handler: (request, context, caller) => list(request, context, caller, true),
  }),
  ...blockRoute({
    method: "GET",
    path: "/attachments/:attachment_id",
    since: SINCE,
    request: { params: uuidParams("attachment_id") },
    handler: async (request, context, caller) => {
      const attachment = await visibleAttachment(context.database, caller, request.params.attachment_id);
      return { status: 200, body: { attachment: detail(context, caller, attachment) } };
    },
  }),
  ...blockRoute({
    method: "POST",
    path: "/attachments",
    since: SINCE,
    request: { body: createBody },
    handler: async (request, context, caller) => {
      const { volume_uuid: volumeId, instance_uuid: instance, connector, mode } = request.body.attachment;
      const volume = await visibleVolume(context.database, caller, volumeId);
      enforce(context, caller, "volume:attachment_create", volume.project_id);
      const asked = caller.version >= MODE_SINCE ? mode : undefined;
      const made = await create(context, volume.id, instance ?? null, connectorOf(connector), asked);
      return { status: 200, body: { attachment: detail(context, caller, made) } };
    },
  }),
  ...blockRoute({
    method: "PUT",
    path: "/attachments/:attachment_id",
    since: SINCE,
    request: {
      params: uuidParams("attachment_id"),
      body: Type.Object({ attachment: Type.Object({ connector: connectorSchema }) }),
    },
    handler: async (request, context, caller) => {
      const { attachment_id: id } = request.params;
      const known = await visibleAttachment(context.database, caller, id);
      enforce(context, caller, "volume:attachment_update", known.project_id);
      const connector = connectorOf(request.body.attachment.connector);
      if (connector === undefined) throw blockError("bad-request", "Must specify 'connector' to update attachment.");
      const updated = await connect(context, id, known.volume_id, connector);
      return { status: 200, body: { attachment: detail(context, caller, updated) } };
    },
  }),
  ...blockRoute({
    method: "DELETE",
    path: "/attachments/:attachment_id",
    since: SINCE,
    request: { params: uuidParams("attachment_id") },
    handler: async (request, context, caller) => {
      const known = await visibleAttachment(context.database, caller, request.params.attachment_id);
      enforce(context, caller, "volume:attachment_delete", known.project_id);
      const taskId = await detach(context, known.volume_id, ({ id }) => id === known.id);
      if (taskId !== undefined) await awaitTask(context, taskId, "Disconnecting the volume");
      if ((await findAttachment(context.writer, known.id)) !== undefined)
        throw blockError("host-unavailable", `Attachment ${known.id} could not be disconnected.`);
      const left = await context.writer
        .selectFrom("attachments")
        .selectAll()
        .where("volume_id", "=", known.volume_id)
        .where("is_connection", "=", 0)
        .execute();
      return { status: 200, body: { attachments: left.map(summary) } };
    },
  }),
  ...blockRoute({
    method: "POST",
    path: "/attachments/:attachment_id/action",
    since: COMPLETE_SINCE,
    request: {
      params: uuidParams("attachment_id"),
      body: Type.Object({ "os-complete": Type.Optional(Type.Unknown()) }, { minProperties: 1 }),
    },
    handler: async (request, context, caller) => {
      const known = await visibleAttachment(context.database, caller, request.params.attachment_id);
      enforce(context, caller, "volume:attachment_complete", known.project_id);
      if (!("os-complete" in request.body)) throw blockError("bad-request", "There is no such action.");
      await complete(context, known);
      return { status: 204 };
    },
  }),
];
