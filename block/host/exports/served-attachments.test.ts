import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import type { PlacedLayer } from "./block-graph.ts";
import { discardsAreZeros, servedOf } from "./served-attachments.ts";

const placed = (isThin: boolean): PlacedLayer => ({
  layer: { id: "a", pool: "lvm", format: "raw", virtualBytes: 512 },
  place: {
    path: "/dev/a",
    kind: "device",
    offset: 0,
    sizeBytes: 512,
    isShared: false,
    ...(isThin ? { isThin } : {}),
  },
});

test("zeros are discarded only where every layer is thin: of another one a disk may read as it likes", () => {
  expect(discardsAreZeros([placed(true)])).toBe(true);
  expect(discardsAreZeros([placed(true), placed(true)])).toBe(true);
  expect(discardsAreZeros([placed(true), placed(false)])).toBe(false);
  expect(discardsAreZeros([placed(false)])).toBe(false);
});

test("all that come over iSCSI have one export, which says whose it is, and those over NBD one each", () => {
  const record = { role: "export", volumeId: randomUUID(), pid: 2, startTime: 3 };
  const nbd = { attachmentId: randomUUID(), isReadOnly: true };
  const iscsi = [1, 2].map(() => ({ attachmentId: randomUUID(), isReadOnly: false, isIscsi: true as const }));
  const disk = { attachmentId: "iscsi-disk", isReadOnly: false, isWriteThrough: false, isForFront: true };
  expect(servedOf({ ...record, attachments: [nbd, ...iscsi] })).toEqual([nbd, disk]);
  expect(servedOf({ ...record, attachments: [nbd] })).toEqual([nbd]);
});
