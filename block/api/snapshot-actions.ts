import { Type } from "typebox";
import { validator } from "../../common/http/validate.ts";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError } from "../core/block-error.ts";
import { SNAPSHOT_STATUSES, type SnapshotStatus } from "../core/snapshot-state.ts";
import { changeSnapshot, type Snapshot, snapshotForChange } from "../store/snapshots.ts";
import { type BlockContext, type BlockRoute, visibleSnapshot } from "./block-route.ts";
import { unmanageSnapshot } from "./manageable-snapshots.ts";
import { type NamedAction, namedActionRoutes } from "./named-actions.ts";
import { deleteSnapshot } from "./snapshots.ts";

const resetBody = validator(Type.Object({ status: Type.Enum([...SNAPSHOT_STATUSES]) }), "body");
const updateBody = validator(
  Type.Object({
    status: Type.Enum([...SNAPSHOT_STATUSES]),
    progress: Type.Optional(Type.String({ pattern: "^(\\d{1,2}|100)%$" })),
  }),
  "body",
);

/** What a service that takes snapshots by itself may say of one. */
const SAID: Readonly<Partial<Record<SnapshotStatus, readonly SnapshotStatus[]>>> = {
  creating: ["creating", "available", "error"],
  deleting: ["deleting", "error_deleting"],
};

type Said = { readonly status: SnapshotStatus; readonly progress?: string };

const updateStatus = (context: BlockContext, id: string, said: Said): Promise<void> =>
  withTransaction(context.writer, async (transaction) => {
    const snapshot = await snapshotForChange(transaction, id);
    const allowed = SAID[snapshot.status];
    if (allowed === undefined)
      throw blockError("bad-request", `Snapshot status ${snapshot.status} not allowed for update_snapshot_status`);
    if (!allowed.includes(said.status))
      throw blockError(
        "bad-request",
        `Provided snapshot status ${said.status} not allowed for snapshot with status ${snapshot.status}.`,
      );
    await changeSnapshot(transaction, snapshot, { kind: "reset", status: said.status }, context.clock.nowMs());
    if (said.progress !== undefined)
      await transaction.updateTable("snapshots").set({ progress: said.progress }).where("id", "=", id).execute();
  });

const ACTIONS: Readonly<Record<string, NamedAction<Snapshot>>> = {
  "os-reset_status": {
    policy: "volume_extension:snapshot_admin_actions:reset_status",
    run: (context, { id }, argument) =>
      withTransaction(context.writer, async (transaction) => {
        // The validator has just shown it.
        const { status } = resetBody(argument) as Said;
        const snapshot = await snapshotForChange(transaction, id);
        await changeSnapshot(transaction, snapshot, { kind: "reset", status }, context.clock.nowMs());
      }),
  },
  "os-update_snapshot_status": {
    policy: "snapshot_extension:snapshot_actions:update_snapshot_status",
    run: (context, { id }, argument) => updateStatus(context, id, updateBody(argument) as Said),
  },
  "os-unmanage": {
    policy: "snapshot_extension:snapshot_unmanage",
    run: (context, { id }) => unmanageSnapshot(context, id),
  },
  "os-force_delete": {
    policy: "volume_extension:snapshot_admin_actions:force_delete",
    run: (context, { id }) => deleteSnapshot(context, id, true),
  },
};

/** `{"os-reset_status": {"status": "error"}}`: one action of the snapshot. */
export const SNAPSHOT_ACTION_ROUTES: readonly BlockRoute[] = namedActionRoutes({
  collection: "snapshots",
  idName: "snapshot_id",
  actions: ACTIONS,
  find: (context, caller, snapshotId) => visibleSnapshot(context.database, caller, snapshotId),
});
