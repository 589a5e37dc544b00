import type { Extent } from "./backup/core/runs.ts";

/**
 * What a block host does for backups: the bytes of snapshots, and those that a restored volume gets. Calls may be repeated; the host keeps nothing
 * of them that outlives it but the export that a volume is written through.
 */
export type VolumeData = {
  /**
   * What of a range of a snapshot has to be looked at: with `baseId` what was written since that snapshot of the volume, where the layers say it,
   * and with a base that they do not know everything, zeros too; without one what is not known to be zeros. Errors: "no-such-volume",
   * "no-such-snapshot".
   */
  changes(asked: SnapshotRange & { readonly baseId?: string }): Promise<SnapshotChanges>;
  /** At most DATA_LIMIT_BYTES. Errors: "no-such-volume", "no-such-snapshot". */
  read(asked: SnapshotRange): Promise<Buffer>;
  /** Nothing more is read of it for now. */
  release(volumeId: string, snapshotId: string): Promise<void>;
  /**
   * Opens a volume for writing that nobody else has open, nor can open until the end. What another session of this writer wrote and did not flush is
   * not certain any more. A session ends with the host's process, and when nothing is asked of it for long. Errors: "no-such-volume",
   * "volume-in-use".
   */
  begin(writer: VolumeWriter): Promise<void>;
  /** At most DATA_LIMIT_BYTES. Errors: "writer-lost" where the session is over: what it wrote since it began may be lost. */
  write(writer: VolumeWriter, offset: number, bytes: Buffer): Promise<void>;
  /** Zeros, of any length, which take no space where the volume can do without. Errors: "writer-lost". */
  zero(writer: VolumeWriter, offset: number, length: number): Promise<void>;
  /** Resolves once everything that the session wrote is on the disk. Errors: "writer-lost". */
  flush(writer: VolumeWriter): Promise<void>;
  /** Resolves once the volume is free for others; what was not flushed may be lost. */
  end(writer: VolumeWriter): Promise<void>;
  /**
   * Has the volume read as a backup does, and beyond its end zeros, from now on; it may be used at once, and is filled in the background. A restoration
   * that was begun is not begun again. Errors: "no-such-volume", "volume-in-use" while it is exported, "volume-shrinks", "pool-full",
   * "snapshot-filling" while a snapshot of it has not all of a backup that was restored before, "backup-damaged" where nothing of it can be read,
   * "backups-unavailable" where the host has no way to read backups: the volume is as it was.
   */
  restore(restoration: Restoration): Promise<void>;
  /** How far the host is with what it reads from that backup. */
  restoration(backupId: string): Promise<RestorationProgress>;
};

export type SnapshotRange = {
  readonly volumeId: string;
  readonly snapshotId: string;
  readonly offset: number;
  readonly length: number;
};

/** A volume, and the id of the export that it is written through. */
export type VolumeWriter = { readonly volumeId: string; readonly writerId: string };

export type Restoration = {
  readonly volumeId: string;
  readonly restorationId: string;
  /** Whose container the backup is in. */
  readonly projectId: string;
  readonly backupId: string;
  /** Of the volume that was backed up. */
  readonly sizeBytes: number;
};

export type RestorationProgress = {
  /** Nothing on this host reads from the backup any more. */
  readonly isFilled: boolean;
  /** Of what is copied now, from 0 to 1. */
  readonly copiedShare: number;
  /** What of the backup cannot be read, and never will by itself: whoever reads that of a volume gets an error. */
  readonly damage: string | undefined;
};

export type SnapshotChanges = {
  /** The layers know the base, and `extents` is what changed since. */
  readonly isRecorded: boolean;
  /** How far the answer reaches. */
  readonly coveredBytes: number;
  readonly extents: readonly Extent[];
};

/** In one message. */
export const DATA_LIMIT_BYTES = 4 * 1024 * 1024;
/** In one answer. */
export const EXTENTS_LIMIT = 8192;
