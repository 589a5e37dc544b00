import { Type } from "typebox";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError } from "../core/block-error.ts";
import type { Connection } from "../core/connection-info.ts";
import type { Pairs } from "../store/pairs.ts";
import type { BlockTransaction } from "../store/schema.ts";
import { enqueueTask } from "../store/tasks.ts";
import { specsOf } from "../store/volume-types.ts";
import { type Attachment, findVolume, followAttachments, type Volume } from "../store/volumes.ts";
import type { VolumeExport, WantedExport } from "../volume-host.ts";
import type { BlockContext } from "./block-route.ts";

const CONNECTOR_MAX_BYTES = 8_192;

/** Who wants to use a volume; what drivers do not know is kept and given back. */
export const connectorSchema = Type.Record(Type.String({ maxLength: 255 }), Type.Unknown(), { maxProperties: 64 });
export type Connector = Readonly<Record<string, unknown>>;

export const connectorText = (connector: Connector, name: string): string | undefined => {
  const value = Object.hasOwn(connector, name) ? connector[name] : undefined;
  return typeof value === "string" && value !== "" ? value.slice(0, 255) : undefined;
};

/** Throws `bad-request` for one that is too long. */
export const connectorJson = (connector: Connector): string => {
  const text = JSON.stringify(connector);
  if (text.length > CONNECTOR_MAX_BYTES) throw blockError("bad-request", "The connector is too long.");
  return text;
};

/** Throws `bad-request` for another mode, `invalid-state` where a read-only volume is to be written to. */
export const modeOf = (connector: Connector, volume: Volume, fallback: string | undefined): "rw" | "ro" => {
  const mode = connectorText(connector, "mode") ?? fallback ?? (volume.readonly === 1 ? "ro" : "rw");
  if (mode !== "rw" && mode !== "ro") throw blockError("bad-request", "Attaching mode should be 'rw' or 'ro'.");
  if (mode === "rw" && volume.readonly === 1)
    throw blockError("invalid-state", `Invalid volume: Volume ${volume.id} is read-only and cannot be attached 'rw'.`);
  return mode;
};

/** RFC 3720, 3.2.6: what initiators are called. */
const INITIATOR_NAME = /^(iqn|eui|naa)\.[A-Za-z0-9.:_-]{1,219}$/;

/** The protocol that the volume's type asks for (extra spec `storage_protocol`, also with an operator), else the installation's. */
const isIscsi = async (context: BlockContext, transaction: BlockTransaction, volumeId: string): Promise<boolean> => {
  const volume = await findVolume(transaction, volumeId);
  const specs = volume === undefined ? {} : await specsOf(transaction, volume.volume_type_id);
  const asked = specs["capabilities:storage_protocol"] ?? specs["storage_protocol"] ?? context.config.storageProtocol;
  return asked.toLowerCase().includes("iscsi");
};

/**
 * Over iSCSI whoever gives the initiator's name; Cinder's drivers refuse a connector without one. Over NBD clients on this machine have a socket
 * that nobody else reaches; all others TLS with a credential of their own. Throws `bad-request`.
 */
const transportOf = async (
  context: BlockContext,
  transaction: BlockTransaction,
  volumeId: string,
  connector: Connector,
): Promise<Pick<WantedExport, "transport" | "initiator">> => {
  if (await isIscsi(context, transaction, volumeId)) {
    const initiator = connectorText(connector, "initiator");
    if (initiator === undefined)
      throw blockError("bad-request", "Invalid input received: Connector doesn't have required information: initiator");
    if (!INITIATOR_NAME.test(initiator))
      throw blockError("bad-request", "Invalid input received: the connector's initiator is no iSCSI name.");
    return { transport: "iscsi", initiator };
  }
  return { transport: context.localHosts.has(connectorText(connector, "host") ?? "") ? "unix" : "tcp" };
};

/** The task that opens the volume for an attachment, in the transaction that writes its connector. */
export const enqueueConnect = async (
  context: BlockContext,
  transaction: BlockTransaction,
  volumeId: string,
  exportId: string,
  connector: Connector,
  mode: "rw" | "ro",
): Promise<number> =>
  enqueueTask(
    transaction,
    volumeId,
    {
      kind: "connect",
      step: "open",
      exportId,
      ...(await transportOf(context, transaction, volumeId, connector)),
      isReadOnly: mode === "ro",
    },
    context.clock.nowMs(),
  );

/** Waits for a task that a client waits for. Throws `host-unavailable` where it takes too long; it goes on all the same. */
export const awaitTask = async ({ tasks, waitMs }: BlockContext, taskId: number, what: string): Promise<void> => {
  tasks.wake();
  if (await tasks.settled(taskId, waitMs)) return;
  throw blockError("host-unavailable", `${what} takes longer than ${waitMs / 1000} s; it goes on.`);
};

/** What an attachment was told of its volume; undefined before it is connected. */
export const connectionOf = (attachment: Attachment): Connection | undefined =>
  attachment.connection_json === null
    ? undefined
    : {
        volumeId: attachment.volume_id,
        exportId: attachment.id,
        isReadOnly: attachment.attach_mode === "ro",
        // Written from a checked answer of the host (volume-work.ts).
        opened: JSON.parse(attachment.connection_json) as VolumeExport,
        qosSpecs: attachment.qos_json === null ? undefined : (JSON.parse(attachment.qos_json) as Pairs),
      };

/** Takes attachments away: those that were opened are closed by a task, whose id it resolves with; the others are removed at once. */
export const detach = (
  context: BlockContext,
  volumeId: string,
  choose: (attachment: Attachment) => boolean,
  before?: (transaction: BlockTransaction, volume: Volume) => Promise<void>,
): Promise<number | undefined> =>
  withTransaction(context.writer, async (transaction) => {
    const nowMs = context.clock.nowMs();
    const volume = await findVolume(transaction, volumeId);
    if (volume === undefined) return undefined;
    await before?.(transaction, volume);
    const all = await transaction.selectFrom("attachments").selectAll().where("volume_id", "=", volumeId).execute();
    const chosen = all.filter(choose);
    const opened = chosen.filter((one) => one.connector_json !== null).map(({ id }) => id);
    const others = chosen.filter((one) => one.connector_json === null).map(({ id }) => id);
    if (others.length > 0) await transaction.deleteFrom("attachments").where("id", "in", others).execute();
    if (opened.length > 0) {
      await transaction
        .updateTable("attachments")
        .set({ attach_status: "detaching" })
        .where("id", "in", opened)
        .execute();
    }
    const now = await findVolume(transaction, volumeId);
    if (now !== undefined && chosen.some((one) => one.is_connection === 0))
      await followAttachments(transaction, now, nowMs);
    if (opened.length === 0) return undefined;
    return enqueueTask(transaction, volumeId, { kind: "disconnect", step: "close", exportIds: opened }, nowMs);
  });
