import { Type } from "typebox";
import type { HttpRequest } from "../../common/http/route.ts";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError, notFound } from "../core/block-error.ts";
import type { BlockDatabase } from "../store/schema.ts";
import { latestUnmanaged, snapshotsOf } from "../store/snapshots.ts";
import { encryptionOf } from "../store/type-parts.ts";
import { findType, type VolumeType } from "../store/volume-types.ts";
import { type Volume, volumeForChange } from "../store/volumes.ts";
import { type BlockContext, type BlockRoute, blockRoute, type Caller, projectOf, truthOf } from "./block-route.ts";
import { insertManagedRow, newVolumeRow } from "./create-volume.ts";
import { parameter, queryOf } from "./list-parameters.ts";
import { manageablePage, type Manageable, noSuchReference, poolNamed, referredId } from "./manageable-lists.ts";
import { servesType } from "./retype-volume.ts";
import { descriptionSchema, metadataSchema, nameSchema } from "./volume-fields.ts";
import { withParts } from "./volume-lists.ts";
import { volumeDetail } from "./volume-views.ts";
import { assertUnused, IN_THE_WAY } from "./volumes.ts";

const LIST_SINCE = 8;

const manageableOf = async (database: BlockDatabase, backend: string): Promise<readonly Manageable[]> => {
  const managed = await database
    .selectFrom("volumes")
    .select(["id", "size_gib"])
    .where("backend", "=", backend)
    .where("status", "<>", "creating")
    .execute();
  const unmanaged = await database
    .selectFrom("unmanaged")
    .select(["id", "size_gib"])
    .where("kind", "=", "volume")
    .where("backend", "=", backend)
    .execute();
  const shown = (isManaged: boolean) => (one: { id: string; size_gib: number }) => ({
    id: one.id,
    name: `volume-${one.id}`,
    sizeGib: one.size_gib,
    isManaged,
  });
  return [...managed.map(shown(true)), ...unmanaged.map(shown(false))];
};

/** The row goes, its bytes stay with the host, where they still take their space. Throws `invalid-state`. */
export const unmanageVolume = (context: BlockContext, id: string): Promise<void> =>
  withTransaction(context.writer, async (transaction) => {
    const volume = await volumeForChange(transaction, id);
    const { backend, size_gib: size, created_at_ms: createdAtMs } = volume;
    const hasSnapshots =
      (await snapshotsOf(transaction, id)).length > 0 || (await latestUnmanaged(transaction, id)) !== undefined;
    if (volume.status !== "available" || volume.group_id !== null || hasSnapshots || backend === null)
      throw blockError("invalid-state", IN_THE_WAY);
    await assertUnused(transaction, id);
    await transaction.deleteFrom("volumes").where("id", "=", id).execute();
    await transaction
      .insertInto("unmanaged")
      .values({ id, kind: "volume", volume_id: null, backend, size_gib: size, created_at_ms: createdAtMs })
      .execute();
  });

/** Throws `not-found` for a type that is not there, `bad-request` for one whose volumes cannot be there. */
const typeFor = async (
  context: BlockContext,
  caller: Caller,
  name: string | null | undefined,
  backend: string,
): Promise<VolumeType> => {
  const wanted = name ?? context.config.defaultVolumeType;
  const type = await findType(context.database, wanted, caller.isAdmin ? undefined : projectOf(caller));
  if (type === undefined) throw notFound("Volume type with name", wanted);
  const isServed =
    (await servesType(context, backend, type.id)) && (await encryptionOf(context.database, type.id)) === undefined;
  if (isServed) return type;
  throw blockError("bad-request", `Invalid volume type: volumes of type ${type.name} cannot be on ${backend}.`);
};

const optionalText = Type.Optional(Type.Union([Type.String({ maxLength: 255 }), Type.Null()]));
const manageBody = Type.Object({
  volume: Type.Object({
    host: optionalText,
    cluster: optionalText,
    ref: Type.Record(Type.String(), Type.Unknown(), { maxProperties: 16 }),
    name: nameSchema,
    description: descriptionSchema,
    volume_type: optionalText,
    availability_zone: optionalText,
    bootable: Type.Optional(Type.Unknown()),
    metadata: Type.Optional(Type.Union([metadataSchema, Type.Null()])),
  }),
});

const list = async (request: HttpRequest, context: BlockContext, caller: Caller, isDetailed: boolean) => {
  const backend = await poolNamed(context, parameter(queryOf(request.query), "host"));
  const all = await manageableOf(context.database, backend);
  return { status: 200, body: manageablePage("manageable-volumes", request, context, caller, all, isDetailed) };
};

/** Volumes that a host has and the API was told to forget come back under their ids; the second path is the older one. */
export const MANAGEABLE_VOLUME_ROUTES: readonly BlockRoute[] = [
  { path: "/manageable_volumes", since: LIST_SINCE },
  { path: "/os-volume-manage", since: 0 },
].flatMap(({ path, since }) => [
  ...["", "/detail"].flatMap((end) =>
    blockRoute({
      method: "GET",
      path: `${path}${end}`,
      since: LIST_SINCE,
      request: {},
      operation: "volume_extension:list_manageable",
      handler: (request, context, caller) => list(request, context, caller, end !== ""),
    }),
  ),
  ...blockRoute({
    method: "POST",
    path,
    since,
    request: { body: manageBody },
    operation: "volume_extension:volume_manage",
    handler: async (request, context, caller) => {
      const { volume: wanted } = request.body;
      const backend = await poolNamed(context, wanted.host ?? undefined);
      const id = referredId(wanted.ref, "volume");
      const type = await typeFor(context, caller, wanted.volume_type, backend);
      const volume = await withTransaction(context.writer, async (transaction) => {
        const kept = await transaction
          .deleteFrom("unmanaged")
          .where("id", "=", id)
          .where("kind", "=", "volume")
          .where("backend", "=", backend)
          .returning("size_gib")
          .executeTakeFirst();
        if (kept === undefined) throw noSuchReference(`there is no unmanaged volume ${id} on ${backend}.`);
        const row: Volume = {
          ...newVolumeRow({ ...wanted }, caller, context, type),
          id,
          size_gib: kept.size_gib,
          status: "available",
          backend,
          bootable: Number(truthOf(wanted.bootable ?? false) ?? false),
        };
        await insertManagedRow(transaction, row, type, wanted.metadata ?? {});
        return row;
      });
      const [shown] = await withParts(context.writer, [volume]);
      if (shown === undefined) throw notFound("Volume", id);
      return { status: 202, body: { volume: volumeDetail({ request, context, caller }, shown, false) } };
    },
  }),
]);
