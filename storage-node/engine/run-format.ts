/** Lengths of key and value, u32 each, before both. A run is scratch: it is read by the process that wrote it, or by nobody. */
export const RUN_HEAD_BYTES = 8;
/** Stands for the length of a value where the key was deleted. */
const DELETED = 0xffff_ffff;

/** Writes an entry at `offset`; a deletion has no value. Requires: room for it. */
export const writeRunEntry = (buffer: Buffer, offset: number, key: Uint8Array, value: Uint8Array | undefined): void => {
  buffer.writeUInt32LE(key.length, offset);
  buffer.writeUInt32LE(value?.length ?? DELETED, offset + 4);
  buffer.set(key, offset + RUN_HEAD_BYTES);
  if (value !== undefined) buffer.set(value, offset + RUN_HEAD_BYTES + key.length);
};

const keySizeAt = (buffer: Buffer, offset: number): number => buffer.readUInt32LE(offset);

const valueSizeAt = (buffer: Buffer, offset: number): number => {
  const size = buffer.readUInt32LE(offset + 4);
  return size === DELETED ? 0 : size;
};

export const isDeletionAt = (buffer: Buffer, offset: number): boolean => buffer.readUInt32LE(offset + 4) === DELETED;

/** Of the whole entry. */
export const sizeAt = (buffer: Buffer, offset: number): number =>
  RUN_HEAD_BYTES + keySizeAt(buffer, offset) + valueSizeAt(buffer, offset);

export const keyAt = (buffer: Buffer, offset: number): Buffer =>
  buffer.subarray(offset + RUN_HEAD_BYTES, offset + RUN_HEAD_BYTES + keySizeAt(buffer, offset));

export const valueAt = (buffer: Buffer, offset: number): Buffer => {
  const start = offset + RUN_HEAD_BYTES + keySizeAt(buffer, offset);
  return buffer.subarray(start, start + valueSizeAt(buffer, offset));
};

/** The first 32 bits of an entry's key, in whose order keys are; a shorter key goes on with zeros. */
export const keyPrefixAt = (buffer: Buffer, offset: number): number => {
  const start = offset + RUN_HEAD_BYTES;
  const size = keySizeAt(buffer, offset);
  if (size >= 4) return buffer.readUInt32BE(start);
  let prefix = 0;
  for (let at = 0; at < 4; at++) prefix = prefix * 256 + (at < size ? (buffer[start + at] ?? 0) : 0);
  return prefix;
};

/** Order of the keys of two entries, as `Buffer.compare`. */
export const compareKeys = (left: Buffer, leftOffset: number, right: Buffer, rightOffset: number): number => {
  const leftKey = leftOffset + RUN_HEAD_BYTES;
  const rightKey = rightOffset + RUN_HEAD_BYTES;
  const leftEnd = leftKey + keySizeAt(left, leftOffset);
  return left.compare(right, rightKey, rightKey + keySizeAt(right, rightOffset), leftKey, leftEnd);
};
