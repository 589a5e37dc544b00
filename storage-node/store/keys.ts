import { RingsteadError } from "../../common/errors.ts";
import type { Name, Space } from "../wire.ts";

/**
 * Keys of a device (FORMAT.md): hash32 (4 bytes, big-endian), kind (1 byte), path, and for rows a zero byte and the name.
 * The hash comes first, so that a partition of any power is one range.
 */
const KIND_BYTES: Readonly<Record<Space, number>> = { object: 0x6f, container: 0x63, account: 0x61 };
const SPACES: readonly Space[] = ["object", "container", "account"];
const KIND_COUNTERS = 0x43;
const KIND_LIVE_ROW = 0x72;
const KIND_DELETED_ROW = 0x74;

/** The highest timestamp that the device may have promised ([D2]). */
export const CEILING_KEY: Uint8Array = Buffer.from([0, 0, 0, 0, 0x21]);
/** That the device does not vote before it has caught up ([M4]). */
export const NEWCOMER_KEY: Uint8Array = Buffer.from([0, 0, 0, 0, 0x21, 0x6e]);
/** The lives of the devices that began together with this one. */
export const FOUNDERS_KEY: Uint8Array = Buffer.from([0, 0, 0, 0, 0x21, 0x66]);

/** The versions of the rings at which the device's partitions were of epoch 0. */
export const BASE_RINGS_KEY: Uint8Array = Buffer.from([0, 0, 0, 0, 0x21, 0x62]);

/** Before the device's state in each partition that was ever moved. */
const EPOCHS_PREFIX = Buffer.from([0, 0, 0, 0, 0x21, 0x65]);
const EPOCH_KEY_BYTES = EPOCHS_PREFIX.length + 6;

/** Before how late deletions were that the device has removed, in each partition. */
const MARKS_PREFIX = Buffer.from([0, 0, 0, 0, 0x21, 0x6d]);

/** Where a device keeps its state in a partition that was moved. */
export const epochKey = (space: Space, partitionPower: number, partition: number): Buffer =>
  placeKey(EPOCHS_PREFIX, space, partitionPower, partition);

/** Where a device keeps the marks of a partition ([E2], [E5]). */
export const markKey = (space: Space, partitionPower: number, partition: number): Buffer =>
  placeKey(MARKS_PREFIX, space, partitionPower, partition);

const placeKey = (prefix: Buffer, space: Space, partitionPower: number, partition: number): Buffer => {
  const key = Buffer.alloc(EPOCH_KEY_BYTES);
  prefix.copy(key);
  key[6] = SPACES.indexOf(space);
  key[7] = partitionPower;
  key.writeUInt32BE(partition, 8);
  return key;
};

/** The range of all of these keys. */
export const EPOCH_KEYS = { gte: EPOCHS_PREFIX, lt: Buffer.from([0, 0, 0, 0, 0x21, 0x66]) } as const;

/** The range of all keys of marks. */
export const MARK_KEYS = { gte: MARKS_PREFIX, lt: Buffer.from([0, 0, 0, 0, 0x21, 0x6e]) } as const;

/** The place of a key of one of those ranges. Errors: "epoch-damaged" for what no encoder wrote. */
export const placeOfPartitionKey = (
  key: Uint8Array,
): { readonly space: Space; readonly partition: number; readonly partitionPower: number } => {
  const bytes = Buffer.from(key.buffer, key.byteOffset, key.length);
  const space = SPACES[bytes[6] ?? SPACES.length];
  if (!(isEpochKey(key) || isMarkKey(key)) || space === undefined)
    throw new RingsteadError("epoch-damaged", "a key of a partition's members cannot be decoded");
  return { space, partitionPower: bytes[7] ?? 0, partition: bytes.readUInt32BE(8) };
};

export const isMarkKey = (key: Uint8Array): boolean =>
  key.length === EPOCH_KEY_BYTES && Buffer.compare(key.subarray(0, MARKS_PREFIX.length), MARKS_PREFIX) === 0;

export const isEpochKey = (key: Uint8Array): boolean =>
  key.length === EPOCH_KEY_BYTES && Buffer.compare(key.subarray(0, EPOCHS_PREFIX.length), EPOCHS_PREFIX) === 0;

const keyOf = (hash32: number, kind: number, text: string): Buffer => {
  const length = Buffer.byteLength(text);
  const key = Buffer.allocUnsafe(5 + length);
  key.writeUInt32BE(hash32, 0);
  key[4] = kind;
  key.write(text, 5);
  return key;
};

export const registerKey = (name: Name): Buffer => keyOf(name.hash32, KIND_BYTES[name.space], name.path);

/** The name whose register lies under `key`; undefined for keys of rows, counters and the device. */
export const nameOfRegisterKey = (key: Uint8Array): Name | undefined => {
  const bytes = Buffer.from(key.buffer, key.byteOffset, key.length);
  const space = SPACES.find((candidate) => KIND_BYTES[candidate] === bytes[4]);
  return space === undefined ? undefined : { space, hash32: bytes.readUInt32BE(0), path: bytes.toString("utf8", 5) };
};

/** A row's owner, as far as a key tells: for containers its path names the life too. */
export type RowPlace = { readonly owner: Name; readonly name: string; readonly isDeleted: boolean };

/** Bytes of an incarnation in a key, behind the container's path and a zero byte. */
const INCARNATION_DIGITS = 24;

/** The row that lies under `key`, whose owner is of `space`; undefined for any other key. */
export const rowPlaceOf = (key: Uint8Array, space: Space): RowPlace | undefined => {
  const bytes = Buffer.from(key.buffer, key.byteOffset, key.length);
  const kind = bytes[4];
  if (kind !== KIND_LIVE_ROW && kind !== KIND_DELETED_ROW) return undefined;
  let end = bytes.indexOf(0, 5);
  if (end >= 0 && space === "container") end = end + 1 + INCARNATION_DIGITS;
  if (end < 0 || bytes[end] !== 0) return undefined;
  const owner = { space, hash32: bytes.readUInt32BE(0), path: bytes.toString("utf8", 5, end) };
  return { owner, name: bytes.toString("utf8", end + 1), isDeleted: kind === KIND_DELETED_ROW };
};

/** The listing whose statistics lie under `key`, by the life of its container; undefined for any other key, those of accounts' listings among them. */
export const listingOf = (key: Uint8Array): Name | undefined => {
  const bytes = Buffer.from(key.buffer, key.byteOffset, key.length);
  if (bytes[4] !== KIND_COUNTERS || bytes[bytes.length - INCARNATION_DIGITS - 1] !== 0) return undefined;
  return { space: "container", hash32: bytes.readUInt32BE(0), path: bytes.toString("utf8", 5) };
};

/** The first key behind all rows of the hash of a row's key, which are the last of that hash; undefined for any other key. */
export const behindRowsOf = (key: Uint8Array): Buffer | undefined => {
  if (key[4] !== KIND_LIVE_ROW && key[4] !== KIND_DELETED_ROW) return undefined;
  const end = Buffer.from(key.subarray(0, 5));
  end[4] = 0xff;
  return end;
};

export const isLiveRowKey = (key: Uint8Array): boolean => key[4] === KIND_LIVE_ROW;

/** The same text for the live and the deleted row of a name. Requires: the key of one of them. */
export const nameOfRow = (key: Uint8Array): string => {
  const name = Buffer.from(key);
  name[4] = KIND_LIVE_ROW;
  return name.toString("latin1");
};

export const countersKey = (owner: Name): Buffer => keyOf(owner.hash32, KIND_COUNTERS, owner.path);

export const rowKey = (owner: Name, rowName: string, isDeleted: boolean): Buffer =>
  keyOf(owner.hash32, isDeleted ? KIND_DELETED_ROW : KIND_LIVE_ROW, `${owner.path}\0${rowName}`);

/** Where the row's name begins in a row key of `owner`. */
export const rowNameOffset = (owner: Name): number => 5 + Buffer.byteLength(owner.path) + 1;

/** The first key after all rows of `owner` whose names begin with `prefix`. */
export const rowPrefixEnd = (owner: Name, prefix: string, isDeleted: boolean): Buffer => {
  const key = rowKey(owner, prefix, isDeleted);
  let last = key.length - 1;
  while (last > 4 && key[last] === 0xff) last -= 1;
  const end = Buffer.from(key.subarray(0, last + 1));
  end[last] = (end[last] ?? 0) + 1;
  return end;
};
