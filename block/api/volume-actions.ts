import { randomUUID } from "node:crypto";
import { Type } from "typebox";
import { RingsteadError } from "../../common/errors.ts";
import { withTransaction } from "../../common/sql/transaction.ts";
import type { HttpResponse } from "../../common/http/route.ts";
import { blockError } from "../core/block-error.ts";
import { connectionInfo } from "../core/connection-info.ts";
import { VOLUME_STATUSES, type VolumeEvent } from "../core/volume-state.ts";
import { assertQuota } from "../store/quotas.ts";
import type { BlockTransaction } from "../store/schema.ts";
import { enqueueTask } from "../store/tasks.ts";
import { typeNameOf } from "../store/volume-types.ts";
import {
  type Attachment,
  attachmentStatuses,
  changeVolume,
  followAttachments,
  type Volume,
  volumeForChange,
} from "../store/volumes.ts";
import { type BlockRoute, blockRoute, enforce, truthIn, visibleVolume } from "./block-route.ts";
import {
  awaitTask,
  connectionOf,
  connectorJson,
  connectorSchema,
  connectorText,
  detach,
  enqueueConnect,
  modeOf,
} from "./connections.ts";
import { IMAGE_METADATA_ACTIONS } from "./image-metadata.ts";
import { unmanageVolume } from "./manageable-volumes.ts";
import { MIGRATE_ACTIONS } from "./migrate-volume.ts";
import { ABSENT_VOLUME_ACTIONS } from "./operations.ts";
import { RETYPE_ACTIONS } from "./retype-volume.ts";
import { REVERT_ACTIONS } from "./revert-volume.ts";
import { ACCEPTED, type Action, action, type Actions, type Asked } from "./volume-action.ts";
import { sizeOf, uuidParams } from "./volume-fields.ts";
import { deleteVolume } from "./volumes.ts";

const EXTEND_ATTACHED_SINCE = 42;
const anything = Type.Unknown();
const optionalText = Type.Optional(Type.Union([Type.String({ maxLength: 255 }), Type.Null()]));

/** An action that is nothing but an event of the volume. */
const plain = (
  policy: string,
  eventOf: (transaction: BlockTransaction, volume: Volume) => Promise<VolumeEvent> | VolumeEvent,
): Action =>
  action(policy, anything, async (_argument, { context, volume: { id } }) => {
    await withTransaction(context.writer, async (transaction) => {
      const volume = await volumeForChange(transaction, id);
      await changeVolume(transaction, volume, await eventOf(transaction, volume), context.clock.nowMs());
    });
    return ACCEPTED;
  });

const setField = async (
  { context, volume: { id } }: Asked,
  values: Partial<Pick<Volume, "bootable" | "readonly">>,
): Promise<void> =>
  withTransaction(context.writer, async (transaction) => {
    const volume = await volumeForChange(transaction, id);
    if ("readonly" in values && volume.status !== "available") {
      const words = `Volume ${id} status must be available to update readonly flag, but current status is: ${volume.status}.`;
      throw blockError("invalid-state", `Invalid volume: ${words}`);
    }
    const changed = { ...values, updated_at_ms: context.clock.nowMs() };
    await transaction.updateTable("volumes").set(changed).where("id", "=", id).execute();
  });

const extend = async ({ context, caller, volume: { id, status } }: Asked, value: unknown): Promise<HttpResponse> => {
  const size = sizeOf(value, "new_size");
  const mayBeAttached = caller.version >= EXTEND_ATTACHED_SINCE;
  if (mayBeAttached && status === "in-use")
    enforce(context, caller, "volume:extend_attached_volume", caller.token.projectId);
  await withTransaction(context.writer, async (transaction) => {
    const volume = await volumeForChange(transaction, id);
    await changeVolume(transaction, volume, { kind: "extend", mayBeAttached }, context.clock.nowMs());
    if (size <= volume.size_gib)
      throw blockError(
        "bad-request",
        `Invalid input received: New size for extend must be greater than current size. (current: ${volume.size_gib}, extended: ${size}).`,
      );
    const demand = { volumes: 0, snapshots: 0, gigabytes: size - volume.size_gib, volumeGigabytes: size };
    await assertQuota(transaction, volume.project_id, await typeNameOf(transaction, volume.volume_type_id), demand);
    await transaction.updateTable("volumes").set({ wanted_size_gib: size }).where("id", "=", id).execute();
    await enqueueTask(transaction, id, { kind: "extend", step: "grow", sizeGib: size }, context.clock.nowMs());
  });
  context.tasks.wake();
  return ACCEPTED;
};

const attach = async (
  { context, volume: { id } }: Asked,
  argument: { instance_uuid?: string | null; host_name?: string | null; mountpoint: string; mode?: string | null },
): Promise<HttpResponse> => {
  const { instance_uuid: instance = null, host_name: host = null, mountpoint, mode } = argument;
  if (instance !== null && host !== null)
    throw blockError(
      "bad-request",
      `Invalid request to attach volume to an instance ${instance} and a host ${host} simultaneously`,
    );
  if (instance === null && host === null)
    throw blockError("bad-request", "Invalid request to attach volume to an invalid target");
  await withTransaction(context.writer, async (transaction) => {
    const nowMs = context.clock.nowMs();
    const volume = await volumeForChange(transaction, id);
    await changeVolume(transaction, volume, { kind: "legacy-attach" }, nowMs);
    const row: Attachment = {
      id: randomUUID(),
      volume_id: id,
      project_id: volume.project_id,
      instance_uuid: instance,
      attached_host: host,
      mountpoint,
      attach_mode: modeOf({}, volume, mode ?? "rw"),
      attach_status: "attached",
      is_connection: 0,
      connector_json: null,
      connection_json: null,
      qos_json: null,
      created_at_ms: nowMs,
      attached_at_ms: nowMs,
    };
    await transaction.insertInto("attachments").values(row).execute();
  });
  return ACCEPTED;
};

/** Which of several attachments a caller means; undefined: the only one. */
const detachOne = async (
  asked: Asked,
  attachmentId: string | null | undefined,
  isForced: boolean,
): Promise<HttpResponse> => {
  const { context, volume } = asked;
  const taskId = await detach(
    context,
    volume.id,
    // Who terminated no connection does so by this; of a volume with several users it may be another one's.
    (one) => (one.is_connection === 1 ? volume.multiattach === 0 : (attachmentId ?? one.id) === one.id),
    async (transaction, now) => {
      const attached = (await attachmentStatuses(transaction, volume.id)).filter((status) => status === "attached");
      if (!isForced && (attachmentId === null || attachmentId === undefined) && attached.length > 1)
        throw blockError(
          "invalid-state",
          "Invalid volume: Detach volume failed: More than one attachment, but no attachment_id provided.",
        );
      if (!isForced) await changeVolume(transaction, now, { kind: "legacy-detach" }, context.clock.nowMs());
    },
  );
  if (taskId !== undefined) await awaitTask(context, taskId, "Detaching the volume");
  return ACCEPTED;
};

const initializeConnection = async (
  asked: Asked,
  connector: Readonly<Record<string, unknown>>,
): Promise<HttpResponse> => {
  const { context, volume: known } = asked;
  const host = connectorText(connector, "host") ?? null;
  const { id, taskId } = await withTransaction(context.writer, async (transaction) => {
    const volume = await volumeForChange(transaction, known.id);
    if (!["available", "attaching", "in-use", "reserved"].includes(volume.status))
      throw blockError(
        "invalid-state",
        `Invalid volume: Volume ${volume.id} is ${volume.status} and cannot be connected.`,
      );
    const mode = modeOf(connector, volume, undefined);
    const connections = transaction.selectFrom("attachments").selectAll().where("volume_id", "=", volume.id);
    const all = await connections.where("is_connection", "=", 1).execute();
    const same = all.find(
      (one) => one.attached_host === host && one.attach_mode === mode && one.connection_json !== null,
    );
    if (same !== undefined) return { id: same.id, taskId: undefined };
    const row: Attachment = {
      id: randomUUID(),
      volume_id: volume.id,
      project_id: volume.project_id,
      instance_uuid: null,
      attached_host: host,
      mountpoint: null,
      attach_mode: mode,
      attach_status: "attaching",
      is_connection: 1,
      connector_json: connectorJson(connector),
      connection_json: null,
      qos_json: null,
      created_at_ms: context.clock.nowMs(),
      attached_at_ms: null,
    };
    await transaction.insertInto("attachments").values(row).execute();
    return { id: row.id, taskId: await enqueueConnect(context, transaction, volume.id, row.id, connector, mode) };
  });
  if (taskId !== undefined) await awaitTask(context, taskId, "Connecting the volume");
  const row = await context.writer.selectFrom("attachments").selectAll().where("id", "=", id).executeTakeFirst();
  const connection = row === undefined ? undefined : connectionOf(row);
  if (connection === undefined)
    throw blockError(
      "host-unavailable",
      "Unable to fetch connection information from backend: the block host could not open the volume.",
    );
  return { status: 200, body: { connection_info: connectionInfo(connection) } };
};

const connectorBody = Type.Object({ connector: connectorSchema });

const ACTIONS: Actions = {
  ...REVERT_ACTIONS,
  ...IMAGE_METADATA_ACTIONS,
  ...RETYPE_ACTIONS,
  ...MIGRATE_ACTIONS,
  "os-reserve": plain("volume_extension:volume_actions:reserve", () => ({ kind: "legacy-reserve" })),
  "os-unreserve": plain("volume_extension:volume_actions:unreserve", async (transaction, { id }) => ({
    kind: "unreserve",
    statuses: await attachmentStatuses(transaction, id),
  })),
  "os-begin_detaching": plain("volume_extension:volume_actions:begin_detaching", () => ({ kind: "begin-detaching" })),
  "os-roll_detaching": plain("volume_extension:volume_actions:roll_detaching", () => ({ kind: "roll-detaching" })),
  "os-attach": action(
    "volume_extension:volume_actions:attach",
    Type.Object({
      instance_uuid: optionalText,
      host_name: optionalText,
      mountpoint: Type.String({ minLength: 1, maxLength: 255 }),
      mode: Type.Optional(Type.Union([Type.Literal("rw"), Type.Literal("ro"), Type.Null()])),
    }),
    (argument, asked) => attach(asked, argument),
  ),
  "os-detach": action(
    "volume_extension:volume_actions:detach",
    Type.Union([Type.Object({ attachment_id: optionalText }), Type.Null()]),
    (argument, asked) => detachOne(asked, argument?.attachment_id, false),
  ),
  "os-force_detach": action(
    "volume_extension:volume_admin_actions:force_detach",
    Type.Object({ attachment_id: optionalText, connector: Type.Optional(Type.Union([connectorSchema, Type.Null()])) }),
    async ({ attachment_id: id }, asked) => {
      await detach(asked.context, asked.volume.id, (one) => one.is_connection === 1);
      return detachOne(asked, id, true);
    },
  ),
  "os-initialize_connection": action(
    "volume_extension:volume_actions:initialize_connection",
    connectorBody,
    ({ connector }, asked) => initializeConnection(asked, connector),
  ),
  "os-terminate_connection": action(
    "volume_extension:volume_actions:terminate_connection",
    connectorBody,
    async ({ connector }, { context, volume }) => {
      const host = connectorText(connector, "host") ?? null;
      const isMeant = (one: Attachment): boolean => one.is_connection === 1 && one.attached_host === host;
      const taskId = await detach(context, volume.id, isMeant);
      if (taskId !== undefined) await awaitTask(context, taskId, "Disconnecting the volume");
      return ACCEPTED;
    },
  ),
  "os-extend": action("volume:extend", Type.Object({ new_size: anything }), ({ new_size: size }, asked) =>
    extend(asked, size),
  ),
  "os-set_bootable": action("volume:update", Type.Object({ bootable: anything }), async ({ bootable }, asked) => {
    await setField(asked, { bootable: Number(truthIn(bootable, "bootable")) });
    return { status: 200 };
  }),
  "os-update_readonly_flag": action(
    "volume:update_readonly_flag",
    Type.Object({ readonly: anything }),
    async ({ readonly }, asked) => {
      await setField(asked, { readonly: Number(truthIn(readonly, "readonly")) });
      return ACCEPTED;
    },
  ),
  "os-reset_status": action(
    "volume_extension:volume_admin_actions:reset_status",
    Type.Object({
      status: Type.Optional(Type.Union([Type.Enum([...VOLUME_STATUSES]), Type.Null()])),
      attach_status: Type.Optional(Type.Union([Type.Literal("attached"), Type.Literal("detached"), Type.Null()])),
      migration_status: optionalText,
    }),
    async ({ status, attach_status: attachStatus }, { context, volume: { id } }) => {
      await withTransaction(context.writer, async (transaction) => {
        const volume = await volumeForChange(transaction, id);
        const nowMs = context.clock.nowMs();
        // What is written down as attached, and is not; whatever is really open is closed by os-force_detach.
        if (attachStatus === "detached") {
          const unopened = transaction.deleteFrom("attachments").where("volume_id", "=", id);
          await unopened.where("connector_json", "is", null).execute();
          await followAttachments(transaction, volume, nowMs);
        }
        if (status === undefined || status === null) return;
        await changeVolume(transaction, await volumeForChange(transaction, id), { kind: "reset", status }, nowMs);
      });
      return ACCEPTED;
    },
  ),
  "os-unmanage": action("volume_extension:volume_unmanage", anything, async (_argument, { context, volume }) => {
    await unmanageVolume(context, volume.id);
    return ACCEPTED;
  }),
  "os-force_delete": action(
    "volume_extension:volume_admin_actions:force_delete",
    anything,
    async (_argument, { context, volume }) => {
      await deleteVolume(context, volume.id, { isForced: true, isCascade: false });
      return ACCEPTED;
    },
  ),
};

/** `{"os-extend": {"new_size": 2}}`: one action of the volume. */
export const VOLUME_ACTION_ROUTES: readonly BlockRoute[] = blockRoute({
  method: "POST",
  path: "/volumes/:volume_id/action",
  request: { params: uuidParams("volume_id"), body: Type.Record(Type.String(), Type.Unknown()) },
  handler: async (request, context, caller) => {
    const names = Object.keys(request.body);
    const [name = ""] = names;
    if (names.length !== 1) throw blockError("bad-request", "The body has to name one action.");
    if (ABSENT_VOLUME_ACTIONS.includes(name))
      throw new RingsteadError("not-implemented", `The action ${name} of volumes is not implemented.`);
    const found = Object.hasOwn(ACTIONS, name) ? ACTIONS[name] : undefined;
    if (found === undefined || caller.version < (found.since ?? 0))
      throw blockError("bad-request", `There is no such action: ${name.slice(0, 100)}`);
    const volume = await visibleVolume(context.database, caller, request.params.volume_id);
    enforce(context, caller, found.policy, volume.project_id);
    return found.run(request.body[name], { context, caller, volume, requestId: request.requestId });
  },
});
