import { BALLOT_BYTES, type Ballot } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import type { EntryStamp } from "../core/repair.ts";
import { isRegisterKey } from "../store/key-space.ts";
import { ballotOffsetsIn, isSettledValue } from "../store/register-format.ts";

/** u16 key length, u8 settled, ballot, key (`../../common/rpc/FORMAT.md`). */
const FIXED_BYTES = 3 + BALLOT_BYTES;

const malformed = (): RingsteadError => new RingsteadError("bad-message", "malformed message: entry list");

/** What is compared of a stored entry. */
const stampOffset = (key: Uint8Array, value: Uint8Array): number =>
  isRegisterKey(key) ? ballotOffsetsIn(value)[1] : 0;

export const stampOf = (key: Uint8Array, value: Uint8Array): EntryStamp => {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.length);
  const at = stampOffset(key, value);
  return {
    key: Buffer.from(key.buffer, key.byteOffset, key.length).toString("latin1"),
    stamp: bytes.toString("hex", at, at + BALLOT_BYTES) as Ballot,
    isSettled: !isRegisterKey(key) || isSettledValue(value),
  };
};

/** Entries in the order of their keys, as one body. */
export const packStamps = (entries: readonly { readonly key: Uint8Array; readonly value: Uint8Array }[]): Buffer => {
  let size = 0;
  for (const { key } of entries) size += FIXED_BYTES + key.length;
  const body = Buffer.allocUnsafe(size);
  let at = 0;
  for (const { key, value } of entries) {
    const from = stampOffset(key, value);
    body.writeUInt16BE(key.length, at);
    body[at + 2] = !isRegisterKey(key) || isSettledValue(value) ? 1 : 0;
    body.fill(0, at + 3, at + FIXED_BYTES);
    body.set(value.subarray(from, from + BALLOT_BYTES), at + 3);
    body.set(key, at + FIXED_BYTES);
    at += FIXED_BYTES + key.length;
  }
  return body;
};

/** Errors: "bad-message". */
export const unpackStamps = (body: Buffer): EntryStamp[] => {
  const entries: EntryStamp[] = [];
  for (let at = 0; at < body.length; ) {
    if (body.length - at < FIXED_BYTES) throw malformed();
    const keyLength = body.readUInt16BE(at);
    const end = at + FIXED_BYTES + keyLength;
    if (keyLength === 0 || end > body.length) throw malformed();
    entries.push({
      key: body.toString("latin1", at + FIXED_BYTES, end),
      stamp: body.toString("hex", at + 3, at + FIXED_BYTES) as Ballot,
      isSettled: body[at + 2] === 1,
    });
    at = end;
  }
  return entries;
};
