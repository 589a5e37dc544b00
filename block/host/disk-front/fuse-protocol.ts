/**
 * What the kernel asks of the owner of a FUSE file system that is one file, and what it is answered: `linux/fuse.h`, protocol 7.31, integers
 * as of the machine (little-endian). FORMAT.md has the layouts. Pure.
 */
const PROTOCOL_MAJOR = 7;
const PROTOCOL_MINOR = 31;
const REQUEST_HEADER_BYTES = 40;
const ANSWER_HEADER_BYTES = 16;
/** Of a write's parameters: its bytes follow. */
const WRITE_PARAMETERS_BYTES = 40;
const INIT_ANSWER_BYTES = 64;
const ATTRIBUTES_BYTES = 104;
const STATFS_BYTES = 80;

/** The most that one request reads or writes; the kernel splits what is longer. */
const TRANSFER_LIMIT_BYTES = 256 * 1024;
const PAGE_BYTES = 4096;
/** Room for the longest request. The kernel refuses to hand one out to less. */
export const REQUEST_LIMIT_BYTES = TRANSFER_LIMIT_BYTES + PAGE_BYTES;
/** Requests that the kernel has under way of those that nobody waits for. */
const BACKGROUND_LIMIT = 64;

const OPERATION = {
  lookup: 1,
  forget: 2,
  getAttributes: 3,
  setAttributes: 4,
  open: 14,
  read: 15,
  write: 16,
  statfs: 17,
  release: 18,
  fsync: 20,
  flush: 25,
  init: 26,
  interrupt: 36,
  destroy: 38,
  batchForget: 42,
  fallocate: 43,
} as const;

const INIT_ASYNC_READ = 1 << 0;
const INIT_BIG_WRITES = 1 << 5;
const INIT_ASYNC_DIRECT_IO = 1 << 15;
const INIT_MAX_PAGES = 1 << 22;
const OPEN_DIRECT_IO = 1 << 0;
/** Writes of several users, or of one's threads, need not wait for one another. */
const OPEN_PARALLEL_WRITES = 1 << 6;
const SET_SIZE = 1 << 3;
const FALLOCATE_KEEP_SIZE = 1;
const FALLOCATE_PUNCH_HOLE = 2;
const FALLOCATE_ZERO_RANGE = 16;
const FILE_MODE = 0o100600;
const SECTOR_BYTES = 512;

/** Linux's error numbers. */
export const ERROR = {
  notPermitted: 1,
  noEntry: 2,
  io: 5,
  invalid: 22,
  noSpace: 28,
  readOnly: 30,
  notBuilt: 38,
  tooLarge: 75,
  notSupported: 95,
} as const;

type Ask =
  | { readonly kind: "init"; readonly major: number; readonly minor: number; readonly flags: number }
  | { readonly kind: "attributes" }
  | { readonly kind: "open" }
  | { readonly kind: "statfs" }
  | { readonly kind: "read"; readonly offset: number; readonly length: number }
  /** `bytes` are a part of the request's own buffer: whoever keeps them copies them. */
  | { readonly kind: "write"; readonly offset: number; readonly bytes: Buffer }
  /** Reads as zeros afterwards. */
  | { readonly kind: "zero"; readonly offset: number; readonly length: number }
  | { readonly kind: "flush" }
  /** Nothing to do. */
  | { readonly kind: "nod" }
  /** Nothing to do, and nothing to say. */
  | { readonly kind: "silence" }
  | { readonly kind: "refuse"; readonly errorNumber: number };

export type FuseRequest = { readonly id: bigint } & Ask;

const refuse = (errorNumber: number): Ask => ({ kind: "refuse", errorNumber });

const fallocateOf = (parameters: Buffer): Ask => {
  const mode = parameters.readUInt32LE(24);
  const isHole = mode === (FALLOCATE_KEEP_SIZE | FALLOCATE_PUNCH_HOLE);
  const isZeros = mode === FALLOCATE_ZERO_RANGE || mode === (FALLOCATE_ZERO_RANGE | FALLOCATE_KEEP_SIZE);
  if (!isHole && !isZeros) return refuse(ERROR.notSupported);
  return {
    kind: "zero",
    offset: Number(parameters.readBigUInt64LE(8)),
    length: Number(parameters.readBigUInt64LE(16)),
  };
};

const askOf = (operation: number, parameters: Buffer): Ask => {
  switch (operation) {
    case OPERATION.init:
      return {
        kind: "init",
        major: parameters.readUInt32LE(0),
        minor: parameters.readUInt32LE(4),
        flags: parameters.readUInt32LE(12),
      };
    case OPERATION.read:
      return {
        kind: "read",
        offset: Number(parameters.readBigUInt64LE(8)),
        length: parameters.readUInt32LE(16),
      };
    case OPERATION.write: {
      const length = parameters.readUInt32LE(16);
      const bytes = parameters.subarray(WRITE_PARAMETERS_BYTES, WRITE_PARAMETERS_BYTES + length);
      if (bytes.length !== length) return refuse(ERROR.invalid);
      return { kind: "write", offset: Number(parameters.readBigUInt64LE(8)), bytes };
    }
    case OPERATION.fallocate:
      return fallocateOf(parameters);
    case OPERATION.fsync:
      return { kind: "flush" };
    case OPERATION.getAttributes:
      return { kind: "attributes" };
    case OPERATION.setAttributes:
      // A volume gets longer by its host alone.
      return (parameters.readUInt32LE(0) & SET_SIZE) === 0 ? { kind: "attributes" } : refuse(ERROR.invalid);
    case OPERATION.open:
      return { kind: "open" };
    case OPERATION.statfs:
      return { kind: "statfs" };
    case OPERATION.release:
    case OPERATION.flush:
    case OPERATION.destroy:
      return { kind: "nod" };
    case OPERATION.forget:
    case OPERATION.batchForget:
    case OPERATION.interrupt:
      return { kind: "silence" };
    case OPERATION.lookup:
      return refuse(ERROR.noEntry);
    default:
      return refuse(ERROR.notBuilt);
  }
};

/** Reads one request. What is too short for what it says to be is refused. */
export const decodeRequest = (bytes: Buffer): FuseRequest => {
  const id = bytes.readBigUInt64LE(8);
  try {
    return { id, ...askOf(bytes.readUInt32LE(4), bytes.subarray(REQUEST_HEADER_BYTES)) };
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return { id, ...refuse(ERROR.invalid) };
  }
};

/** The beginning of an answer with so many bytes behind it, or with an error. */
export const answerHeader = (id: bigint, bodyBytes: number, errorNumber = 0): Buffer => {
  const header = Buffer.allocUnsafe(ANSWER_HEADER_BYTES);
  header.writeUInt32LE(ANSWER_HEADER_BYTES + bodyBytes, 0);
  header.writeInt32LE(-errorNumber, 4);
  header.writeBigUInt64LE(id, 8);
  return header;
};

export const initAnswer = (flags: number): Buffer => {
  const body = Buffer.alloc(INIT_ANSWER_BYTES);
  body.writeUInt32LE(PROTOCOL_MAJOR, 0);
  body.writeUInt32LE(PROTOCOL_MINOR, 4);
  const wanted = INIT_ASYNC_READ | INIT_BIG_WRITES | INIT_ASYNC_DIRECT_IO | INIT_MAX_PAGES;
  body.writeUInt32LE((flags & wanted) >>> 0, 12);
  body.writeUInt16LE(BACKGROUND_LIMIT, 16);
  body.writeUInt16LE(BACKGROUND_LIMIT, 18);
  body.writeUInt32LE(TRANSFER_LIMIT_BYTES, 20);
  body.writeUInt32LE(1, 24);
  body.writeUInt16LE(TRANSFER_LIMIT_BYTES / PAGE_BYTES, 28);
  return body;
};

/** Whether the kernel speaks this protocol; one that speaks a later one is answered with ours and asks again. */
export const isProtocolOf = (major: number, minor: number): boolean => major === PROTOCOL_MAJOR && minor >= 23;

/** Valid for no time: a volume grows. */
export const attributesAnswer = (sizeBytes: number): Buffer => {
  const body = Buffer.alloc(ATTRIBUTES_BYTES);
  body.writeBigUInt64LE(1n, 16);
  body.writeBigUInt64LE(BigInt(sizeBytes), 24);
  body.writeBigUInt64LE(BigInt(Math.ceil(sizeBytes / SECTOR_BYTES)), 32);
  body.writeUInt32LE(FILE_MODE, 76);
  body.writeUInt32LE(1, 80);
  body.writeUInt32LE(PAGE_BYTES, 96);
  return body;
};

export const openAnswer = (): Buffer => {
  const body = Buffer.alloc(16);
  body.writeUInt32LE(OPEN_DIRECT_IO | OPEN_PARALLEL_WRITES, 8);
  return body;
};

export const statfsAnswer = (): Buffer => Buffer.alloc(STATFS_BYTES);

export const writeAnswer = (lengthBytes: number): Buffer => {
  const body = Buffer.alloc(8);
  body.writeUInt32LE(lengthBytes, 0);
  return body;
};
