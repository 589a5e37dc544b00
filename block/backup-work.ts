import { codeOf, RingsteadError } from "../common/errors.ts";
import type { Clock } from "../common/clock.ts";
import { type BackupSource, type CopyFigures, copyVolume } from "./backup/copy.ts";
import type { BackupTask, BackupTaskEvent } from "./backup/core/backup-task.ts";
import { pageCountOf } from "./backup/core/page.ts";
import type { PageList } from "./backup/format.ts";
import { checkBackup, restoreVolume } from "./backup/restore.ts";
import { type BackupAccess, backupStoreOf } from "./backup-access.ts";
import type { BackupTaskWork, StepTools } from "./daemons/backup-runner.ts";
import type { Hosts } from "./hosts.ts";
import { type Backup, basesOf, findBackup, forgetBase } from "./store/backups.ts";
import type { BlockDatabase } from "./store/schema.ts";
import { isVolumeBusy } from "./store/tasks.ts";
import { findVolume, type Volume } from "./store/volumes.ts";
import type { VolumeData, VolumeWriter } from "./volume-data.ts";
import type { VolumeHost } from "./volume-host.ts";

const GIB = 1024 ** 3;
const DONE: BackupTaskEvent = { kind: "done" };
const LATER: BackupTaskEvent = { kind: "later" };
/** Why a host cannot have a volume filled by itself. */
const WRITTEN_INSTEAD: ReadonlySet<string> = new Set(["pool-full", "backups-unavailable", "snapshot-filling"]);

export type BackupWorkOptions = BackupAccess & {
  readonly database: BlockDatabase;
  readonly hosts: Hosts;
  readonly clock: Clock;
  /** Told what a copy cost. */
  onCopied(this: void, backupId: string, figures: CopyFigures): void;
};

type Place = {
  readonly volume: Volume;
  readonly backend: string;
  readonly host: VolumeHost;
  readonly data: VolumeData;
};

/** What the steps of `backup/core/backup-task.ts` do in the world. */
export const createBackupWork = (options: BackupWorkOptions): BackupTaskWork => {
  const { database, hosts } = options;

  /** Undefined where the volume is nowhere any more. */
  const placeOf = async (volumeId: string): Promise<Place | undefined> => {
    const volume = await findVolume(database, volumeId);
    if (volume?.backend === undefined || volume.backend === null) return undefined;
    const { backend } = volume;
    return { volume, backend, host: hosts.of(backend), data: hosts.dataOf(backend) };
  };
  const neededPlace = async (volumeId: string): Promise<Place> => {
    const place = await placeOf(volumeId);
    if (place === undefined) throw new RingsteadError("no-such-volume", `the volume ${volumeId} is gone`);
    return place;
  };

  /** The snapshot that is read: the caller's, or one that is taken for this alone. */
  const readIdOf = (backup: Backup): string => backup.snapshot_id ?? backup.id;

  const freeze = async (backup: Backup): Promise<BackupTaskEvent> => {
    if (backup.snapshot_id !== null) return DONE;
    const { volume, host } = await neededPlace(backup.volume_id);
    // Before it is there: whoever deletes the volume drops it.
    await database
      .insertInto("backup_bases")
      .values({ id: backup.id, volume_id: volume.id })
      .onConflict((conflict) => conflict.column("id").doNothing())
      .execute();
    await host.createSnapshot(volume.id, backup.id);
    return DONE;
  };

  /** What the backup is an increment of. */
  const parentOf = async (
    backup: Backup,
  ): Promise<{ readonly list: PageList; readonly baseId: string } | undefined> => {
    if (backup.parent_id === null) return undefined;
    const parent = await findBackup(database, backup.parent_id);
    if (parent === undefined)
      throw new RingsteadError(
        "backup-damaged",
        `the backup ${backup.parent_id}, which this was to be an increment of, is gone`,
      );
    const list = await backupStoreOf(options, parent.store_project_id).getList(parent.id);
    return { list, baseId: parent.base_id ?? parent.id };
  };

  const copy = async (backup: Backup, task: BackupTask, { signal, keep }: StepTools): Promise<BackupTaskEvent> => {
    const { data } = await neededPlace(backup.volume_id);
    const parent = await parentOf(backup);
    const range = { volumeId: backup.volume_id, snapshotId: readIdOf(backup) };
    const base = parent === undefined ? {} : { baseId: parent.baseId };
    const source: BackupSource = {
      changes: (offset, length) => data.changes({ ...range, offset, length, ...base }),
      read: (offset, length) => data.read({ ...range, offset, length }),
    };
    const last = await database
      .selectFrom("backup_pages")
      .select("page")
      .where("backup_id", "=", backup.id)
      .orderBy("page", "desc")
      .limit(1)
      .executeTakeFirst();
    let counted = 0;
    const figures: CopyFigures = await copyVolume({
      source,
      store: backupStoreOf(options, backup.store_project_id),
      sizeBytes: backup.size_gib * GIB,
      parent: parent?.list,
      firstPage: last === undefined ? 0 : Number(last.page) + 1,
      save: async (page, name, chunks) => {
        const row = { name: name ?? null, object_count: chunks - counted + 1 };
        counted = chunks;
        await database
          .insertInto("backup_pages")
          .values({ backup_id: backup.id, page, ...row })
          .onConflict((conflict) => conflict.columns(["backup_id", "page"]).doUpdateSet(row))
          .execute();
        await keep(task);
      },
      signal,
    });
    options.onCopied(backup.id, figures);
    return DONE;
  };

  const seal = async (backup: Backup): Promise<BackupTaskEvent> => {
    const parent = await parentOf(backup);
    const rows = await database.selectFrom("backup_pages").selectAll().where("backup_id", "=", backup.id).execute();
    const own = new Map(rows.map(({ page, name }) => [Number(page), name ?? undefined]));
    const sizeBytes = backup.size_gib * GIB;
    const pages = Array.from({ length: pageCountOf(sizeBytes) }, (_, page) =>
      own.has(page) ? own.get(page) : parent?.list.pages[page],
    );
    const takenAtMs = Number(backup.data_timestamp_ms);
    await backupStoreOf(options, backup.store_project_id).putList({ backupId: backup.id, sizeBytes, takenAtMs, pages });
    const objects = rows.reduce((sum, row) => sum + Number(row.object_count), 1);
    await database.updateTable("backups").set({ object_count: objects }).where("id", "=", backup.id).execute();
    return DONE;
  };

  /** Of all snapshots that were taken for backups of the volume one stays: what changed since the last. */
  const tidy = async (backup: Backup): Promise<BackupTaskEvent> => {
    const place = await placeOf(backup.volume_id);
    if (place === undefined) return DONE;
    const { host, data, volume } = place;
    await data.release(volume.id, readIdOf(backup));
    if (backup.snapshot_id !== null) return DONE;
    for (const id of await basesOf(database, volume.id)) {
      if (id === backup.id) continue;
      await host.deleteSnapshot(volume.id, id);
      await forgetBase(database, id);
    }
    return DONE;
  };

  const dropBase = async (backup: Backup): Promise<void> => {
    if (!(await basesOf(database, backup.volume_id)).includes(backup.id)) return;
    const place = await placeOf(backup.volume_id);
    if (place !== undefined) await place.host.deleteSnapshot(backup.volume_id, backup.id);
    await forgetBase(database, backup.id);
  };

  const unlink = async (backup: Backup): Promise<BackupTaskEvent> => {
    await backupStoreOf(options, backup.store_project_id).removeList(backup.id);
    await dropBase(backup);
    return DONE;
  };

  const undo = async (backup: Backup): Promise<BackupTaskEvent> => {
    const place = backup.snapshot_id === null ? undefined : await placeOf(backup.volume_id);
    if (place !== undefined) await place.data.release(backup.volume_id, readIdOf(backup));
    await dropBase(backup);
    await backupStoreOf(options, backup.store_project_id).removeList(backup.id);
    return DONE;
  };

  /** Where the host cannot have the volume filled by itself, it is written as any other. */
  const open = async (
    backup: Backup,
    { volumeId, restorationId }: Extract<BackupTask, { kind: "restore" }>,
    data: VolumeData,
    backend: string,
  ): Promise<BackupTaskEvent> => {
    if (restorationId === undefined) return { kind: "no-room" };
    try {
      const sizeBytes = backup.size_gib * GIB;
      const place = { projectId: backup.store_project_id, backupId: backup.id, sizeBytes };
      await data.restore({ volumeId, restorationId, ...place });
      return { kind: "opened", backend };
    } catch (error) {
      if (!WRITTEN_INSTEAD.has(codeOf(error) ?? "")) throw error;
      return { kind: "no-room" };
    }
  };

  const restore = async (
    backup: Backup,
    task: Extract<BackupTask, { kind: "restore" }>,
    { signal, keep }: StepTools,
  ): Promise<BackupTaskEvent> => {
    const writer: VolumeWriter = { volumeId: task.volumeId, writerId: backup.id };
    if (task.step === "fill") {
      const { isFilled, damage } = await hosts.dataOf(task.backend).restoration(backup.id);
      if (damage !== undefined) return { kind: "refused", reason: damage };
      return isFilled ? DONE : LATER;
    }
    if (task.step === "close" || task.step === "finish") {
      const place = await placeOf(task.volumeId);
      if (place !== undefined) await place.data.end(writer);
      return DONE;
    }
    if ((await findVolume(database, task.volumeId))?.status === "creating") return LATER;
    const { volume, data, backend } = await neededPlace(task.volumeId);
    if (volume.status !== "restoring-backup")
      return {
        kind: "refused",
        reason: `the volume ${volume.id} is ${volume.status}${volume.failure === null ? "" : `: ${volume.failure}`}`,
      };
    // What was asked of it before has its own order, and a snapshot is of what the volume was then.
    if (task.step === "await") return (await isVolumeBusy(database, task.volumeId)) ? LATER : DONE;
    const store = backupStoreOf(options, backup.store_project_id);
    const list = await store.getList(backup.id);
    if (task.step === "check") {
      // Into a new volume damage costs nothing but the time until it is met.
      if (!task.isBlank) await checkBackup(store, list, signal);
      return DONE;
    }
    if (task.step === "open") return open(backup, task, data, backend);
    await data.begin(writer);
    const target = {
      write: (offset: number, bytes: Buffer) => data.write(writer, offset, bytes),
      zero: (offset: number, length: number) => data.zero(writer, offset, length),
    };
    const save = async (pages: number): Promise<void> => {
      await data.flush(writer);
      await keep({ ...task, step: "write", firstPage: pages });
    };
    await restoreVolume({ store, list, target, isBlank: task.isBlank, firstPage: task.firstPage ?? 0, save, signal });
    await data.flush(writer);
    return DONE;
  };
  const create = (backup: Backup, task: Extract<BackupTask, { kind: "create" }>, tools: StepTools) => {
    switch (task.step) {
      case "freeze":
        return freeze(backup);
      // Whether it may is found out in the transaction that lets it.
      case "enter":
        return Promise.resolve(DONE);
      case "copy":
        return copy(backup, task, tools);
      case "seal":
        return seal(backup);
      case "tidy":
        return tidy(backup);
      case "undo":
        return undo(backup);
    }
  };

  return (backup, task, tools) => {
    switch (task.kind) {
      case "create":
        return create(backup, task, tools);
      case "delete":
        return unlink(backup);
      case "restore":
        return restore(backup, task, tools);
    }
  };
};
