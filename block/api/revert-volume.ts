import { Type } from "typebox";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError } from "../core/block-error.ts";
import { changeSnapshot, latestUnmanaged, snapshotsOf } from "../store/snapshots.ts";
import { enqueueTask } from "../store/tasks.ts";
import { changeVolume, volumeForChange } from "../store/volumes.ts";
import { visibleSnapshot } from "./block-route.ts";
import { refuseWhileConnected, refuseWhileOpen } from "./operators-volume.ts";
import { ACCEPTED, action, type Actions, type Asked } from "./volume-action.ts";

const SINCE = 40;

/** Cinder answers 409 here where it answers 400 elsewhere. */
const notNow = (message: string): Error => blockError("conflict", message);

const revert = async ({ context, caller, volume: known }: Asked, snapshotId: string): Promise<void> => {
  const { id } = known;
  await visibleSnapshot(context.database, caller, snapshotId);
  await refuseWhileOpen(context, known);
  const nowMs = context.clock.nowMs();
  await withTransaction(context.writer, async (transaction) => {
    const volume = await volumeForChange(transaction, id);
    const latest = (await snapshotsOf(transaction, id)).at(-1);
    if (latest === undefined) throw blockError("bad-request", `Volume ${id} doesn't have any snapshots.`);
    const unmanaged = await latestUnmanaged(transaction, id);
    if (unmanaged !== undefined && unmanaged.created_at_ms > latest.created_at_ms)
      throw blockError("bad-request", `Volume ${id} has a later snapshot that is not managed.`);
    if (latest.id !== snapshotId)
      throw blockError(
        "bad-request",
        `Specified snapshot ID ${snapshotId} isn't the latest one of volume ${id} (${latest.id}).`,
      );
    if (volume.size_gib !== latest.size_gib)
      throw blockError(
        "bad-request",
        `Can't revert volume ${id} to its latest snapshot ${snapshotId}. The volume size must be equal to the snapshot size.`,
      );
    if (volume.status !== "available")
      throw notNow(
        `Can't revert volume ${id} to its latest snapshot ${snapshotId}. Volume's status must be 'available'.`,
      );
    if (latest.status !== "available")
      throw notNow(
        `Can't revert volume ${id} to its latest snapshot ${snapshotId}. Snapshot's status must be 'available'.`,
      );
    await refuseWhileConnected(transaction, volume);
    await changeVolume(transaction, volume, { kind: "revert" }, nowMs);
    await changeSnapshot(transaction, latest, { kind: "revert" }, nowMs);
    await enqueueTask(transaction, id, { kind: "revert", step: "revert", snapshotId }, nowMs);
  });
  context.tasks.wake();
};

export const REVERT_ACTIONS: Actions = {
  revert: {
    since: SINCE,
    ...action("volume:revert_to_snapshot", Type.Object({ snapshot_id: Type.String() }), async (argument, asked) => {
      await revert(asked, argument.snapshot_id);
      return ACCEPTED;
    }),
  },
};
