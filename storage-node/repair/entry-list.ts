import { BALLOT_BYTES, type Ballot } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import type { EntryStamp } from "../core/repair.ts";
import { isRegisterKey } from "../store/key-space.ts";
import { ballotOffsetsIn, isSettledValue, isStoredOver } from "../store/register-format.ts";

/** u16 key length, u8 bits, ballot, version where it belongs to the ballot (bit 2), key (`../../common/rpc/FORMAT.md`). */
const FIXED_BYTES = 3 + BALLOT_BYTES;
const BIT_SETTLED = 1;
const BIT_STORED_OVER = 2;

const malformed = (): RingsteadError => new RingsteadError("bad-message", "malformed message: entry list");

/** Where a stored entry has what is compared: one ballot, or two that belong together. */
const stampOffsets = (key: Uint8Array, value: Uint8Array): readonly number[] => {
  if (!isRegisterKey(key)) return [0];
  const [version, ballot] = ballotOffsetsIn(value);
  return isStoredOver(value) ? [ballot, version] : [ballot];
};

const isSettled = (key: Uint8Array, value: Uint8Array): boolean => !isRegisterKey(key) || isSettledValue(value);

export const stampOf = (key: Uint8Array, value: Uint8Array): EntryStamp => {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.length);
  const offsets = stampOffsets(key, value);
  return {
    key: Buffer.from(key.buffer, key.byteOffset, key.length).toString("latin1"),
    stamp: offsets.map((at) => bytes.toString("hex", at, at + BALLOT_BYTES)).join("") as Ballot,
    isSettled: isSettled(key, value),
  };
};

/** Entries in the order of their keys, as one body. */
export const packStamps = (entries: readonly { readonly key: Uint8Array; readonly value: Uint8Array }[]): Buffer => {
  let size = 0;
  for (const { key, value } of entries)
    size += FIXED_BYTES + (stampOffsets(key, value).length - 1) * BALLOT_BYTES + key.length;
  const body = Buffer.alloc(size);
  let at = 0;
  for (const { key, value } of entries) {
    const offsets = stampOffsets(key, value);
    body.writeUInt16BE(key.length, at);
    body[at + 2] = (isSettled(key, value) ? BIT_SETTLED : 0) | (offsets.length > 1 ? BIT_STORED_OVER : 0);
    at += 3;
    for (const from of offsets) {
      body.set(value.subarray(from, from + BALLOT_BYTES), at);
      at += BALLOT_BYTES;
    }
    body.set(key, at);
    at += key.length;
  }
  return body;
};

/** Errors: "bad-message". */
export const unpackStamps = (body: Buffer): EntryStamp[] => {
  const entries: EntryStamp[] = [];
  for (let at = 0; at < body.length; ) {
    if (body.length - at < FIXED_BYTES) throw malformed();
    const keyLength = body.readUInt16BE(at);
    const bits = body[at + 2] ?? 0;
    const keyAt = at + FIXED_BYTES + ((bits & BIT_STORED_OVER) === 0 ? 0 : BALLOT_BYTES);
    const end = keyAt + keyLength;
    if (keyLength === 0 || end > body.length) throw malformed();
    entries.push({
      key: body.toString("latin1", keyAt, end),
      stamp: body.toString("hex", at + 3, keyAt) as Ballot,
      isSettled: (bits & BIT_SETTLED) !== 0,
    });
    at = end;
  }
  return entries;
};
