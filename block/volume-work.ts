import { codeOf } from "../common/errors.ts";
import type { Clock } from "../common/clock.ts";
import { blockError } from "./core/block-error.ts";
import { choosePool, type SchedulerSettings } from "./core/scheduler.ts";
import type { TaskEvent } from "./core/volume-task.ts";
import type { TaskWork } from "./daemons/task-runner.ts";
import { type Hosts, poolOf, schedulerPool } from "./hosts.ts";
import type { BlockDatabase } from "./store/schema.ts";
import { specsOf } from "./store/volume-types.ts";
import { attachmentsOf, findVolume, pendingGib, type Volume } from "./store/volumes.ts";

const GIB = 1024 ** 3;
const DONE: TaskEvent = { kind: "done" };

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

  const schedule = async (volume: Volume, excluded: readonly string[]): Promise<TaskEvent> => {
    const { pools, silent } = await hosts.reports();
    const [first] = silent;
    // A host that is away comes back: to find no pool without it would be the wrong answer.
    if (pools.length === 0 && first !== undefined)
      throw blockError("host-unavailable", `the block host ${first.node} does not answer: ${first.reason}`);
    const disabled = await disabledNodes(database);
    const pending = await pendingGib(database);
    const source = volume.source_volume_id === null ? undefined : await findVolume(database, volume.source_volume_id);
    if (volume.source_volume_id !== null && source === undefined)
      return { kind: "no-pool", reason: "the source volume is gone" };
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
    task: { readonly exportId: string; readonly transport: "unix" | "tcp"; readonly isReadOnly: boolean },
  ): Promise<TaskEvent> => {
    const { exportId, transport, isReadOnly } = task;
    const found = await hosts
      .of(backend)
      .exportVolume({ volumeId: volume.id, attachmentId: exportId, transport, isReadOnly });
    await database
      .updateTable("attachments")
      .set({ connection_json: JSON.stringify(found), attached_at_ms: options.clock.nowMs() })
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
          source:
            volume.source_volume_id === null ? { kind: "none" } : { kind: "volume", volumeId: volume.source_volume_id },
        });
        return DONE;
      case "delete": {
        if (task.step === "unmake") return unmake(volume);
        const opened = (await attachmentsOf(database, volumeId)).filter((one) => one.connector_json !== null);
        // What an operator has exported goes by the volume's own id.
        return close(volume, [...opened.map(({ id }) => id), volumeId]);
      }
      case "extend":
        if (volume.backend !== null) await hosts.of(volume.backend).extendVolume(volumeId, task.sizeGib * GIB);
        return DONE;
      case "connect":
        if (task.step === "undo") return close(volume, [task.exportId]);
        if (volume.backend === null) return { kind: "refused", code: "no-such-volume", reason: "it has no place" };
        return open(volume, volume.backend, task);
      case "disconnect":
        return close(volume, task.exportIds);
    }
  };
};
