import { pairsOf, writePairs } from "./pairs.ts";
import type { Backup } from "./backups.ts";
import type { BlockTransaction } from "./schema.ts";
import { findVolume, metadataOf, type Volume, writeMetadata } from "./volumes.ts";

/** What a volume that is made for a backup is called unless its maker says otherwise; Cinder's. */
export const RESTORED_NAME = "restore_backup_";

/** What a backup keeps of its volume beside the bytes. */
type VolumeNotes = {
  readonly name: string | null;
  readonly description: string | null;
  readonly metadata: Readonly<Record<string, string>>;
  readonly image_metadata: Readonly<Record<string, string>>;
};

/** As it stands in the backup's row: JSON of `VolumeNotes`. */
export const notesOf = async (transaction: BlockTransaction, { id, name, description }: Volume): Promise<string> => {
  const notes: VolumeNotes = {
    name,
    description,
    metadata: await metadataOf(transaction, id),
    image_metadata: await pairsOf(transaction, "volume_image_metadata", id),
  };
  return JSON.stringify(notes);
};

/**
 * Gives a restored volume what its backup knows, as Cinder does: the name and the description only where it has no name or one that restoring gave
 * it, metadata in the place of what it has where the backup has some.
 */
export const applyNotes = async (transaction: BlockTransaction, backup: Backup, volumeId: string): Promise<void> => {
  const volume = await findVolume(transaction, volumeId);
  if (backup.volume_notes === null || volume === undefined) return;
  // Written by `notesOf`.
  const { name, description, metadata, image_metadata: imageMetadata } = JSON.parse(backup.volume_notes) as VolumeNotes;
  const mayBeNamed = volume.name === null || volume.name === "" || volume.name.startsWith(RESTORED_NAME);
  const hasImage = Object.keys(imageMetadata).length > 0;
  const named = name !== null && name !== "" && mayBeNamed ? { name, description } : undefined;
  if (Object.keys(metadata).length > 0) await writeMetadata(transaction, volumeId, metadata, true);
  if (hasImage) await writePairs(transaction, "volume_image_metadata", volumeId, imageMetadata, true);
  if (named === undefined && !hasImage) return;
  await transaction
    .updateTable("volumes")
    .set({ ...named, ...(hasImage ? { bootable: 1 } : {}) })
    .where("id", "=", volumeId)
    .execute();
};
