import { randomUUID } from "node:crypto";
import { type Static, Type } from "typebox";
import { RingsteadError } from "../../common/errors.ts";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError, notFound } from "../core/block-error.ts";
import { announceRestoration } from "../store/backup-restorations.ts";
import type { Backup } from "../store/backups.ts";
import { projectDefaultType } from "../store/default-types.ts";
import { pairsOf, writePairs } from "../store/pairs.ts";
import { assertQuota } from "../store/quotas.ts";
import type { BlockTransaction } from "../store/schema.ts";
import { enqueueTask } from "../store/tasks.ts";
import { findType, specsOf, type VolumeType } from "../store/volume-types.ts";
import type { Snapshot } from "../store/snapshots.ts";
import { encryptionOf } from "../store/type-parts.ts";
import { findVolume, type Volume, volumeForChange, writeMetadata } from "../store/volumes.ts";
import { offeredBackups, visibleBackup } from "./backup-views.ts";
import {
  type BlockContext,
  blockRoute,
  type Caller,
  enforce,
  isUuid,
  projectOf,
  truthOf,
  visibleSnapshot,
} from "./block-route.ts";
import { groupForVolume } from "./group-members.ts";
import { checkMetadataCount, descriptionSchema, metadataSchema, nameSchema, sizeOf } from "./volume-fields.ts";
import { withParts } from "./volume-lists.ts";
import { volumeDetail } from "./volume-views.ts";

/** Volumes are made from backups. */
const BACKUP_SINCE = 47;

const idOrNull = Type.Optional(Type.Union([Type.String({ maxLength: 255 }), Type.Null()]));

const volumeBody = Type.Object({
  size: Type.Optional(Type.Unknown()),
  name: nameSchema,
  display_name: nameSchema,
  description: descriptionSchema,
  display_description: descriptionSchema,
  volume_type: idOrNull,
  metadata: Type.Optional(Type.Union([metadataSchema, Type.Null()])),
  availability_zone: idOrNull,
  snapshot_id: idOrNull,
  source_volid: idOrNull,
  imageRef: idOrNull,
  image_id: idOrNull,
  backup_id: idOrNull,
  group_id: idOrNull,
  consistencygroup_id: idOrNull,
  multiattach: Type.Optional(Type.Unknown()),
});

type Wanted = Static<typeof volumeBody>;

const given = (value: string | null | undefined): string | undefined =>
  value === null || value === "" ? undefined : value;

const notBuilt = (what: string): Error => blockError("not-found", `${what} could not be found.`, { what });

/** Sources of services and operations that this version does not have. Throws `not-found` for what cannot exist here. */
const refuseAbsentSources = (wanted: Wanted): void => {
  const image = given(wanted.imageRef) ?? given(wanted.image_id);
  if (image !== undefined) throw notBuilt(`Image ${image}`);
};

/** The type that is asked for, else that of the source, of the project, of the installation. Throws `not-found`. */
export const typeOf = async (
  transaction: BlockTransaction,
  { config }: BlockContext,
  caller: Caller,
  wanted: string | undefined,
  source: Volume | undefined,
): Promise<VolumeType> => {
  const project = await projectDefaultType(transaction, projectOf(caller));
  const name = wanted ?? source?.volume_type_id ?? project ?? config.defaultVolumeType;
  const type = await findType(transaction, name, caller.isAdmin ? undefined : projectOf(caller));
  if (type === undefined) throw notFound("Volume type with name", name);
  return type;
};

const sourceOf = async (
  transaction: BlockTransaction,
  caller: Caller,
  id: string | undefined,
): Promise<Volume | undefined> => {
  if (id === undefined) return undefined;
  const source = isUuid(id) ? await findVolume(transaction, id) : undefined;
  if (source === undefined || (!caller.isAdmin && source.project_id !== projectOf(caller)))
    throw notFound("Volume", id);
  if (source.status !== "available" && source.status !== "in-use")
    throw blockError(
      "invalid-state",
      `Invalid volume: Volume ${id} status must be available or in-use to be copied, but is ${source.status}.`,
    );
  return source;
};

/** The snapshot with the volume that it is of. Throws `not-found`, `invalid-state`. */
const snapshotSourceOf = async (
  transaction: BlockTransaction,
  caller: Caller,
  id: string | undefined,
): Promise<{ readonly snapshot: Snapshot; readonly volume: Volume } | undefined> => {
  if (id === undefined) return undefined;
  const snapshot = await visibleSnapshot(transaction, caller, id);
  if (snapshot.status !== "available")
    throw blockError(
      "invalid-state",
      `Invalid snapshot: Originating snapshot status must be one of 'available' values, but is ${snapshot.status}.`,
    );
  return { snapshot, volume: await volumeForChange(transaction, snapshot.volume_id) };
};

/** Throws `not-found`, `invalid-state`, `host-unavailable`. */
const backupSourceOf = async (
  transaction: BlockTransaction,
  context: BlockContext,
  caller: Caller,
  id: string | undefined,
): Promise<Backup | undefined> => {
  if (id === undefined || caller.version < BACKUP_SINCE) return undefined;
  const backup = await visibleBackup(transaction, caller, id);
  enforce(context, caller, "backup:restore", backup.project_id);
  offeredBackups(context);
  return backup;
};

type Names = Pick<Wanted, "name" | "display_name" | "description" | "display_description" | "availability_zone">;

/** A volume of the caller's project that is of no size and nowhere yet. */
export const newVolumeRow = (
  wanted: Names,
  caller: Caller,
  { clock, config }: BlockContext,
  type: VolumeType,
): Volume => ({
  id: randomUUID(),
  project_id: projectOf(caller),
  user_id: caller.token.userId,
  name: wanted.name ?? wanted.display_name ?? null,
  description: wanted.description ?? wanted.display_description ?? null,
  size_gib: 0,
  wanted_size_gib: null,
  status: "creating",
  previous_status: null,
  availability_zone: given(wanted.availability_zone) ?? config.availabilityZone,
  volume_type_id: type.id,
  backend: null,
  source_volume_id: null,
  snapshot_id: null,
  group_id: null,
  bootable: 0,
  readonly: null,
  multiattach: 0,
  failure: null,
  created_at_ms: clock.nowMs(),
  updated_at_ms: null,
});

/** Throws `bad-request` where there is no size, or one that is smaller than what is to be copied. */
const checkedSize = (wanted: number | undefined, source: { what: string; sizeGib: number } | undefined): number => {
  const size = wanted ?? source?.sizeGib;
  if (size === undefined)
    throw blockError(
      "bad-request",
      "Invalid input received: Invalid volume size provided for create request: None (size argument must be an integer (or string representation of an integer) and greater than zero).",
    );
  if (source !== undefined && size < source.sizeGib)
    throw blockError(
      "bad-request",
      `Invalid input received: Volume size '${size}'GB cannot be smaller than the ${source.what} size ${source.sizeGib}GB. They must be >= ${source.what} size.`,
    );
  return size;
};

/** What becomes a volume, and of what. */
export type VolumeSources = {
  /** The volume that it is a copy of, itself or through `snapshot`. */
  readonly volume: Volume | undefined;
  readonly snapshot: Snapshot | undefined;
};

/**
 * Where the row is all that there is to make. Every new volume's row goes through here, wherever its bytes come from. Throws `over-quota`,
 * `not-implemented` for a type with encryption.
 */
export const insertManagedRow = async (
  transaction: BlockTransaction,
  row: Volume,
  type: VolumeType,
  metadata: Readonly<Record<string, string>>,
): Promise<void> => {
  // Its bytes would lie on the disk as they are, which is what the type says that they do not.
  if ((await encryptionOf(transaction, type.id)) !== undefined)
    throw new RingsteadError("not-implemented", "Volumes of encrypted types are not implemented.");
  const size = row.size_gib;
  const demand = { volumes: 1, snapshots: 0, gigabytes: size, volumeGigabytes: size };
  await assertQuota(transaction, row.project_id, type.name, demand);
  await transaction.insertInto("volumes").values(row).execute();
  checkMetadataCount(metadata);
  await writeMetadata(transaction, row.id, metadata, true);
};

/** The row, its quota and its task, in the transaction of the caller. Throws `over-quota`. */
export const insertVolumeRow = async (
  context: BlockContext,
  transaction: BlockTransaction,
  row: Volume,
  type: VolumeType,
  metadata: Readonly<Record<string, string>>,
  { volume: source }: VolumeSources,
): Promise<void> => {
  await insertManagedRow(transaction, row, type, metadata);
  if (source !== undefined) {
    const ofImage = await pairsOf(transaction, "volume_image_metadata", source.id);
    await writePairs(transaction, "volume_image_metadata", row.id, ofImage, true);
  }
  await enqueueTask(transaction, row.id, { kind: "create", step: "schedule", excluded: [] }, context.clock.nowMs());
};

/** The row, its quota and its task in one transaction: what a client is told of is made or fails, whoever dies. */
const insertVolume = (context: BlockContext, caller: Caller, wanted: Wanted): Promise<Volume> =>
  withTransaction(context.writer, async (transaction) => {
    const ofSnapshot = await snapshotSourceOf(transaction, caller, given(wanted.snapshot_id));
    const ofVolume = await sourceOf(transaction, caller, given(wanted.source_volid));
    const backup = await backupSourceOf(transaction, context, caller, given(wanted.backup_id));
    if ([ofSnapshot, ofVolume, backup].filter((one) => one !== undefined).length > 1)
      throw blockError("bad-request", "Invalid input received: a volume is made of one source, not of two.");
    const source = ofSnapshot?.volume ?? ofVolume;
    const type = await typeOf(transaction, context, caller, given(wanted.volume_type), source);
    const size = checkedSize(
      wanted.size === undefined || wanted.size === null ? undefined : sizeOf(wanted.size, "size"),
      backup !== undefined
        ? { what: "backup", sizeGib: Number(backup.size_gib) }
        : ofSnapshot === undefined
          ? ofVolume && { what: "original volume", sizeGib: ofVolume.size_gib }
          : { what: "snapshot", sizeGib: ofSnapshot.snapshot.size_gib },
    );
    const groupId = given(wanted.group_id) ?? given(wanted.consistencygroup_id);
    const group = await groupForVolume(transaction, caller, groupId, type.id);
    const specs = await specsOf(transaction, type.id);
    const isMultiattach = truthOf(wanted.multiattach) === true || /true/i.test(specs["multiattach"] ?? "");
    if (isMultiattach) enforce(context, caller, "volume:multiattach", projectOf(caller));
    const row: Volume = {
      ...newVolumeRow(wanted, caller, context, type),
      size_gib: size,
      source_volume_id: ofVolume?.id ?? null,
      snapshot_id: ofSnapshot?.snapshot.id ?? null,
      group_id: group?.id ?? null,
      bootable: source?.bootable ?? 0,
      multiattach: Number(isMultiattach),
    };
    const sources = { volume: source, snapshot: ofSnapshot?.snapshot };
    await insertVolumeRow(context, transaction, row, type, wanted.metadata ?? {}, sources);
    const how = { isBlank: true, isLazy: context.config.backup.isRestoredLazily };
    if (backup !== undefined) await announceRestoration(transaction, backup, row.id, how, context.clock.nowMs());
    return row;
  });

export const CREATE_VOLUME_ROUTES = blockRoute({
  method: "POST",
  path: "/volumes",
  request: { body: Type.Object({ volume: volumeBody }) },
  operation: "volume:create",
  handler: async (request, context, caller) => {
    const { volume: wanted } = request.body;
    projectOf(caller);
    if (wanted.size !== undefined && wanted.size !== null) sizeOf(wanted.size, "size");
    refuseAbsentSources(wanted);
    const zone = given(wanted.availability_zone);
    if (zone !== undefined && zone !== context.config.availabilityZone)
      throw blockError("bad-request", `Invalid input received: Availability zone '${zone}' is invalid.`);
    const volume = await insertVolume(context, caller, wanted);
    context.tasks.wake();
    context.backups?.wake();
    const [shown] = await withParts(context.writer, [volume]);
    if (shown === undefined) throw notFound("Volume", volume.id);
    return { status: 202, body: { volume: volumeDetail({ request, context, caller }, shown, false) } };
  },
});
