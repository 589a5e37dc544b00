import { Type } from "typebox";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError, notFound } from "../core/block-error.ts";
import { choosePool } from "../core/scheduler.ts";
import { schedulerPool } from "../hosts.ts";
import { addMessage } from "../store/messages.ts";
import { encryptionOf, qosOfType } from "../store/type-parts.ts";
import { assertTypeQuota } from "../store/quotas.ts";
import type { BlockDatabase, BlockTransaction } from "../store/schema.ts";
import { snapshotsOf } from "../store/snapshots.ts";
import { findType, specsOf, type VolumeType } from "../store/volume-types.ts";
import { type Volume, volumeForChange } from "../store/volumes.ts";
import { type BlockContext, projectOf } from "./block-route.ts";
import { ACCEPTED, action, type Actions, type Asked } from "./volume-action.ts";

/** Whether volumes of the type may be where they are already. Throws `host-unavailable` where that host does not answer. */
export const servesType = async (context: BlockContext, backend: string, typeId: string): Promise<boolean> => {
  const { pools } = await context.hosts.reports();
  const own = pools.find(({ name }) => name === backend);
  if (own === undefined) throw blockError("host-unavailable", "The block host of the volume does not answer.");
  const { availabilityZone, scheduler } = context.config;
  // It has its space already.
  const pool = { ...schedulerPool(own, availabilityZone, true, 0), failure: undefined, isThin: false };
  const extraSpecs = await specsOf(context.database, typeId);
  const placement = { sizeGib: 0, zone: undefined, extraSpecs, excluded: [], onlyPool: undefined };
  return choosePool([{ ...pool, freeGib: pool.totalGib }], placement, scheduler).kind === "chosen";
};

/** What a volume that is attached cannot change, because its users were told it. */
const assertSameForUsers = async (database: BlockDatabase, volume: Volume, type: VolumeType): Promise<void> => {
  const [before, after] = [await qosOfType(database, volume.volume_type_id), await qosOfType(database, type.id)];
  const isFrontEnd = [before, after].some((one) => one !== undefined && one.consumer !== "back-end");
  if (before?.id !== after?.id && isFrontEnd)
    throw blockError(
      "bad-request",
      `Invalid input received: Retype cannot change front-end qos specs for in-use volume: ${volume.id}.`,
    );
  const isShared = /true/i.test((await specsOf(database, type.id))["multiattach"] ?? "");
  if (isShared !== (volume.multiattach === 1))
    throw blockError(
      "bad-request",
      "Invalid input received: Retyping a volume to or from a multiattach type is not supported while it is attached.",
    );
};

/** The volume's place in the quotas of the new type, with its snapshots. */
const moveQuota = async (transaction: BlockTransaction, volume: Volume, type: VolumeType): Promise<void> => {
  const own = (await snapshotsOf(transaction, volume.id)).filter((one) => one.project_id === volume.project_id);
  const gigabytes = own.reduce((sum, one) => sum + one.size_gib, volume.size_gib);
  const demand = { volumes: 1, snapshots: own.length, gigabytes, volumeGigabytes: 0 };
  await assertTypeQuota(transaction, volume.project_id, type.name, demand);
};

const assertChangeable = (volume: Volume): void => {
  if ((volume.status === "available" || volume.status === "in-use") && volume.group_id === null) return;
  throw blockError(
    "invalid-state",
    `Invalid volume: Volume ${volume.id} status must be available or in-use, must not be migrating or part of a group, but it is ${volume.status}.`,
  );
};

/**
 * Where the volume can stay, it has the new type at once. Where it would have to move, which no back-end here can do for another, it keeps its
 * type, and its project is told: what Cinder's scheduler does that finds no back-end.
 */
const retype = async (asked: Asked, newType: string): Promise<void> => {
  const { context, caller } = asked;
  const { id } = asked.volume;
  const type = await findType(context.database, newType, caller.isAdmin ? undefined : projectOf(caller));
  if (type === undefined) throw notFound("Volume type with name", newType);
  if (type.id === asked.volume.volume_type_id)
    throw blockError("bad-request", `Invalid input received: New volume_type same as original: ${type.id}.`);
  assertChangeable(asked.volume);
  const isPossible =
    asked.volume.backend !== null &&
    (await servesType(context, asked.volume.backend, type.id)) &&
    (await encryptionOf(context.database, type.id)) === undefined;
  const isShared = /true/i.test((await specsOf(context.database, type.id))["multiattach"] ?? "");
  await withTransaction(context.writer, async (transaction) => {
    const nowMs = context.clock.nowMs();
    const volume = await volumeForChange(transaction, id);
    assertChangeable(volume);
    if (volume.status === "in-use") await assertSameForUsers(transaction, volume, type);
    await moveQuota(transaction, volume, type);
    if (isPossible) {
      const values = { volume_type_id: type.id, multiattach: Number(isShared), updated_at_ms: nowMs };
      await transaction.updateTable("volumes").set(values).where("id", "=", id).execute();
      return;
    }
    await addMessage(
      transaction,
      {
        projectId: volume.project_id,
        resourceType: "VOLUME",
        resourceId: id,
        action: "schedule",
        detail: "no-backend",
        requestId: asked.requestId,
      },
      nowMs,
    );
  });
};

export const RETYPE_ACTIONS: Actions = {
  "os-retype": action(
    "volume:retype",
    Type.Object({
      new_type: Type.String({ minLength: 1, maxLength: 255 }),
      migration_policy: Type.Optional(Type.Union([Type.Literal("never"), Type.Literal("on-demand"), Type.Null()])),
    }),
    async ({ new_type: newType }, asked) => {
      await retype(asked, newType);
      return ACCEPTED;
    },
  ),
};
