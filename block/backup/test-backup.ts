import { randomUUID } from "node:crypto";
import { BackupStore } from "./backup-store.ts";
import { copyVolume } from "./copy.ts";
import { pageCountOf } from "./core/page.ts";
import { createFakeObjectStore } from "./fake-object-store.ts";
import { projectKeys } from "./keys.ts";

export const BACKUP_PROJECT = "11111111111111111111111111111111";

/** A backup of what is in `content` from its start, and zeros behind it, in an object store of its own; for tests. */
export const testBackup = async (content: Buffer, sizeBytes: number) => {
  const objects = createFakeObjectStore();
  const keys = projectKeys(Buffer.alloc(32, 1), BACKUP_PROJECT);
  const storing = { objects, projectId: BACKUP_PROJECT, keys, compression: "none", isEncrypted: false } as const;
  const store = new BackupStore(storing);
  const named = new Map<number, string | undefined>();
  await copyVolume({
    source: {
      read: async (offset, length) => {
        const bytes = Buffer.alloc(length);
        content.copy(bytes, 0, offset, Math.min(content.length, offset + length));
        return bytes;
      },
      changes: async (offset, length) => {
        const within = Math.min(length, content.length - offset);
        const extents = within <= 0 ? [] : [{ offset, length: within, isZero: false }];
        return { isRecorded: false, coveredBytes: length, extents };
      },
    },
    store,
    sizeBytes,
    parent: undefined,
    firstPage: 0,
    save: async (page, name) => void named.set(page, name),
    signal: new AbortController().signal,
  });
  const pages = Array.from({ length: pageCountOf(sizeBytes) }, (_, page) => named.get(page));
  const backupId = randomUUID();
  await store.putList({ backupId, sizeBytes, takenAtMs: 0, pages });
  return { objects, store, backupId };
};
