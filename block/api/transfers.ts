import { randomUUID } from "node:crypto";
import { Type } from "typebox";
import type { HttpRequest } from "../../common/http/route.ts";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError, notFound } from "../core/block-error.ts";
import { assertQuota } from "../store/quotas.ts";
import type { BlockDatabase, BlockTransaction } from "../store/schema.ts";
import { type Snapshot, snapshotsOf } from "../store/snapshots.ts";
import { findTransfer, isTransferKey, newTransferKey, type Transfer } from "../store/transfers.ts";
import { findType } from "../store/volume-types.ts";
import { changeVolume, settleVolume, type Volume, volumeForChange } from "../store/volumes.ts";
import {
  baseUrl,
  type BlockContext,
  type BlockRoute,
  blockRoute,
  type Caller,
  enforce,
  projectOf,
  timeText,
  truthOf,
  visibleVolume,
} from "./block-route.ts";
import { listRows, type ListSource } from "./list-rows.ts";
import { nameSchema, uuidParams } from "./volume-fields.ts";

const SNAPSHOTS_SINCE = 55;
const PROJECTS_SINCE = 57;
const params = uuidParams("transfer_id");

const TRANSFERS: ListSource = {
  table: "transfers",
  name: "transfers",
  sortColumns: {
    id: { column: "id", kind: "text" },
    name: { column: "name", kind: "text" },
    display_name: { column: "name", kind: "text" },
    volume_id: { column: "volume_id", kind: "text" },
    created_at: { column: "created_at_ms", kind: "number" },
  },
  filters: { id: "id", name: "name", volume_id: "volume_id" },
};

type Asked = { readonly request: HttpRequest; readonly context: BlockContext; readonly caller: Caller };

const transferSummary = ({ request, context, caller }: Asked, transfer: Transfer) => {
  const base = baseUrl(request, context, caller);
  return {
    id: transfer.id,
    volume_id: transfer.volume_id,
    name: transfer.name,
    links: [
      { rel: "self", href: `${base}/volume-transfers/${transfer.id}` },
      { rel: "bookmark", href: `${base.replace("/v3", "")}/volume-transfers/${transfer.id}` },
    ],
  };
};

const transferDetail = (asked: Asked, transfer: Transfer) => ({
  ...transferSummary(asked, transfer),
  created_at: timeText(transfer.created_at_ms),
  ...(asked.caller.version >= SNAPSHOTS_SINCE ? { no_snapshots: transfer.no_snapshots === 1 } : {}),
  ...(asked.caller.version >= PROJECTS_SINCE
    ? { source_project_id: transfer.project_id, destination_project_id: null, accepted: false }
    : {}),
});

/** The transfer, if the caller's project offers it. Throws `not-found`. */
const visibleTransfer = async (database: BlockDatabase, caller: Caller, id: string): Promise<Transfer> => {
  const transfer = await findTransfer(database, id);
  if (transfer === undefined || (!caller.isAdmin && transfer.project_id !== caller.token.projectId))
    throw notFound("Transfer", id);
  return transfer;
};

/** Snapshots that go along. Throws `invalid-state` where one is not at rest. */
const takenAlong = async (
  transaction: BlockTransaction,
  volumeId: string,
  noSnapshots: boolean,
): Promise<readonly Snapshot[]> => {
  if (noSnapshots) return [];
  const snapshots = await snapshotsOf(transaction, volumeId);
  const busy = snapshots.find(({ status, group_snapshot_id: group }) => status !== "available" || group !== null);
  if (busy !== undefined)
    throw blockError(
      "invalid-state",
      `Invalid snapshot: snapshot: ${busy.id} status must be 'available' and it must not be part of a group snapshot to be transferred.`,
    );
  return snapshots;
};

type Offer = { readonly volumeId: string; readonly name: string | null; readonly noSnapshots: boolean };

const create = (context: BlockContext, offer: Offer): Promise<{ transfer: Transfer; key: string }> =>
  withTransaction(context.writer, async (transaction) => {
    const nowMs = context.clock.nowMs();
    const volume = await volumeForChange(transaction, offer.volumeId);
    if (volume.group_id !== null)
      throw blockError("invalid-state", `Invalid volume: Volume ${volume.id} must not be part of a group.`);
    await takenAlong(transaction, volume.id, offer.noSnapshots);
    await changeVolume(transaction, volume, { kind: "transfer" }, nowMs);
    const { key, salt, hash } = newTransferKey();
    const transfer: Transfer = {
      id: randomUUID(),
      volume_id: volume.id,
      name: offer.name,
      salt,
      key_hash: hash,
      no_snapshots: Number(offer.noSnapshots),
      project_id: volume.project_id,
      created_at_ms: nowMs,
    };
    // What an administrator's reset of the status has left.
    await transaction.deleteFrom("transfers").where("volume_id", "=", volume.id).execute();
    await transaction.insertInto("transfers").values(transfer).execute();
    return { transfer, key };
  });

const typeForProject = async (transaction: BlockTransaction, volume: Volume, projectId: string) => {
  const type = await findType(transaction, volume.volume_type_id, projectId);
  if (type !== undefined) return type;
  throw blockError(
    "bad-request",
    `Invalid volume: the type of volume ${volume.id} must be one that project ${projectId} may use.`,
  );
};

/** The volume and its snapshots become those of the caller's project, in its quotas. */
const accept = (context: BlockContext, caller: Caller, id: string, key: string): Promise<Transfer> =>
  withTransaction(context.writer, async (transaction) => {
    const projectId = projectOf(caller);
    const transfer = await findTransfer(transaction, id);
    if (transfer === undefined) throw notFound("Transfer", id);
    if (!isTransferKey(transfer, key))
      throw blockError("bad-request", `Invalid auth key: Attempt to transfer ${id} with invalid auth key.`);
    const nowMs = context.clock.nowMs();
    const volume = await volumeForChange(transaction, transfer.volume_id);
    const type = await typeForProject(transaction, volume, projectId);
    const snapshots = await takenAlong(transaction, volume.id, transfer.no_snapshots === 1);
    await changeVolume(transaction, volume, { kind: "transfer-ended" }, nowMs);
    const owner = { project_id: projectId, user_id: caller.token.userId };
    // Its own project's quotas have room for what they count already.
    if (projectId !== volume.project_id) {
      const gigabytes = snapshots.reduce((sum, one) => sum + one.size_gib, volume.size_gib);
      const demand = { volumes: 1, snapshots: snapshots.length, gigabytes, volumeGigabytes: volume.size_gib };
      await assertQuota(transaction, projectId, type.name, demand);
    }
    await transaction.updateTable("volumes").set(owner).where("id", "=", volume.id).execute();
    for (const snapshot of snapshots)
      await transaction.updateTable("snapshots").set(owner).where("id", "=", snapshot.id).execute();
    await transaction.deleteFrom("transfers").where("id", "=", id).execute();
    return transfer;
  });

const remove = (context: BlockContext, id: string): Promise<void> =>
  withTransaction(context.writer, async (transaction) => {
    const transfer = await findTransfer(transaction, id);
    if (transfer === undefined) throw notFound("Transfer", id);
    const volume = await volumeForChange(transaction, transfer.volume_id);
    // An administrator may have set another status, which holds.
    await settleVolume(transaction, volume, { kind: "transfer-ended" }, context.clock.nowMs());
    await transaction.deleteFrom("transfers").where("id", "=", id).execute();
  });

const createBody = Type.Object({
  transfer: Type.Object({
    volume_id: Type.String(),
    name: nameSchema,
    no_snapshots: Type.Optional(Type.Unknown()),
  }),
});

const noSnapshotsOf = (value: unknown, { version }: Caller): boolean => {
  if (value === undefined) return false;
  const truth = version >= SNAPSHOTS_SINCE ? truthOf(value) : undefined;
  if (truth === undefined) throw blockError("bad-request", "Invalid input for field/attribute no_snapshots.");
  return truth;
};

const list = async (asked: Asked, isDetailed: boolean) => {
  const { request, context, caller } = asked;
  const { rows, more } = await listRows<Transfer>(request, context, caller, TRANSFERS);
  const transfers = rows.map((one) => (isDetailed ? transferDetail(asked, one) : transferSummary(asked, one)));
  return { status: 200, body: { transfers, ...more } };
};

/** Volumes offered to whoever knows the key; the first path is the older one. */
export const TRANSFER_ROUTES: readonly BlockRoute[] = [
  { path: "/os-volume-transfer", since: 0 },
  { path: "/volume-transfers", since: SNAPSHOTS_SINCE },
].flatMap(({ path, since }) => [
  ...blockRoute({
    method: "GET",
    path,
    since,
    request: {},
    operation: "volume:get_all_transfers",
    handler: (request, context, caller) => list({ request, context, caller }, false),
  }),
  ...blockRoute({
    method: "GET",
    path: `${path}/detail`,
    since,
    request: {},
    operation: "volume:get_all_transfers",
    handler: (request, context, caller) => list({ request, context, caller }, true),
  }),
  ...blockRoute({
    method: "POST",
    path,
    since,
    request: { body: createBody },
    handler: async (request, context, caller) => {
      const { transfer: wanted } = request.body;
      const volume = await visibleVolume(context.database, caller, wanted.volume_id);
      enforce(context, caller, "volume:create_transfer", volume.project_id);
      const { transfer, key } = await create(context, {
        volumeId: volume.id,
        name: wanted.name ?? null,
        noSnapshots: noSnapshotsOf(wanted.no_snapshots, caller),
      });
      const shown = { ...transferDetail({ request, context, caller }, transfer), auth_key: key };
      return { status: 202, body: { transfer: shown } };
    },
  }),
  ...blockRoute({
    method: "GET",
    path: `${path}/:transfer_id`,
    since,
    request: { params },
    handler: async (request, context, caller) => {
      const transfer = await visibleTransfer(context.database, caller, request.params.transfer_id);
      enforce(context, caller, "volume:get_transfer", transfer.project_id);
      return { status: 200, body: { transfer: transferDetail({ request, context, caller }, transfer) } };
    },
  }),
  ...blockRoute({
    method: "POST",
    path: `${path}/:transfer_id/accept`,
    since,
    request: { params, body: Type.Object({ accept: Type.Object({ auth_key: Type.String({ maxLength: 255 }) }) }) },
    operation: "volume:accept_transfer",
    handler: async (request, context, caller) => {
      const taken = await accept(context, caller, request.params.transfer_id, request.body.accept.auth_key);
      return { status: 202, body: { transfer: transferSummary({ request, context, caller }, taken) } };
    },
  }),
  ...blockRoute({
    method: "DELETE",
    path: `${path}/:transfer_id`,
    since,
    request: { params },
    handler: async (request, context, caller) => {
      const transfer = await visibleTransfer(context.database, caller, request.params.transfer_id);
      enforce(context, caller, "volume:delete_transfer", transfer.project_id);
      await remove(context, transfer.id);
      return { status: 202 };
    },
  }),
]);
