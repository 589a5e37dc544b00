/** Statistics of a row space (FORMAT.md): u8 format, three f64, u64 set-hash, f64. */
export type Counters = {
  rows: number;
  objects: number;
  bytes: number;
  setHash: bigint;
  /** Deleted rows that are kept; infinite where a record of format 1 did not tell. */
  deletedRows: number;
};

const FORMAT = 2;
const FORMAT_1_BYTES = 33;
/** Bytes of a record. */
export const COUNTERS_BYTES = 41;

/** The counters of a space without rows. */
export const noCounters = (): Counters => ({ rows: 0, objects: 0, bytes: 0, setHash: 0n, deletedRows: 0 });

export const encodeCounters = (counters: Counters): Buffer => {
  const value = Buffer.allocUnsafe(COUNTERS_BYTES);
  value[0] = FORMAT;
  value.writeDoubleBE(counters.rows, 1);
  value.writeDoubleBE(counters.objects, 9);
  value.writeDoubleBE(counters.bytes, 17);
  value.writeBigUInt64BE(counters.setHash, 25);
  value.writeDoubleBE(counters.deletedRows, 33);
  return value;
};

/** Undefined for what no encoder wrote. */
export const decodeCounters = (bytes: Uint8Array): Counters | undefined => {
  const value = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const isOld = value.length === FORMAT_1_BYTES && value[0] === 1;
  if (!isOld && (value.length !== COUNTERS_BYTES || value[0] !== FORMAT)) return undefined;
  return {
    rows: value.readDoubleBE(1),
    objects: value.readDoubleBE(9),
    bytes: value.readDoubleBE(17),
    setHash: value.readBigUInt64BE(25),
    deletedRows: isOld ? Number.POSITIVE_INFINITY : value.readDoubleBE(33),
  };
};
