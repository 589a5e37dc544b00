import { type Selectable, sql } from "kysely";
import { blockError, notFound } from "../core/block-error.ts";
import { stepVolume, type VolumeEvent, type VolumeState } from "../core/volume-state.ts";
import type { AttachmentsTable, BlockDatabase, BlockTransaction, VolumesTable } from "./schema.ts";

export type Volume = Selectable<VolumesTable>;
export type Attachment = Selectable<AttachmentsTable>;

export const findVolume = (database: BlockDatabase, id: string): Promise<Volume | undefined> =>
  database.selectFrom("volumes").selectAll().where("id", "=", id).executeTakeFirst();

/** The row, kept for this transaction alone where databases can. Throws `not-found`. */
export const volumeForChange = async (transaction: BlockTransaction, id: string): Promise<Volume> => {
  const volume = await findVolume(transaction, id);
  if (volume === undefined) throw notFound("Volume", id);
  return volume;
};

export const attachmentsOf = (database: BlockDatabase, volumeId: string): Promise<Attachment[]> =>
  database
    .selectFrom("attachments")
    .selectAll()
    .where("volume_id", "=", volumeId)
    .orderBy("created_at_ms")
    .orderBy("id")
    .execute();

/** The statuses of those that the API knows as attachments. */
export const attachmentStatuses = async (
  transaction: BlockTransaction,
  volumeId: string,
): Promise<Attachment["attach_status"][]> =>
  (await attachmentsOf(transaction, volumeId)).flatMap((one) => (one.is_connection === 1 ? [] : [one.attach_status]));

const stateOf = (volume: Volume): VolumeState => ({
  status: volume.status,
  previousStatus: volume.previous_status ?? undefined,
  isMultiattach: volume.multiattach === 1,
});

const quotedList = (words: readonly string[]): string => words.map((word) => `'${word}'`).join(", ");

const write = async (
  transaction: BlockTransaction,
  volume: Volume,
  event: VolumeEvent,
  nowMs: number,
): Promise<readonly string[] | undefined> => {
  const step = stepVolume(stateOf(volume), event);
  if (step.kind === "refused") return step.allowed;
  const { status, previousStatus = null } = step.state;
  await transaction
    .updateTable("volumes")
    .set({ status, previous_status: previousStatus, updated_at_ms: nowMs })
    .where("id", "=", volume.id)
    .execute();
  return undefined;
};

/** Does to the volume what a caller asks for, or throws `invalid-state` in Cinder's words. */
export const changeVolume = async (
  transaction: BlockTransaction,
  volume: Volume,
  event: VolumeEvent,
  nowMs: number,
): Promise<void> => {
  const allowed = await write(transaction, volume, event, nowMs);
  if (allowed === undefined) return;
  throw blockError(
    "invalid-state",
    `Invalid volume: Volume ${volume.id} status must be ${quotedList(allowed)} for ${event.kind.replaceAll("-", " ")}, but current status is: ${volume.status}`,
    { volume: volume.id, status: volume.status },
  );
};

/** Writes what became of an operation. Where the volume was meanwhile forced into another status, that one holds. */
export const settleVolume = async (
  transaction: BlockTransaction,
  volume: Volume,
  event: VolumeEvent,
  nowMs: number,
): Promise<void> => void (await write(transaction, volume, event, nowMs));

/** After attachments came or went. */
export const followAttachments = async (transaction: BlockTransaction, volume: Volume, nowMs: number): Promise<void> =>
  settleVolume(
    transaction,
    volume,
    { kind: "attachments", statuses: await attachmentStatuses(transaction, volume.id) },
    nowMs,
  );

/** By volume, for pages of lists: two questions however many volumes there are. */
export const partsOf = async (
  database: BlockDatabase,
  volumeIds: readonly string[],
): Promise<{ metadata: Map<string, Record<string, string>>; attachments: Map<string, Attachment[]> }> => {
  const metadata = new Map<string, Record<string, string>>();
  const attachments = new Map<string, Attachment[]>();
  if (volumeIds.length === 0) return { metadata, attachments };
  const rows = await database.selectFrom("volume_metadata").selectAll().where("volume_id", "in", volumeIds).execute();
  for (const { volume_id: id, key, value } of rows) metadata.set(id, { ...metadata.get(id), [key]: value });
  const attached = await database
    .selectFrom("attachments")
    .selectAll()
    .where("volume_id", "in", volumeIds)
    .where("is_connection", "=", 0)
    .orderBy("created_at_ms")
    .orderBy("id")
    .execute();
  for (const one of attached) attachments.set(one.volume_id, [...(attachments.get(one.volume_id) ?? []), one]);
  return { metadata, attachments };
};

export const metadataOf = async (database: BlockDatabase, volumeId: string): Promise<Record<string, string>> =>
  (await partsOf(database, [volumeId])).metadata.get(volumeId) ?? {};

/** Sets keys; with `isWhole` nothing else stays. Requires: keys and values checked. */
export const writeMetadata = async (
  transaction: BlockTransaction,
  volumeId: string,
  metadata: Readonly<Record<string, string>>,
  isWhole: boolean,
): Promise<void> => {
  const keys = Object.keys(metadata);
  const removal = transaction.deleteFrom("volume_metadata").where("volume_id", "=", volumeId);
  if (isWhole) await removal.execute();
  else if (keys.length > 0) await removal.where("key", "in", keys).execute();
  if (keys.length === 0) return;
  await transaction
    .insertInto("volume_metadata")
    .values(Object.entries(metadata).map(([key, value]) => ({ volume_id: volumeId, key, value })))
    .execute();
};

/** GiB of volumes that have a pool and are being made: the pool's own report may not know them yet. */
export const pendingGib = async (database: BlockDatabase): Promise<ReadonlyMap<string, number>> => {
  const rows = await database
    .selectFrom("volumes")
    .select(["backend", sql<number>`SUM(size_gib)`.as("gib")])
    .where("status", "=", "creating")
    .where("backend", "is not", null)
    .groupBy("backend")
    .execute();
  return new Map(rows.map(({ backend, gib }) => [backend ?? "", Number(gib)]));
};
