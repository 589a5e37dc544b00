import { BackupChunks, type BackupPart, BackupReader } from "./backup-reader.ts";
import type { BackupStore } from "./backup-store.ts";

/** A backup, and the project in whose container it is. */
type BackupPlace = { readonly projectId: string; readonly backupId: string };

/** What backups hold, in any order, for hosts that fill volumes from them. */
export type BackupContents = {
  /** In order, without gaps. Errors: "backup-damaged", "backup-key-unknown", and those of the object store, after which it may be tried again. */
  read(this: void, place: BackupPlace, offset: number, length: number): Promise<readonly BackupPart[]>;
  /** Bytes of the volume that was backed up. Errors: as of `read`. */
  size(this: void, place: BackupPlace): Promise<number>;
  /** Nothing more is read of it for now. */
  forget(this: void, backupId: string): void;
};

export const createBackupContents = (storeOf: (projectId: string) => BackupStore): BackupContents => {
  const readers = new Map<string, Promise<BackupReader>>();
  const chunks = new BackupChunks();
  const readerOf = (place: BackupPlace): Promise<BackupReader> => {
    const there = readers.get(place.backupId);
    if (there !== undefined) return there;
    const opened = BackupReader.opened(storeOf(place.projectId), place.backupId, chunks);
    readers.set(place.backupId, opened);
    // The next one looks again.
    opened.catch(() => readers.get(place.backupId) === opened && readers.delete(place.backupId));
    return opened;
  };
  return {
    read: async (place, offset, length) => (await readerOf(place)).read(offset, length),
    size: async (place) => (await readerOf(place)).sizeBytes,
    forget: (backupId) => void readers.delete(backupId),
  };
};
