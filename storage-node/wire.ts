import { decode, encode } from "msgpackr";
import {
  BALLOT_BYTES,
  type Ballot,
  type Incarnation,
  isBallot,
  isIncarnation,
  isStoredBallot,
  isTimestamp,
  versionStoredOver,
} from "../common/ballot.ts";
import { RingsteadError } from "../common/errors.ts";
import type { HybridTimestamp } from "../common/hybrid-clock.ts";

/** The messages of a storage node; headers are arrays in the order written here (FORMAT.md). */
export const METHOD_ACCEPT = 1;
export const METHOD_PREPARE = 2;
export const METHOD_READ = 3;
export const METHOD_CONFIRM = 4;
export const METHOD_ROW = 5;
export const METHOD_LIST = 6;
export const METHOD_READ_BODY = 7;
export const METHOD_STAGE_OPEN = 8;
export const METHOD_STAGE_WRITE = 9;
export const METHOD_STAGE_SEAL = 10;
export const METHOD_STAGE_ABANDON = 11;
export const METHOD_UNSETTLED = 12;
/** Between storage nodes: what replicas compare and pull (`repair/`). */
export const METHOD_DIGESTS = 13;
export const METHOD_BUCKETS = 14;
export const METHOD_ENTRIES = 15;
export const METHOD_FETCH = 16;
/** What an operator asks of a device (`daemons/scrubber-operations.ts`). */
export const METHOD_SCRUB = 17;
export const METHOD_EXPLAIN = 18;
/** How partitions change their members (PROTOCOL section 8). */
export const METHOD_EPOCH = 19;
export const METHOD_CONFIGURE = 20;
export const METHOD_SEAL = 21;
export const METHOD_EPOCHS = 22;
export const METHOD_RELEASE = 23;

/** Between storage nodes: whether old deletions may go (PROTOCOL section 7). */
export const METHOD_RECLAIM = 24;

/** How the rows of a container go to others when its listing is split or merged (`proxy/core/shard-change.ts`). */
export const METHOD_ROWS = 25;
export const METHOD_ROW_NAME = 26;
export const METHOD_DROP_ROWS = 27;
export const METHOD_COUNTS = 28;

/** What hand-offs keep for absent members under policy `available`, and how it goes to them (`proxy/core/hand-off-keep.ts`). */
export const METHOD_KEEP = 29;
export const METHOD_KEEP_ROW = 30;
export const METHOD_KEPT = 31;
export const METHOD_KEPT_ROWS = 32;
export const METHOD_TAKE = 33;

/** Which register a name belongs to. */
export type Space = "object" | "container" | "account";

/** One partition of one ring. */
export type PartitionPlace = { readonly space: Space; readonly partition: number; readonly partitionPower: number };

/** A name, with the top 32 bits of its placement hash, under which its keys lie. */
export type Name = { readonly space: Space; readonly hash32: number; readonly path: string };

/** A member of a partition: its device as `node/device`, and the epoch since which it is one without a break. */
export type Member = { readonly id: string; readonly since: number };

/**
 * Who keeps a partition (PROTOCOL section 8). An even epoch is stable: `old` are the members. In an odd one they are on the way from `old` to `next`,
 * and a write needs both. What is at or below `floor` was accepted by members of an earlier epoch, and counts only where confirmed ([M5]).
 */
export type Configuration = {
  readonly epoch: number;
  readonly old: readonly Member[];
  readonly next: readonly Member[] | undefined;
  readonly floor: HybridTimestamp;
};

/** What a device knows of a partition that was ever moved. */
export type MovedPartition = {
  readonly partition: number;
  readonly configuration: Configuration;
  /** Whether it has everything that a member has; true of who is none. */
  readonly hasCaughtUp: boolean;
  readonly isSealed: boolean;
  /** What it holds of the partition, be it a member or not. */
  readonly entries: number;
};

/** One page of what a device knows of partitions that were ever moved. */
export type EpochsPage = {
  readonly moved: readonly MovedPartition[];
  /** Where the next page begins. */
  readonly next: number | undefined;
  /** Another one after each change. */
  readonly stamp: string;
  /** Of the ring that says who kept the partitions of this space at the beginning (`ring/base-ring.ts`); an older Ringstead does not tell. */
  readonly baseIdentity: string | undefined;
  /** Whether the device votes wherever it keeps something: others believe what it began with then. */
  readonly isVoting: boolean;
};

/** Most partitions of one answer to EPOCHS. */
export const EPOCHS_LIMIT = 1000;

/** No client's path is without a slash. */
export const CONFIGURATION_PATH = "epoch";

/** The name under which the replicas of a partition keep its newest configuration, in the partition itself. `hash32`: the first of the partition. */
export const configurationName = (space: Space, hash32: number): Name => ({ space, hash32, path: CONFIGURATION_PATH });

/** What a replica knows of a version's outcome. */
export type VersionState = "accepted" | "confirmed" | "void";
/** What became of a version at one replica, as far as it can tell ([A1], [A3]). */
export type Fate = "never" | VersionState | "unknown";

/** A register as it travels. */
export type Register = {
  readonly version: Ballot;
  readonly ballot: Ballot;
  readonly state: VersionState;
  readonly bodyVersion: Ballot;
  readonly isTombstone: boolean;
  readonly bodyLength: number;
  readonly metadata: Uint8Array;
};

/** A proposed record; `staged` names the file that each device gave when the body was sealed there. */
export type Proposal = {
  readonly bodyVersion: Ballot;
  readonly isTombstone: boolean;
  readonly bodyLength: number;
  readonly metadata: Uint8Array;
  readonly body: "none" | "inline" | "staged" | "keep";
};

/** Rows that were packed together: equal bytes are equal rows. */
export type PackedRun = { readonly bytes: Buffer; count: number };

/** One row of a container's or an account's listing. `objects` and `bytes` are what it adds to the statistics. */
export type Row = {
  readonly name: string;
  readonly version: Ballot;
  readonly isDeleted: boolean;
  readonly objects: number;
  readonly bytes: number;
  readonly payload: Uint8Array;
  /** The milliseconds in `version`, where a reader has them at hand. */
  readonly changedMs?: number;
  /** The run that it was packed in. */
  readonly run?: PackedRun | undefined;
};

/** What a replica of a row space says of the whole: equal hashes mean equal live rows. */
export type RowSummary = {
  readonly rows: number;
  readonly objects: number;
  readonly bytes: number;
  readonly setHash: string;
};

export type AcceptReply =
  /** `isFilling`: the device has no further space; what it still takes fits what it has begun. */
  | { readonly kind: "accepted"; readonly liveRow: Row | undefined; readonly isFilling?: boolean }
  | {
      readonly kind: "refused";
      readonly seen: Ballot;
      readonly floor: HybridTimestamp;
      readonly fates: readonly Fate[];
    }
  | { readonly kind: "nodata" };

export type PrepareReply =
  | {
      readonly kind: "promised";
      readonly register: Register | undefined;
      readonly fates: readonly Fate[];
      readonly liveRow: Row | undefined;
    }
  | {
      readonly kind: "refused";
      readonly seen: Ballot;
      readonly floor: HybridTimestamp;
      readonly fates: readonly Fate[];
    };

export type ReadReply = { readonly register: Register | undefined; readonly body: Buffer | undefined };

/** `split`: names of this listing are to be found in others by now, or in a moment (`RowsState`). */
export type RowReply = { readonly kind: "stored" | "closing" | "moved" | "behind" | "old" | "split" };

export type ListQuery = {
  /** Names after this one (before it, in reverse); "" from the start. */
  readonly marker: string;
  /** Names before this one (after it, in reverse); "" to the end. */
  readonly endMarker: string;
  readonly prefix: string;
  readonly isReverse: boolean;
  /** 0 asks for the summary alone. */
  readonly limit: number;
  /** Deleted rows too: needed when replicas differ and have to be merged. */
  readonly withDeleted: boolean;
  /** Only from a replica whose rows are leaving: it takes none any more that go nowhere else. */
  readonly isCopy?: boolean;
};

export type ListReply =
  | {
      readonly kind: "rows";
      readonly summary: RowSummary;
      readonly rows: readonly Row[];
      /** Of a copy: how late deletions were that the replica has forgotten ([E5]). Who is given the rows must know as much. */
      readonly mark?: HybridTimestamp;
    }
  | { readonly kind: "closing" | "moved" | "behind" | "split" };

/** A listing and how many live rows a device counts in it. */
export type CountedRows = { readonly owner: Name; readonly incarnation: Incarnation; readonly rows: number };

/** [B7]: registers that nobody finished, of one page. `next`: where the next page of the device begins; undefined at its end. */
export type UnsettledReply = {
  readonly registers: readonly { readonly name: Name; readonly register: Register }[];
  readonly next: Uint8Array | undefined;
};

/** Most registers of one UNSETTLED answer. */
export const UNSETTLED_LIMIT = 256;
/** Most listings of one COUNTS answer. */
export const COUNTS_LIMIT = 1000;
/** Most rows of one ROWS message, and of those that one ROW_NAME passes over. */
export const ROWS_LIMIT = 1000;
export const ROW_SKIP_LIMIT = 5000;
/** Most rows of one LIST answer. */
export const LIST_LIMIT = 10_000;
/** Longest path of a name: account, container and object with their slashes, in UTF-8 bytes. */
const PATH_LIMIT_BYTES = 2048;
/**
 * Bodies up to this many bytes go with the ACCEPT into the log; larger ones are staged in files of their own. PUTs of 1 MiB on a busy
 * machine: 28/s with 39 ms of CPU each in files (created, synced, the folder synced), 41/s with 28 ms in the log.
 */
export const INLINE_BODY_LIMIT_BYTES = 1024 * 1024;
/** Bodies up to this many bytes come with the answer to a READ; larger ones are asked for when there is room for them. */
export const READ_BODY_LIMIT_BYTES = 64 * 1024;
/** Bytes of one STAGE_WRITE or READ_BODY. */
export const TRANSFER_BLOCK_BYTES = 1024 * 1024;

const SPACES: readonly Space[] = ["object", "container", "account"];
const STATES: readonly VersionState[] = ["accepted", "confirmed", "void"];
const FATES: readonly Fate[] = ["never", "accepted", "confirmed", "void", "unknown"];

const bad = (what: string): RingsteadError => new RingsteadError("bad-message", `malformed message: ${what}`);

/** Takes a header apart field by field; everything from the wire passes here before anything trusts it. */
export class HeaderReader {
  readonly #fields: readonly unknown[];
  #at = 0;
  constructor(fields: readonly unknown[]) {
    this.#fields = fields;
  }
  any(): unknown {
    return this.#fields[this.#at++];
  }
  text(limitBytes = PATH_LIMIT_BYTES): string {
    const value = this.any();
    if (typeof value !== "string" || value.length > limitBytes) throw bad("text");
    return value;
  }
  count(): number {
    const value = this.any();
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) throw bad("number");
    return value;
  }
  integer(): number {
    const value = this.any();
    if (typeof value !== "number" || !Number.isSafeInteger(value)) throw bad("number");
    return value;
  }
  flag(): boolean {
    return this.any() === 1;
  }
  bytes(): Uint8Array {
    const value = this.any();
    if (!(value instanceof Uint8Array)) throw bad("bytes");
    return value;
  }
  ballot(): Ballot {
    const value = this.any();
    if (!isBallot(value)) throw bad("ballot");
    return value;
  }
  /** One that something may be stored under; where it names a version, of that one alone. */
  storedBallot(version?: Ballot): Ballot {
    const value = this.any();
    if (!isStoredBallot(value)) throw bad("ballot");
    if (version !== undefined && (versionStoredOver(value) ?? version) !== version)
      throw bad("ballot of another version");
    return value;
  }
  /** The same, null standing for the version itself. */
  storedBallotOr(version: Ballot): Ballot {
    return this.isNull() ? version : this.storedBallot(version);
  }
  /** A row by itself; of many see `unpackRows`. */
  row(): Row {
    return {
      name: this.text(),
      version: this.ballot(),
      isDeleted: this.flag(),
      objects: this.integer(),
      bytes: this.integer(),
      payload: this.bytes(),
    };
  }
  /** The epoch that a message is of: its last field, left out where it is 0, as in all partitions that were never moved. */
  epoch(): number {
    return this.#at < this.#fields.length ? this.count() : 0;
  }
  /** Null stands for `same`: most messages name one ballot several times. */
  ballotOr(same: Ballot): Ballot {
    const value = this.any();
    if (value === null) return same;
    if (!isBallot(value)) throw bad("ballot");
    return value;
  }
  /** Whether the next field is null; it is passed over then. */
  isNull(): boolean {
    if (this.#fields[this.#at] !== null) return false;
    this.#at += 1;
    return true;
  }
  /** One text or a list of texts. */
  texts(limit: number): readonly string[] {
    const value = this.any();
    if (typeof value === "string") return [value];
    const isList = Array.isArray(value) && value.length <= limit;
    if (!isList || !value.every((item) => typeof item === "string")) throw bad("texts");
    return value;
  }
  counts(limit: number): readonly number[] {
    const value = this.any();
    const isList = Array.isArray(value) && value.length <= limit;
    if (!isList || !value.every((item) => Number.isSafeInteger(item) && item >= 0)) throw bad("numbers");
    return value;
  }
  incarnation(): Incarnation {
    const value = this.any();
    if (!isIncarnation(value)) throw bad("incarnation");
    return value;
  }
  timestamp(): HybridTimestamp {
    const value = this.any();
    if (!isTimestamp(value)) throw bad("timestamp");
    return value;
  }
  oneOf<T>(table: readonly T[]): T {
    const value = table[this.count()];
    if (value === undefined) throw bad("code");
    return value;
  }
  list(limit: number): HeaderReader[] {
    const value = this.any();
    if (!Array.isArray(value) || value.length > limit) throw bad("list");
    return value.map((item) => new HeaderReader(Array.isArray(item) ? item : [item]));
  }
  /** The same where older versions end before; nothing then. */
  listOrNone(limit: number): HeaderReader[] {
    return this.#at < this.#fields.length ? this.list(limit) : [];
  }
  nested(): HeaderReader | undefined {
    const value = this.any();
    return Array.isArray(value) ? new HeaderReader(value) : undefined;
  }
  /** Which ring. */
  space(): Space {
    return this.oneOf(SPACES);
  }
  name(): Name {
    const space = this.oneOf(SPACES);
    const hash32 = this.count();
    if (hash32 > 0xffffffff) throw bad("hash");
    return { space, hash32, path: this.text() };
  }
}

export const spaceCode = (space: Space): number => SPACES.indexOf(space);

/** A register as header fields, and back. */
export const packRegister = (register: Register | undefined): readonly unknown[] | null =>
  register === undefined
    ? null
    : [
        register.version,
        register.ballot,
        STATES.indexOf(register.state),
        register.bodyVersion,
        register.isTombstone ? 1 : 0,
        register.bodyLength,
        register.metadata,
      ];

export const unpackRegister = (reader: HeaderReader | undefined): Register | undefined => {
  if (reader === undefined) return undefined;
  const version = reader.ballot();
  return {
    version,
    ballot: reader.storedBallot(version),
    state: reader.oneOf(STATES),
    bodyVersion: reader.ballot(),
    isTombstone: reader.flag(),
    bodyLength: reader.count(),
    metadata: reader.bytes(),
  };
};

export const packFates = (fates: readonly Fate[]): number[] => fates.map((fate) => FATES.indexOf(fate));

export const unpackFates = (reader: HeaderReader): Fate[] => reader.list(64).map((item) => item.oneOf(FATES));

export const packRow = (row: Row | undefined): readonly unknown[] | null =>
  row === undefined ? null : [row.name, row.version, row.isDeleted ? 1 : 0, row.objects, row.bytes, row.payload];

export const unpackRow = (reader: HeaderReader | undefined): Row | undefined =>
  reader === undefined
    ? undefined
    : {
        name: reader.text(),
        version: reader.ballot(),
        isDeleted: reader.flag(),
        objects: reader.integer(),
        bytes: reader.integer(),
        payload: reader.bytes(),
      };

/** A row's value as it is stored and listed: version (24 bytes), objects and bytes (f64 each), payload. */
const ROW_FIXED_BYTES = BALLOT_BYTES + 16;
/** Where in a ballot's bytes the milliseconds of its timestamp stand, behind the incarnation. */
const TIMESTAMP_OFFSET = 12;

export const encodeRowValue = (row: Row): Buffer => {
  const value = Buffer.allocUnsafe(ROW_FIXED_BYTES + row.payload.length);
  value.write(row.version, 0, "hex");
  value.writeDoubleBE(row.objects, BALLOT_BYTES);
  value.writeDoubleBE(row.bytes, BALLOT_BYTES + 8);
  value.set(row.payload, ROW_FIXED_BYTES);
  return value;
};

export const decodeRowValue = (name: string, isDeleted: boolean, bytes: Uint8Array): Row => {
  const value = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (value.length < ROW_FIXED_BYTES) throw new RingsteadError("row-damaged", "a row is too short", { name });
  return {
    name,
    version: value.toString("hex", 0, BALLOT_BYTES) as Ballot,
    isDeleted,
    objects: value.readDoubleBE(BALLOT_BYTES),
    bytes: value.readDoubleBE(BALLOT_BYTES + 8),
    payload: value.subarray(ROW_FIXED_BYTES),
  };
};

/** What a packed row has beside name and value. */
export const PACKED_ROW_OVERHEAD_BYTES = 5;

/** Rows as one body: for each u16 name length, u16 value length, u8 deleted, name, value. */
export const packRows = (rows: readonly { name: Uint8Array; value: Uint8Array; isDeleted: boolean }[]): Buffer => {
  let total = 0;
  for (const row of rows) total += PACKED_ROW_OVERHEAD_BYTES + row.name.length + row.value.length;
  const body = Buffer.allocUnsafe(total);
  let at = 0;
  for (const row of rows) {
    at = body.writeUInt16BE(row.name.length, at);
    at = body.writeUInt16BE(row.value.length, at);
    at = body.writeUInt8(row.isDeleted ? 1 : 0, at);
    body.set(row.name, at);
    at += row.name.length;
    body.set(row.value, at);
    at += row.value.length;
  }
  return body;
};

/** A row of a packed page: most readers of ten thousand rows want two of its fields. */
class PackedRow implements Row {
  readonly #page: Buffer;
  readonly #nameAt: number;
  readonly #valueAt: number;
  readonly #end: number;
  readonly isDeleted: boolean;
  readonly run: PackedRun;
  #name: string | undefined;

  constructor(page: Buffer, nameAt: number, valueAt: number, end: number, isDeleted: boolean, run: PackedRun) {
    this.run = run;
    this.#page = page;
    this.#nameAt = nameAt;
    this.#valueAt = valueAt;
    this.#end = end;
    this.isDeleted = isDeleted;
  }
  get name(): string {
    this.#name ??= this.#page.toString("utf8", this.#nameAt, this.#valueAt);
    return this.#name;
  }
  get version(): Ballot {
    return this.#page.toString("hex", this.#valueAt, this.#valueAt + BALLOT_BYTES) as Ballot;
  }
  get changedMs(): number {
    return this.#page.readUIntBE(this.#valueAt + TIMESTAMP_OFFSET, 6);
  }
  get objects(): number {
    return this.#page.readDoubleBE(this.#valueAt + BALLOT_BYTES);
  }
  get bytes(): number {
    return this.#page.readDoubleBE(this.#valueAt + BALLOT_BYTES + 8);
  }
  get payload(): Uint8Array {
    return this.#page.subarray(this.#valueAt + ROW_FIXED_BYTES, this.#end);
  }
}

/** Takes runs of packed rows apart, `lengths` their lengths in bytes; the rows refer to the body's memory. */
export const unpackRows = (body: Buffer, lengths: readonly number[] = [body.length]): Row[] => {
  const rows: PackedRow[] = [];
  let start = 0;
  for (const length of lengths) {
    const end = start + length;
    if (end > body.length) throw bad("rows");
    const run: PackedRun = { bytes: body.subarray(start, end), count: 0 };
    let at = start;
    while (at < end) {
      if (end - at < PACKED_ROW_OVERHEAD_BYTES) throw bad("rows");
      const valueLength = body.readUInt16BE(at + 2);
      const valueAt = at + PACKED_ROW_OVERHEAD_BYTES + body.readUInt16BE(at);
      if (valueAt + valueLength > end || valueLength < ROW_FIXED_BYTES) throw bad("rows");
      const nameAt = at + PACKED_ROW_OVERHEAD_BYTES;
      at = valueAt + valueLength;
      rows.push(new PackedRow(body, nameAt, valueAt, at, body[nameAt - 1] === 1, run));
      run.count += 1;
    }
    start = end;
  }
  if (start !== body.length) throw bad("rows");
  return rows;
};

/**
 * What a listing's replicas do with rows (`proxy/core/shard-change.ts`): `here` they take and list them; `filling`: they also take copies from those that it is
 * to follow; `leaving`: a row is taken only where it is in one of those that follow already; `gone`: none are, and nothing is listed; `dropped`: and nothing is left.
 */
export type RowsState = "here" | "filling" | "leaving" | "gone" | "dropped";

/** Names up to and with `upTo`, "" for all that are left, stand in the shard `id`; "" is the container's own register. */
export type ShardRange = { readonly upTo: string; readonly id: string };

/** What is under way: the listings `from` are followed by those of `to`. */
export type ShardChange = { readonly from: readonly string[]; readonly to: readonly ShardRange[] };

/** Where the rows of a container are. A shard's own record has neither index nor change. */
export type Shards = {
  readonly rows: RowsState;
  /** In the order of names; undefined while the container's own register has them all. */
  readonly index: readonly ShardRange[] | undefined;
  readonly change: ShardChange | undefined;
};

/** The part of a container's record that its replicas look at ([B1]); the rest is the proxy's. */
export type ContainerRecord = {
  readonly status: "open" | "closing";
  readonly incarnation: Incarnation;
  readonly headers: Readonly<Record<string, string>>;
  /** Left out by a container whose listing was never split. */
  readonly shards?: Shards;
};

const ROWS_STATES: readonly RowsState[] = ["here", "filling", "leaving", "gone", "dropped"];
/** The codes from 2 on are those of records with shards: who does not know of them must not take such a container for an open one. */
const RECORD_CODES = [
  { status: "open", hasShards: false },
  { status: "closing", hasShards: false },
  { status: "open", hasShards: true },
  { status: "closing", hasShards: true },
] as const;

/** Most shards of a container; a listing of that many is not split any further. */
export const SHARDS_LIMIT = 4096;

const packRanges = (ranges: readonly ShardRange[]): unknown[] => ranges.map(({ id, upTo }) => [upTo, id]);

/** Errors (thrown): "bad-message" also where there is none. */
const unpackRanges = (reader: HeaderReader): ShardRange[] => {
  const ranges = reader.list(SHARDS_LIMIT).map((item) => ({ upTo: item.text(), id: item.text() }));
  if (ranges.length === 0) throw bad("container record");
  return ranges;
};

export const encodeContainerRecord = ({ headers, incarnation, shards, status }: ContainerRecord): Uint8Array => {
  const code = RECORD_CODES.findIndex((one) => one.status === status && one.hasShards === (shards !== undefined));
  if (shards === undefined) return encode([code, incarnation, headers]);
  const { change, index, rows } = shards;
  return encode([
    code,
    incarnation,
    headers,
    ROWS_STATES.indexOf(rows),
    index === undefined ? null : packRanges(index),
    change === undefined ? null : [change.from, packRanges(change.to)],
  ]);
};

/** The fields of an encoded list. Errors: "bad-message" for any other bytes; msgpack's own errors are of many kinds. */
export const readerOf = (bytes: Uint8Array, what: string): HeaderReader => {
  let fields: unknown;
  try {
    fields = decode(bytes);
  } catch {
    throw bad(what);
  }
  if (!Array.isArray(fields)) throw bad(what);
  return new HeaderReader(fields);
};

export const decodeContainerRecord = (bytes: Uint8Array): ContainerRecord => {
  const reader = readerOf(bytes, "container record");
  const { hasShards, status } = reader.oneOf(RECORD_CODES);
  const incarnation = reader.incarnation();
  const headers = headersOf(reader.any());
  return hasShards ? { status, incarnation, headers, shards: unpackShards(reader) } : { status, incarnation, headers };
};

const unpackShards = (reader: HeaderReader): Shards => {
  const rows = reader.oneOf(ROWS_STATES);
  const index = reader.isNull() ? undefined : unpackRanges(reader);
  if (reader.isNull()) return { rows, index, change: undefined };
  const change = reader.nested();
  if (change === undefined) throw bad("container record");
  const from = change.texts(SHARDS_LIMIT);
  if (from.length === 0) throw bad("container record");
  return { rows, index, change: { from, to: unpackRanges(change) } };
};

/** A plain record of texts from what msgpack gave; anything else in it is dropped. */
export const headersOf = (value: unknown): Record<string, string> => {
  const headers: Record<string, string> = Object.create(null);
  if (typeof value !== "object" || value === null) return headers;
  for (const [key, text] of Object.entries(value)) if (typeof text === "string") headers[key] = text;
  return headers;
};

const packMembers = (members: readonly Member[]): unknown[] => members.map(({ id, since }) => [id, since]);

/** Most members of a partition. */
const MEMBERS_LIMIT = 255;

const unpackMembers = (reader: HeaderReader): Member[] =>
  reader.list(MEMBERS_LIMIT).map((item) => ({ id: item.text(), since: item.count() }));

/** A configuration as header fields, and back. */
export const packConfiguration = ({ epoch, floor, next, old }: Configuration): readonly unknown[] => [
  epoch,
  floor,
  packMembers(old),
  next === undefined ? null : packMembers(next),
];

export const unpackConfiguration = (reader: HeaderReader): Configuration => ({
  epoch: reader.count(),
  floor: reader.timestamp(),
  old: unpackMembers(reader),
  next: reader.isNull() ? undefined : unpackMembers(reader),
});

/** A moved partition as header fields, and back. */
export const packMoved = (moved: MovedPartition): readonly unknown[] => [
  moved.partition,
  moved.hasCaughtUp ? 1 : 0,
  moved.isSealed ? 1 : 0,
  moved.entries,
  ...packConfiguration(moved.configuration),
];

export const unpackMoved = (reader: HeaderReader): MovedPartition => ({
  partition: reader.count(),
  hasCaughtUp: reader.flag(),
  isSealed: reader.flag(),
  entries: reader.count(),
  configuration: unpackConfiguration(reader),
});

/** The metadata of the register under `configurationName`. */
export const encodeConfiguration = (configuration: Configuration): Uint8Array =>
  encode(packConfiguration(configuration));

export const decodeConfiguration = (bytes: Uint8Array): Configuration =>
  unpackConfiguration(readerOf(bytes, "configuration"));
