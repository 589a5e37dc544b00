import type { ExportRecord } from "../store/export-records.ts";
import type { PlacedLayer } from "./block-graph.ts";
import type { ServedAttachment } from "./export-daemon.ts";

/** What a volume's daemon serves to the front of its iSCSI disk. */
export const DISK_EXPORT = "iscsi-disk";

export const hasDisk = (record: ExportRecord | undefined): boolean =>
  record?.attachments.some(({ isIscsi }) => isIscsi === true) === true;

/** The one export for all that come over iSCSI. Whether it may be written to the disk upon it says. */
export const diskOf = ({ attachments }: ExportRecord): ServedAttachment => {
  const isWriteThrough = attachments.some((one) => one.isIscsi === true && one.isWriteThrough === true);
  return { attachmentId: DISK_EXPORT, isReadOnly: false, isWriteThrough, isForFront: true };
};

/** What the volume's daemon serves: its clients over NBD, and the disk's front. */
export const servedOf = (record: ExportRecord): readonly ServedAttachment[] => {
  const overNbd = record.attachments.filter(({ isIscsi }) => isIscsi !== true);
  return hasDisk(record) ? [...overNbd, diskOf(record)] : overNbd;
};

export const sizeOf = (chain: readonly PlacedLayer[]): number => chain[0]?.layer.virtualBytes ?? 0;

/** Whether what is discarded reads as zeros, in whichever of the layers it is: other disks may say of it what they like. */
export const discardsAreZeros = (chain: readonly PlacedLayer[]): boolean =>
  chain.every(({ place }) => place.kind === "backup" || place.isThin === true);

/** The record of a daemon which serves nobody. */
export const withoutAttachments = ({ role, volumeId, pid, startTime }: ExportRecord): ExportRecord => ({
  role,
  volumeId,
  pid,
  startTime,
  attachments: [],
});
