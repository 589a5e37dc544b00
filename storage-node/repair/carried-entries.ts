import { RingsteadError } from "../../common/errors.ts";

/**
 * An entry on its way to another replica. `bodyLength` is that of its body; the body itself comes along where it is small, and is asked for
 * in pieces where it is not. `isBodyHere` is false too where the source could not read it.
 */
export type CarriedEntry = {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
  readonly bodyLength: number;
  readonly isBodyHere: boolean;
  readonly body: Uint8Array;
};

/** Entries of a device; `isOfVoter`: it has its votes in their partition ([E6]). */
export type CarriedEntries = { readonly entries: CarriedEntry[]; readonly isOfVoter: boolean };

/** One page of entries; `next`: where the next one begins. */
export type CarriedPage = CarriedEntries & { readonly next: Uint8Array | undefined };

/** u16 key length, u32 value length, u8 body here, u48 body length, key, value, body where it is here. */
const FIXED_BYTES = 13;
const EMPTY = Buffer.alloc(0);

const malformed = (): RingsteadError => new RingsteadError("bad-message", "malformed message: carried entries");

/** Requires: a body that is here has `bodyLength` bytes. */
export const packCarried = (entries: readonly CarriedEntry[]): Buffer => {
  let size = 0;
  for (const { key, value, body } of entries) size += FIXED_BYTES + key.length + value.length + body.length;
  const packed = Buffer.allocUnsafe(size);
  let at = 0;
  for (const { key, value, bodyLength, isBodyHere, body } of entries) {
    packed.writeUInt16BE(key.length, at);
    packed.writeUInt32BE(value.length, at + 2);
    packed[at + 6] = isBodyHere ? 1 : 0;
    packed.writeUIntBE(bodyLength, at + 7, 6);
    at += FIXED_BYTES;
    packed.set(key, at);
    packed.set(value, at + key.length);
    at += key.length + value.length;
    packed.set(body, at);
    at += body.length;
  }
  return packed;
};

/** The entries refer to the body's memory. Errors: "bad-message". */
export const unpackCarried = (packed: Buffer): CarriedEntry[] => {
  const entries: CarriedEntry[] = [];
  for (let at = 0; at < packed.length; ) {
    if (packed.length - at < FIXED_BYTES) throw malformed();
    const keyEnd = at + FIXED_BYTES + packed.readUInt16BE(at);
    const valueEnd = keyEnd + packed.readUInt32BE(at + 2);
    const isBodyHere = packed[at + 6] === 1;
    const bodyLength = packed.readUIntBE(at + 7, 6);
    const end = valueEnd + (isBodyHere ? bodyLength : 0);
    if (keyEnd === at + FIXED_BYTES || end > packed.length) throw malformed();
    entries.push({
      key: packed.subarray(at + FIXED_BYTES, keyEnd),
      value: packed.subarray(keyEnd, valueEnd),
      bodyLength,
      isBodyHere,
      body: isBodyHere ? packed.subarray(valueEnd, end) : EMPTY,
    });
    at = end;
  }
  return entries;
};
