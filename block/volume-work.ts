import { codeOf, RingsteadError } from "../common/errors.ts";
import type { Clock } from "../common/clock.ts";
import { blockError } from "./core/block-error.ts";
import { choosePool, type SchedulerSettings } from "./core/scheduler.ts";
import type { TaskEvent } from "./core/volume-task.ts";
import type { TaskWork } from "./daemons/task-runner.ts";
import type { NewVolume, WantedExport } from "./volume-host.ts";
import { type Hosts, poolOf, schedulerPool } from "./hosts.ts";
import type { BlockDatabase } from "./store/schema.ts";
import { basesOf, forgetBase } from "./store/backups.ts";
import { findSnapshot, snapshotsOf } from "./store/snapshots.ts";
import { frontEndQos } from "./store/type-parts.ts";
import { specsOf } from "./store/volume-types.ts";
import { findVolume, pendingGib, type Volume } from "./store/volumes.ts";

const GIB = 1024 ** 3;
const DONE: TaskEvent = { kind: "done" };
const PLACELESS: TaskEvent = { kind: "refused", code: "no-such-volume", reason: "it has no place" };

export type VolumeWorkOptions = {
  readonly database: BlockDatabase;
  readonly hosts: Hosts;
  readonly scheduler: SchedulerSettings;
  readonly zone: string;
  readonly clock: Clock;
};

/** Nodes that an administrator took out of service: nothing new is placed there. */
const disabledNodes = async (database: BlockDatabase): Promise<ReadonlySet<string>> =>
  new Set(
    (await database.selectFrom("services").select("node").where("disabled", "=", 1).execute()).map(({ node }) => node),
  );

/** What the steps of `core/volume-task.ts` do in the world: questions to the scheduler, calls to hosts. */
export const createVolumeWork = (options: VolumeWorkOptions): TaskWork => {
  const { database, hosts, zone } = options;

  /** The volume that it is a copy of, itself or through a snapshot. */
  const sourceVolumeId = async (volume: Volume): Promise<string | undefined> =>
    volume.snapshot_id === null
      ? (volume.source_volume_id ?? undefined)
      : (await findSnapshot(database, volume.snapshot_id))?.volume_id;

  const sourceOf = async (volume: Volume): Promise<NewVolume["source"]> => {
    const volumeId = await sourceVolumeId(volume);
    if (volume.snapshot_id === null) return volumeId === undefined ? { kind: "none" } : { kind: "volume", volumeId };
    if (volumeId === undefined) throw new RingsteadError("no-such-source", "the snapshot is gone");
    return { kind: "snapshot", volumeId, snapshotId: volume.snapshot_id };
  };

  const schedule = async (volume: Volume, excluded: readonly string[]): Promise<TaskEvent> => {
    const { pools, silent } = await hosts.reports();
    const [first] = silent;
    // A host that is away comes back: to find no pool without it would be the wrong answer.
    if (pools.length === 0 && first !== undefined)
      throw blockError("host-unavailable", `the block host ${first.node} does not answer: ${first.reason}`);
    const disabled = await disabledNodes(database);
    const pending = await pendingGib(database);
    const sourceId = await sourceVolumeId(volume);
    const source = sourceId === undefined ? undefined : await findVolume(database, sourceId);
    if (source === undefined && (volume.source_volume_id !== null || volume.snapshot_id !== null))
      return { kind: "no-pool", reason: "what it is to be made of is gone" };
    const choice = choosePool(
      pools.map((pool) => schedulerPool(pool, zone, !disabled.has(pool.node), pending.get(pool.name) ?? 0)),
      {
        sizeGib: volume.size_gib,
        zone: volume.availability_zone,
        extraSpecs: await specsOf(database, volume.volume_type_id),
        excluded,
        onlyPool: source?.backend ?? undefined,
      },
      options.scheduler,
    );
    return choice.kind === "chosen"
      ? { kind: "pool-chosen", backend: choice.pool.name }
      : { kind: "no-pool", reason: choice.reason };
  };

  const open = async (
    volume: Volume,
    backend: string,
    { exportId, ...how }: Pick<WantedExport, "transport" | "isReadOnly" | "initiator"> & { readonly exportId: string },
  ): Promise<TaskEvent> => {
    const { transport, isReadOnly, initiator } = how;
    const found = await hosts.of(backend).exportVolume({
      volumeId: volume.id,
      attachmentId: exportId,
      transport,
      isReadOnly,
      ...(initiator === undefined ? {} : { initiator }),
    });
    const qos = await frontEndQos(database, volume.volume_type_id);
    await database
      .updateTable("attachments")
      .set({
        connection_json: JSON.stringify(found),
        qos_json: qos === undefined ? null : JSON.stringify(qos),
        attached_at_ms: options.clock.nowMs(),
      })
      .where("id", "=", exportId)
      .execute();
    return { kind: "exported" };
  };

  /** A volume that never got a place has nothing anywhere. */
  const close = async (volume: Volume, exportIds: readonly string[]): Promise<TaskEvent> => {
    if (volume.backend !== null)
      for (const id of exportIds) await hosts.of(volume.backend).unexportVolume(volume.id, id);
    return DONE;
  };

  /** What the host never had, or has no more, is dropped already. */
  const drop = async (volume: Volume, snapshotId: string): Promise<TaskEvent> => {
    if (volume.backend !== null) await hosts.of(volume.backend).deleteSnapshot(volume.id, snapshotId);
    return DONE;
  };

  /** What backups left at the host, to know what changes since. */
  const dropBases = async (volume: Volume): Promise<void> => {
    for (const id of await basesOf(database, volume.id)) {
      await drop(volume, id);
      await forgetBase(database, id);
    }
  };

  const unmake = async (volume: Volume): Promise<TaskEvent> => {
    if (volume.backend !== null) {
      try {
        await hosts.of(volume.backend).deleteVolume(volume.id);
      } catch (thrown) {
        if (codeOf(thrown) !== "no-such-volume") throw thrown;
      }
    }
    return DONE;
  };

  return async (volumeId, task) => {
    const volume = await findVolume(database, volumeId);
    if (volume === undefined) return DONE;
    switch (task.kind) {
      case "create":
        if (task.step === "schedule") return schedule(volume, task.excluded);
        if (task.step === "unmake") return unmake(volume);
        await hosts.of(task.backend).createVolume({
          volumeId,
          pool: poolOf(task.backend),
          sizeBytes: volume.size_gib * GIB,
          source: await sourceOf(volume),
        });
        return DONE;
      case "delete": {
        if (task.step === "unmake") return unmake(volume);
        if (task.step === "drop-snapshots") {
          for (const { id } of await snapshotsOf(database, volumeId)) await drop(volume, id);
          await dropBases(volume);
          return DONE;
        }
        // Also what no attachment tells of: an operator's export, or that of a restoration that was given up while the host was silent.
        if (volume.backend !== null) await hosts.of(volume.backend).unexportVolume(volumeId);
        return DONE;
      }
      case "snapshot":
        if (task.step === "undo") return drop(volume, task.snapshotId);
        if (volume.backend === null) return PLACELESS;
        await hosts.of(volume.backend).createSnapshot(volumeId, task.snapshotId);
        return DONE;
      case "unsnapshot":
        return drop(volume, task.snapshotId);
      case "revert":
        if (volume.backend === null) return PLACELESS;
        // They are later than the snapshot: the next increment looks at everything.
        await dropBases(volume);
        await hosts.of(volume.backend).revertVolume(volumeId, task.snapshotId);
        return DONE;
      case "extend":
        if (volume.backend !== null) await hosts.of(volume.backend).extendVolume(volumeId, task.sizeGib * GIB);
        return DONE;
      case "connect":
        if (task.step === "undo") return close(volume, [task.exportId]);
        if (volume.backend === null) return PLACELESS;
        return open(volume, volume.backend, task);
      case "disconnect":
        return close(volume, task.exportIds);
    }
  };
};
