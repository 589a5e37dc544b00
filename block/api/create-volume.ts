import { randomUUID } from "node:crypto";
import { type Static, Type } from "typebox";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError, notFound } from "../core/block-error.ts";
import { assertQuota } from "../store/quotas.ts";
import type { BlockTransaction } from "../store/schema.ts";
import { enqueueTask } from "../store/tasks.ts";
import { findType, specsOf, type VolumeType } from "../store/volume-types.ts";
import { findVolume, type Volume, writeMetadata } from "../store/volumes.ts";
import { type BlockContext, blockRoute, type Caller, enforce, isUuid, projectOf, truthOf } from "./block-route.ts";
import { checkMetadataCount, descriptionSchema, metadataSchema, nameSchema, sizeOf } from "./volume-fields.ts";
import { withParts } from "./volume-lists.ts";
import { volumeDetail } from "./volume-views.ts";

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
  const snapshot = given(wanted.snapshot_id);
  if (snapshot !== undefined) throw notFound("Snapshot", snapshot);
  const image = given(wanted.imageRef) ?? given(wanted.image_id);
  if (image !== undefined) throw notBuilt(`Image ${image}`);
  const backup = given(wanted.backup_id);
  if (backup !== undefined) throw notBuilt(`Backup ${backup}`);
  const group = given(wanted.group_id) ?? given(wanted.consistencygroup_id);
  if (group !== undefined) throw notBuilt(`Group ${group}`);
};

const typeOf = async (
  transaction: BlockTransaction,
  { config }: BlockContext,
  caller: Caller,
  wanted: string | undefined,
  source: Volume | undefined,
): Promise<VolumeType> => {
  const name = wanted ?? source?.volume_type_id ?? config.defaultVolumeType;
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

const rowOf = (wanted: Wanted, caller: Caller, { clock, config }: BlockContext, type: VolumeType): Volume => ({
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
  bootable: 0,
  readonly: null,
  multiattach: 0,
  failure: null,
  created_at_ms: clock.nowMs(),
  updated_at_ms: null,
});

/** The row, its quota and its task in one transaction: what a client is told of is made or fails, whoever dies. */
const insertVolume = (context: BlockContext, caller: Caller, wanted: Wanted): Promise<Volume> =>
  withTransaction(context.writer, async (transaction) => {
    const source = await sourceOf(transaction, caller, given(wanted.source_volid));
    const type = await typeOf(transaction, context, caller, given(wanted.volume_type), source);
    const size = wanted.size === undefined || wanted.size === null ? source?.size_gib : sizeOf(wanted.size, "size");
    if (size === undefined)
      throw blockError(
        "bad-request",
        "Invalid input received: Invalid volume size provided for create request: None (size argument must be an integer (or string representation of an integer) and greater than zero).",
      );
    if (source !== undefined && size < source.size_gib)
      throw blockError(
        "bad-request",
        `Invalid input received: Volume size '${size}'GB cannot be smaller than original volume size ${source.size_gib}GB. They must be >= original volume size.`,
      );
    const specs = await specsOf(transaction, type.id);
    const isMultiattach = truthOf(wanted.multiattach) === true || /true/i.test(specs["multiattach"] ?? "");
    if (isMultiattach) enforce(context, caller, "volume:multiattach", projectOf(caller));
    const demand = { volumes: 1, gigabytes: size, volumeGigabytes: size };
    await assertQuota(transaction, projectOf(caller), type.name, demand);
    const row: Volume = {
      ...rowOf(wanted, caller, context, type),
      size_gib: size,
      source_volume_id: source?.id ?? null,
      bootable: source?.bootable ?? 0,
      multiattach: Number(isMultiattach),
    };
    await transaction.insertInto("volumes").values(row).execute();
    const metadata = wanted.metadata ?? {};
    checkMetadataCount(metadata);
    await writeMetadata(transaction, row.id, metadata, true);
    await enqueueTask(transaction, row.id, { kind: "create", step: "schedule", excluded: [] }, context.clock.nowMs());
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
    const [shown] = await withParts(context.writer, [volume]);
    if (shown === undefined) throw notFound("Volume", volume.id);
    return { status: 202, body: { volume: volumeDetail({ request, context, caller }, shown, false) } };
  },
});
