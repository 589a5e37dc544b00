/**
 * An empty qcow2 image, version 3, as QEMU's docs/interop/qcow2.rst has it: header, reference counts, first table. It names no backing file:
 * which layer lies below which is in the host's records, and nothing that is read from a disk decides what a daemon opens.
 */

const CLUSTER_BYTES = 65_536;
const CLUSTER_BITS = 16;
/** Bytes that one entry of the first table stands for: a table of 8,192 clusters. */
const SECOND_TABLE_SPAN_BYTES = (CLUSTER_BYTES / 8) * CLUSTER_BYTES;
const HEADER_BYTES = 104;
const REFERENCE_ORDER = 4;

export type ImagePiece = { readonly offset: number; readonly bytes: Uint8Array };

const clustersOf = (bytes: number): number => Math.ceil(bytes / CLUSTER_BYTES);

/** Bytes that an image of that size may need at most, whatever is written into it: data, second tables, reference counts, what is fixed. */
export const imageBytesLimit = (virtualBytes: number): number => {
  const data = clustersOf(virtualBytes);
  const secondTables = Math.ceil(virtualBytes / SECOND_TABLE_SPAN_BYTES);
  const fixed = 8 + clustersOf(secondTables * 8);
  const counted = data + secondTables + fixed;
  return (counted + Math.ceil(counted / (CLUSTER_BYTES / 2)) + 1) * CLUSTER_BYTES;
};

const entriesOf = (virtualBytes: number): number => Math.max(1, Math.ceil(virtualBytes / SECOND_TABLE_SPAN_BYTES));

/** Bytes that an empty image of that size has; it grows by what is written into it. */
export const emptyImageBytes = (virtualBytes: number): number =>
  (3 + clustersOf(entriesOf(virtualBytes) * 8)) * CLUSTER_BYTES;

/** What to write into space that reads as zeros, in ascending order; the header last by the caller who wants it whole. Requires: 0 < virtualBytes ≤ 4 PiB. */
export const emptyImage = (virtualBytes: number): readonly ImagePiece[] => {
  const entries = entriesOf(virtualBytes);
  const usedClusters = emptyImageBytes(virtualBytes) / CLUSTER_BYTES;
  const header = Buffer.alloc(HEADER_BYTES);
  header.write("QFI\xfb", 0, "latin1");
  header.writeUInt32BE(3, 4);
  header.writeUInt32BE(CLUSTER_BITS, 20);
  header.writeBigUInt64BE(BigInt(virtualBytes), 24);
  header.writeUInt32BE(entries, 36);
  header.writeBigUInt64BE(BigInt(3 * CLUSTER_BYTES), 40);
  header.writeBigUInt64BE(BigInt(CLUSTER_BYTES), 48);
  header.writeUInt32BE(1, 56);
  header.writeUInt32BE(REFERENCE_ORDER, 96);
  header.writeUInt32BE(HEADER_BYTES, 100);
  const referenceTable = Buffer.alloc(8);
  referenceTable.writeBigUInt64BE(BigInt(2 * CLUSTER_BYTES));
  const references = Buffer.alloc(usedClusters * 2);
  for (let cluster = 0; cluster < usedClusters; cluster++) references.writeUInt16BE(1, cluster * 2);
  return [
    { offset: 0, bytes: header },
    { offset: CLUSTER_BYTES, bytes: referenceTable },
    { offset: 2 * CLUSTER_BYTES, bytes: references },
  ];
};
