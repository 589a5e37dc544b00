/** Statistics of a row space (FORMAT.md): u8 format, three f64, u64 set-hash. */
export type Counters = { rows: number; objects: number; bytes: number; setHash: bigint };

const FORMAT = 1;
const LENGTH = 33;

export const encodeCounters = (counters: Counters): Buffer => {
  const value = Buffer.allocUnsafe(LENGTH);
  value[0] = FORMAT;
  value.writeDoubleBE(counters.rows, 1);
  value.writeDoubleBE(counters.objects, 9);
  value.writeDoubleBE(counters.bytes, 17);
  value.writeBigUInt64BE(counters.setHash, 25);
  return value;
};

/** Undefined for what no encoder wrote: the caller counts anew. */
export const decodeCounters = (bytes: Uint8Array): Counters | undefined => {
  const value = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (value.length !== LENGTH || value[0] !== FORMAT) return undefined;
  return {
    rows: value.readDoubleBE(1),
    objects: value.readDoubleBE(9),
    bytes: value.readDoubleBE(17),
    setHash: value.readBigUInt64BE(25),
  };
};
