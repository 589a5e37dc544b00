import type { Selectable } from "kysely";
import { blockError, notFound } from "../core/block-error.ts";
import { type SnapshotEvent, stepSnapshot } from "../core/snapshot-state.ts";
import { writeStatus } from "./statuses.ts";
import type { BlockDatabase, BlockTransaction, SnapshotsTable, UnmanagedTable } from "./schema.ts";

export type Snapshot = Selectable<SnapshotsTable>;

export const findSnapshot = (database: BlockDatabase, id: string): Promise<Snapshot | undefined> =>
  database.selectFrom("snapshots").selectAll().where("id", "=", id).executeTakeFirst();

/** Throws `not-found`. */
export const snapshotForChange = async (transaction: BlockTransaction, id: string): Promise<Snapshot> => {
  const snapshot = await findSnapshot(transaction, id);
  if (snapshot === undefined) throw notFound("Snapshot", id);
  return snapshot;
};

/** Oldest first, as the host has them. */
export const snapshotsOf = (database: BlockDatabase, volumeId: string): Promise<Snapshot[]> =>
  database.selectFrom("snapshots").selectAll().where("volume_id", "=", volumeId).orderBy("created_at_ms").execute();

const write = (
  transaction: BlockTransaction,
  snapshot: Snapshot,
  event: SnapshotEvent,
  nowMs: number,
): Promise<readonly string[] | undefined> =>
  writeStatus(transaction, "snapshots", snapshot.id, stepSnapshot(snapshot.status, event), nowMs);

/** Does to the snapshot what a caller asks for, or throws `invalid-state` in Cinder's words. */
export const changeSnapshot = async (
  transaction: BlockTransaction,
  snapshot: Snapshot,
  event: SnapshotEvent,
  nowMs: number,
): Promise<void> => {
  const allowed = await write(transaction, snapshot, event, nowMs);
  if (allowed === undefined) return;
  throw blockError(
    "invalid-state",
    `Invalid snapshot: Snapshot ${snapshot.id} status must be ${allowed.join(" or ")} for ${event.kind.replaceAll("-", " ")}, but current status is: ${snapshot.status}`,
    { snapshot: snapshot.id, status: snapshot.status },
  );
};

/** Writes what became of an operation. Where the snapshot was meanwhile forced into another status, that one holds. */
export const settleSnapshot = async (
  transaction: BlockTransaction,
  snapshot: Snapshot,
  event: SnapshotEvent,
  nowMs: number,
): Promise<void> => void (await write(transaction, snapshot, event, nowMs));

/** A time for the volume's next snapshot that is later than those of all that it has. */
export const nextSnapshotMs = async (
  transaction: BlockTransaction,
  volumeId: string,
  nowMs: number,
): Promise<number> => {
  const latest = (await snapshotsOf(transaction, volumeId)).at(-1);
  const unmanaged = await latestUnmanaged(transaction, volumeId);
  return Math.max(nowMs, Number(latest?.created_at_ms ?? 0) + 1, Number(unmanaged?.created_at_ms ?? 0) + 1);
};

/** The volume's latest snapshot that the host has and the API was told to forget. */
export const latestUnmanaged = (
  database: BlockDatabase,
  volumeId: string,
): Promise<Selectable<UnmanagedTable> | undefined> =>
  database
    .selectFrom("unmanaged")
    .selectAll()
    .where("volume_id", "=", volumeId)
    .orderBy("created_at_ms", "desc")
    .limit(1)
    .executeTakeFirst();
