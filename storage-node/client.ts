import type { Ballot, Incarnation } from "../common/ballot.ts";
import type { TakeAnswer } from "./core/hand-off.ts";
import { type ClusterConfig, rpcAddress } from "../common/config.ts";
import { type DeviceGroups, storageNodeName } from "../common/device-groups.ts";
import { RingsteadError } from "../common/errors.ts";
import type { HybridTimestamp } from "../common/hybrid-clock.ts";
import { RpcClient } from "../common/rpc/client.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import type { RingDevice } from "../ring/device.ts";
import {
  type AcceptReply,
  type Configuration,
  type CountedRows,
  COUNTS_LIMIT,
  EPOCHS_LIMIT,
  type EpochsPage,
  HeaderReader,
  LIST_LIMIT,
  type ListQuery,
  type ListReply,
  METHOD_ACCEPT,
  METHOD_CONFIGURE,
  METHOD_CONFIRM,
  METHOD_COUNTS,
  METHOD_DROP_ROWS,
  METHOD_EPOCH,
  METHOD_EPOCHS,
  METHOD_KEEP,
  METHOD_KEEP_ROW,
  METHOD_KEPT,
  METHOD_KEPT_ROWS,
  METHOD_LIST,
  METHOD_PREPARE,
  METHOD_READ,
  METHOD_READ_BODY,
  METHOD_RELEASE,
  METHOD_ROW,
  METHOD_ROW_NAME,
  METHOD_ROWS,
  METHOD_SEAL,
  METHOD_STAGE_ABANDON,
  METHOD_STAGE_OPEN,
  METHOD_STAGE_SEAL,
  METHOD_STAGE_WRITE,
  METHOD_TAKE,
  METHOD_UNSETTLED,
  type Name,
  packConfiguration,
  type PartitionPlace,
  type PrepareReply,
  type Proposal,
  type ReadReply,
  packRegister,
  type Register,
  type Row,
  type RowReply,
  type Space,
  spaceCode,
  unpackConfiguration,
  unpackFates,
  unpackMoved,
  unpackRegister,
  unpackRow,
  unpackRows,
  UNSETTLED_LIMIT,
  type UnsettledReply,
} from "./wire.ts";

/** Called once with an error or an answer. */
export type Answer<T> = (error: RingsteadError | undefined, value: T | undefined) => void;
/** Called once for each device, `part` being its place among them. */
export type PartAnswer<T> = (error: RingsteadError | undefined, value: T | undefined, part: number) => void;

export type Confirm = { readonly name: Name; readonly version: Ballot; readonly isVoid: boolean };

const BODY_CODES = { none: 0, inline: 1, staged: 2, keep: 3 } as const;
const ROW_REPLIES = ["stored", "closing", "moved", "behind", "old", "split"] as const;

const decodeAccept = (reader: HeaderReader): AcceptReply => {
  const kind = reader.count();
  if (kind === 0) return { kind: "accepted", liveRow: unpackRow(reader.nested()), isFilling: reader.flag() };
  if (kind === 1)
    return { kind: "refused", seen: reader.storedBallot(), floor: reader.timestamp(), fates: unpackFates(reader) };
  return { kind: "nodata" };
};

const decodePrepare = (reader: HeaderReader): PrepareReply => {
  if (reader.count() === 1) {
    return { kind: "refused", seen: reader.storedBallot(), floor: reader.timestamp(), fates: unpackFates(reader) };
  }
  const register = unpackRegister(reader.nested());
  return { kind: "promised", register, fates: unpackFates(reader), liveRow: unpackRow(reader.nested()) };
};

const decodeRead = (reader: HeaderReader, body: Buffer): ReadReply => {
  const register = unpackRegister(reader.nested());
  return { register, body: reader.flag() ? body : undefined };
};

const decodeRow = (reader: HeaderReader): RowReply => {
  const text = reader.text();
  const kind = ROW_REPLIES.find((known) => known === text);
  if (kind === undefined) throw new RingsteadError("bad-message", "unknown row answer");
  return { kind };
};

/**
 * Some devices of one storage node, asked with one message: its header is packed and its body sent once, however many of them hold
 * a replica. Errors of every call: the RPC's, "no-such-device", "device-full", "device-failed".
 */
export class DevicesClient {
  readonly devices: readonly string[];
  readonly #rpc: RpcClient;

  constructor(rpc: RpcClient, devices: readonly string[]) {
    this.#rpc = rpc;
    this.devices = devices;
  }

  /**
   * @param body bytes for the log, or for each device the number of its staged file
   * @param epoch that of the partition's members who are asked, here and below; errors also: "epoch-behind" with the configuration that counts, "epoch-ahead",
   * "epoch-sealed", "device-joining", "not-a-member"
   */
  accept(
    name: Name,
    version: Ballot,
    ballot: Ballot,
    proposal: Proposal,
    body: { readonly bytes?: Uint8Array; readonly stagedIds?: readonly number[] },
    own: readonly Ballot[],
    timeoutMs: number,
    answer: PartAnswer<AcceptReply>,
    epoch = 0,
  ): void {
    const header = [
      METHOD_ACCEPT,
      this.devices,
      spaceCode(name.space),
      name.hash32,
      name.path,
      version,
      ballot === version ? null : ballot,
      proposal.bodyVersion === version ? null : proposal.bodyVersion,
      proposal.isTombstone ? 1 : 0,
      proposal.bodyLength,
      proposal.metadata,
      BODY_CODES[proposal.body],
      body.stagedIds ?? NO_IDS,
      own.length === 1 && own[0] === version ? null : own,
    ];
    if (epoch !== 0) header.push(epoch);
    this.#call<AcceptReply>(header, body.bytes, timeoutMs, answer, decodeAccept);
  }

  /** @param wantedBytes what the write that is to follow brings: a device without room for it answers "device-full" */
  prepare(
    name: Name,
    ballot: Ballot,
    own: readonly Ballot[],
    wantedBytes: number,
    timeoutMs: number,
    answer: PartAnswer<PrepareReply>,
    epoch = 0,
  ): void {
    const header: unknown[] = [
      METHOD_PREPARE,
      this.devices,
      spaceCode(name.space),
      name.hash32,
      name.path,
      ballot,
      own,
      wantedBytes,
    ];
    if (epoch !== 0) header.push(epoch);
    this.#call<PrepareReply>(header, undefined, timeoutMs, answer, decodePrepare);
  }

  /** A body of up to `bodyLimit` bytes that lies in the log comes with the first device's answer. */
  read(name: Name, bodyLimit: number, timeoutMs: number, answer: PartAnswer<ReadReply>, epoch = 0): void {
    const header: unknown[] = [METHOD_READ, this.devices, spaceCode(name.space), name.hash32, name.path, bodyLimit];
    if (epoch !== 0) header.push(epoch);
    this.#call<ReadReply>(header, undefined, timeoutMs, answer, decodeRead);
  }

  confirm(confirms: readonly Confirm[], timeoutMs: number): void {
    const items = confirms.map(({ name, version, isVoid }) => [
      spaceCode(name.space),
      name.hash32,
      name.path,
      version,
      isVoid ? 1 : 0,
    ]);
    this.#rpc.call([METHOD_CONFIRM, this.devices, items], undefined, timeoutMs, () => {}, this.devices.length);
  }

  row(
    owner: Name,
    incarnation: Incarnation,
    row: Row,
    timeoutMs: number,
    answer: PartAnswer<RowReply>,
    epoch = 0,
    isPlaced = false,
    isKept = false,
  ): void {
    const header: unknown[] = [
      METHOD_ROW,
      this.devices,
      spaceCode(owner.space),
      owner.hash32,
      owner.path,
      incarnation,
      row.name,
      row.version,
      row.isDeleted ? 1 : 0,
      row.objects,
      row.bytes,
      row.payload,
    ];
    if (epoch !== 0 || isPlaced || isKept) header.push(epoch);
    if (isPlaced || isKept) header.push(isPlaced ? 1 : 0);
    if (isKept) header.push(1);
    this.#call<RowReply>(header, undefined, timeoutMs, answer, decodeRow);
  }

  /**
   * Copies of rows for a listing that is being filled, as `packRows` packs them, at most ROWS_LIMIT. `mark`: how late deletions were that those have forgotten whose
   * rows these are; `partitionPower`: of the ring.
   */
  rows(
    owner: Name,
    incarnation: Incarnation,
    packed: Uint8Array,
    mark: HybridTimestamp,
    partitionPower: number,
    timeoutMs: number,
    answer: PartAnswer<RowReply>,
    epoch = 0,
  ): void {
    const header = [METHOD_ROWS, this.devices, ...ownerFields(owner, incarnation), mark, partitionPower, epoch];
    this.#call<RowReply>(header, packed, timeoutMs, answer, decodeRow);
  }

  /** Each device opens a staged body and answers with its number. */
  stageOpen(timeoutMs: number, answer: PartAnswer<number>): void {
    this.#call([METHOD_STAGE_OPEN, this.devices], undefined, timeoutMs, answer, (reader) => reader.count());
  }

  /** Appends a block to the staged body of each device, `ids` in the order of `devices`. Blocks are written in the order in which they were sent. */
  stageWrite(ids: readonly number[], bytes: Uint8Array, timeoutMs: number, answer: PartAnswer<undefined>): void {
    this.#call([METHOD_STAGE_WRITE, this.devices, ids], bytes, timeoutMs, answer, () => undefined);
  }

  /** Answers with the length after file and folder are synced. */
  stageSeal(ids: readonly number[], timeoutMs: number, answer: PartAnswer<number>): void {
    this.#call([METHOD_STAGE_SEAL, this.devices, ids], undefined, timeoutMs, answer, (reader) => reader.count());
  }

  stageAbandon(ids: readonly number[], timeoutMs: number): void {
    this.#rpc.call([METHOD_STAGE_ABANDON, this.devices, ids], undefined, timeoutMs, () => {}, this.devices.length);
  }

  #call<T>(
    header: readonly unknown[],
    body: Uint8Array | undefined,
    timeoutMs: number,
    answer: PartAnswer<T>,
    decode: (reader: HeaderReader, body: Buffer) => T,
  ): void {
    this.#rpc.call(
      header,
      body,
      timeoutMs,
      (error, fields, bytes, part) => {
        if (error !== undefined) answer(error, undefined, part);
        else tell(fields, bytes, decode, (malformed, value) => answer(malformed, value, part));
      },
      this.devices.length,
    );
  }
}

const NO_IDS: readonly number[] = [];

const ownerFields = ({ hash32, path, space }: Name, incarnation: Incarnation): readonly unknown[] => [
  spaceCode(space),
  hash32,
  path,
  incarnation,
];

const fieldsOf = ({ space, partitionPower, partition }: PartitionPlace): readonly unknown[] => [
  spaceCode(space),
  partitionPower,
  partition,
];

/** Who asked is told, whatever a peer answered: an error thrown here would end the connection, and this request would wait for ever. */
const tell = <T>(
  fields: readonly unknown[],
  bytes: Buffer,
  decode: (reader: HeaderReader, body: Buffer) => T,
  answer: Answer<T>,
): void => {
  let value: T;
  try {
    value = decode(new HeaderReader(fields), bytes);
  } catch (error) {
    if (!(error instanceof RingsteadError)) throw error;
    answer(error, undefined);
    return;
  }
  answer(undefined, value);
};

/** One device of a storage node: what is asked of one replica at a time. Errors as above. */
export class DeviceClient {
  readonly device: string;
  /** The node's connection: devices that share it can be asked with one message. */
  readonly rpc: RpcClient;

  constructor(rpc: RpcClient, device: string) {
    this.rpc = rpc;
    this.device = device;
  }

  list(
    owner: Name,
    incarnation: Incarnation,
    query: ListQuery,
    timeoutMs: number,
    answer: Answer<ListReply>,
    epoch = 0,
  ): void {
    const header: unknown[] = [
      METHOD_LIST,
      this.device,
      spaceCode(owner.space),
      owner.hash32,
      owner.path,
      incarnation,
      query.marker,
      query.endMarker,
      query.prefix,
      query.isReverse ? 1 : 0,
      query.limit,
      query.withDeleted ? 1 : 0,
    ];
    if (epoch !== 0 || query.isCopy === true) header.push(epoch);
    if (query.isCopy === true) header.push(1);
    this.#call<ListReply>(header, undefined, timeoutMs, answer, (reader, body) => {
      const kind = reader.text();
      if (kind === "closing" || kind === "moved" || kind === "behind" || kind === "split") return { kind };
      const summary = {
        rows: reader.count(),
        objects: reader.count(),
        bytes: reader.count(),
        setHash: reader.text(),
      };
      const rows = unpackRows(body, reader.counts(LIST_LIMIT));
      return query.isCopy === true
        ? { kind: "rows", summary, rows, mark: reader.timestamp() }
        : { kind: "rows", summary, rows };
    });
  }

  readBody(name: Name, bodyVersion: Ballot, offset: number, length: number, timeoutMs: number): Promise<Buffer> {
    const header = [
      METHOD_READ_BODY,
      this.device,
      spaceCode(name.space),
      name.hash32,
      name.path,
      bodyVersion,
      offset,
      length,
    ];
    return this.#promise(header, undefined, timeoutMs, (_reader, body) => body);
  }

  /**
   * [B7]: registers older than a moment that nobody finished: those of late, or, with `from`, one page of all that the device holds,
   * beginning at that key.
   */
  unsettled(olderThanMs: number, from: Uint8Array | undefined, timeoutMs: number): Promise<UnsettledReply> {
    const header = [METHOD_UNSETTLED, this.device, olderThanMs, from ?? null];
    return this.#promise(header, undefined, timeoutMs, (reader) => {
      const registers = reader.list(UNSETTLED_LIMIT).flatMap((item) => {
        const name = item.name();
        const register = unpackRegister(item.nested());
        return register === undefined ? [] : [{ name, register }];
      });
      return { registers, next: reader.isNull() ? undefined : reader.bytes() };
    });
  }

  /** The name of the live row `skip` rows behind `marker`, "" for the first; undefined where there are not so many. `skip`: at most ROW_SKIP_LIMIT. */
  rowName(
    owner: Name,
    incarnation: Incarnation,
    marker: string,
    skip: number,
    timeoutMs: number,
    epoch = 0,
  ): Promise<string | undefined> {
    const header = [METHOD_ROW_NAME, this.device, ...ownerFields(owner, incarnation), marker, skip, epoch];
    return this.#promise(header, undefined, timeoutMs, (reader) => (reader.isNull() ? undefined : reader.text()));
  }

  /** Removes some rows of a listing whose names are elsewhere; 0: nothing is left. Errors also: "rows-not-over". */
  dropRows(owner: Name, incarnation: Incarnation, timeoutMs: number, epoch = 0): Promise<number> {
    const header = [METHOD_DROP_ROWS, this.device, ...ownerFields(owner, incarnation), epoch];
    return this.#promise(header, undefined, timeoutMs, (reader) => reader.count());
  }

  /** Listings of containers that were asked for lately: of at least `atLeast` rows, and under `shardPrefix` of at most `atMost`. */
  counts(atLeast: number, atMost: number, shardPrefix: string, timeoutMs: number): Promise<readonly CountedRows[]> {
    return this.#promise([METHOD_COUNTS, this.device, atLeast, atMost, shardPrefix], undefined, timeoutMs, (reader) =>
      reader.list(COUNTS_LIMIT).map((item) => ({
        owner: item.name(),
        incarnation: item.incarnation(),
        rows: item.count(),
      })),
    );
  }

  /** Tells a configuration that was decided; the one that counts there then. */
  configure(place: PartitionPlace, configuration: Configuration, timeoutMs: number): Promise<Configuration> {
    const header = [METHOD_CONFIGURE, this.device, ...fieldsOf(place), ...packConfiguration(configuration)];
    return this.#promise(header, undefined, timeoutMs, unpackConfiguration);
  }

  /** Who keeps the partition, as the device knows it, and whether it has everything that a member has. */
  epoch(
    place: PartitionPlace,
    timeoutMs: number,
  ): Promise<{ readonly hasCaughtUp: boolean; readonly configuration: Configuration }> {
    return this.#promise([METHOD_EPOCH, this.device, ...fieldsOf(place)], undefined, timeoutMs, (reader) => ({
      hasCaughtUp: reader.flag(),
      configuration: unpackConfiguration(reader),
    }));
  }

  /** [M3]: the device answers nothing more in this epoch. The highest timestamp that it accepted or promised. Errors also: "epoch-behind", "epoch-ahead", "device-joining". */
  seal(place: PartitionPlace, epoch: number, timeoutMs: number): Promise<HybridTimestamp> {
    const header = [METHOD_SEAL, this.device, ...fieldsOf(place), epoch];
    return this.#promise(header, undefined, timeoutMs, (reader) => reader.timestamp());
  }

  /**
   * One page of the partitions of a ring that were ever moved, as the device knows them, from a number on; `next`: where the next page begins. Nothing where its
   * stamp is still the one that was `heard`.
   */
  epochs(space: Space, partitionPower: number, from: number, heard: string, timeoutMs: number): Promise<EpochsPage> {
    const header = [METHOD_EPOCHS, this.device, spaceCode(space), partitionPower, from, heard];
    return this.#promise(header, undefined, timeoutMs, (reader) => {
      const moved = reader.list(EPOCHS_LIMIT).map(unpackMoved);
      const next = reader.isNull() ? undefined : reader.count();
      const stamp = reader.text();
      const identity = reader.any();
      const baseIdentity = typeof identity === "string" ? identity : undefined;
      return { moved, next, stamp, baseIdentity, isVoting: reader.flag() };
    });
  }

  /**
   * Gives back what a device holds of a partition that it is no member of any more. Resolves after the sync, with the number of entries that are
   * gone. Errors also: "still-a-member", where its own knowledge does not say so. Requires: W of the members know the epoch.
   */
  release(place: PartitionPlace, epoch: number, timeoutMs: number): Promise<number> {
    const header = [METHOD_RELEASE, this.device, ...fieldsOf(place), epoch];
    return this.#promise(header, undefined, timeoutMs, (reader) => reader.count());
  }

  #promise<T>(
    header: readonly unknown[],
    body: Uint8Array | undefined,
    timeoutMs: number,
    decode: (reader: HeaderReader, body: Buffer) => T,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      this.rpc.call(header, body, timeoutMs, (error, fields, bytes) => {
        if (error !== undefined) reject(error);
        else
          tell(
            fields,
            bytes,
            (reader, content) => resolve(decode(reader, content)),
            (malformed) => {
              if (malformed !== undefined) reject(malformed);
            },
          );
      });
    });
  }

  #call<T>(
    header: readonly unknown[],
    body: Uint8Array | undefined,
    timeoutMs: number,
    answer: Answer<T>,
    decode: (reader: HeaderReader, body: Buffer) => T,
  ): void {
    this.rpc.call(header, body, timeoutMs, (error, fields, bytes) => {
      if (error !== undefined) answer(error, undefined);
      else tell(fields, bytes, decode, answer);
    });
  }
}

/** The body of a copy: none, its bytes, the number of its staged file; undefined where it is offered without it. */
export type CopyBody = { readonly bytes: Uint8Array } | { readonly stagedId: number } | "none" | undefined;

const TAKE_ANSWERS: readonly TakeAnswer[] = ["settled", "wanted", "unsettled"];
const COPY_CODES = { none: 0, inline: 1, staged: 2, offered: 3 } as const;

const copyFields = (name: Name, register: Register, body: CopyBody): readonly unknown[] => {
  const fields = [spaceCode(name.space), name.hash32, name.path, packRegister(register)];
  if (body === undefined) return [...fields, COPY_CODES.offered, 0];
  if (body === "none") return [...fields, COPY_CODES.none, 0];
  return "bytes" in body ? [...fields, COPY_CODES.inline, 0] : [...fields, COPY_CODES.staged, body.stagedId];
};

const bytesOf = (body: CopyBody): Uint8Array | undefined =>
  typeof body === "object" && "bytes" in body ? body.bytes : undefined;

/** One device as a hand-off, or as a member that is given what one kept (`proxy/core/hand-off-keep.ts`). Errors as above. */
export class HandOffClient {
  readonly #rpc: RpcClient;
  readonly #device: string;

  constructor(rpc: RpcClient, device: string) {
    this.#rpc = rpc;
    this.#device = device;
  }

  /** Resolves when the device keeps that version, or a later one, durably, with the ballot that it keeps. `body`: undefined where it lies there under an earlier one. */
  keep(name: Name, register: Register, body: CopyBody, timeoutMs: number): Promise<Ballot> {
    const header = [METHOD_KEEP, this.#device, ...copyFields(name, register, body)];
    return this.#ask(header, bytesOf(body), timeoutMs, (reader) => reader.ballot());
  }

  /** The same of a row. */
  keepRow(owner: Name, incarnation: Incarnation, row: Row, timeoutMs: number): Promise<undefined> {
    const { name, version, isDeleted, objects, bytes, payload } = row;
    const fields = [...ownerFields(owner, incarnation), name, version, isDeleted ? 1 : 0, objects, bytes, payload];
    return this.#ask([METHOD_KEEP_ROW, this.#device, ...fields], undefined, timeoutMs, () => undefined);
  }

  /** What the device keeps of a name for others. */
  kept(name: Name, timeoutMs: number): Promise<Register | undefined> {
    const header = [METHOD_KEPT, this.#device, spaceCode(name.space), name.hash32, name.path];
    return this.#ask(header, undefined, timeoutMs, (reader) => unpackRegister(reader.nested()));
  }

  /** One page of what it keeps of a listing, deleted rows too. */
  keptRows(owner: Name, incarnation: Incarnation, query: ListQuery, timeoutMs: number): Promise<readonly Row[]> {
    const { marker, endMarker, prefix, isReverse, limit } = query;
    const fields = [...ownerFields(owner, incarnation), marker, endMarker, prefix, isReverse ? 1 : 0, limit];
    return this.#ask([METHOD_KEPT_ROWS, this.#device, ...fields], undefined, timeoutMs, (_, body) => unpackRows(body));
  }

  /** Gives a member a copy. Errors also: those of an ACCEPT in that epoch. */
  take(name: Name, register: Register, body: CopyBody, timeoutMs: number, epoch = 0): Promise<TakeAnswer> {
    const header = [METHOD_TAKE, this.#device, ...copyFields(name, register, body)];
    if (epoch !== 0) header.push(epoch);
    return this.#ask(header, bytesOf(body), timeoutMs, (reader) => TAKE_ANSWERS[reader.count()] ?? "unsettled");
  }

  /** Gives a member a row that was kept. */
  row(owner: Name, incarnation: Incarnation, row: Row, timeoutMs: number, epoch = 0): Promise<RowReply["kind"]> {
    return new Promise((resolve, reject) => {
      new DevicesClient(this.#rpc, [this.#device]).row(
        owner,
        incarnation,
        row,
        timeoutMs,
        (error, reply) => {
          if (reply === undefined) reject(error ?? new RingsteadError("bad-message", "no answer to a row"));
          else resolve(reply.kind);
        },
        epoch,
        false,
        true,
      );
    });
  }

  /** Stages a body, block by block; its number there. `blocks` are not changed before it resolves. */
  async stage(blocks: AsyncIterable<Uint8Array>, timeoutMs: number): Promise<number> {
    const id = await this.#ask([METHOD_STAGE_OPEN, this.#device], undefined, timeoutMs, (reader) => reader.count());
    let length = 0;
    for await (const block of blocks) {
      length += block.length;
      await this.#ask([METHOD_STAGE_WRITE, this.#device, [id]], block, timeoutMs, () => undefined);
    }
    const seal = [METHOD_STAGE_SEAL, this.#device, [id]];
    const sealed = await this.#ask(seal, undefined, timeoutMs, (reader) => reader.count());
    if (sealed !== length) throw new RingsteadError("staging-short", "a staged body has the wrong length");
    return id;
  }

  #ask<T>(
    header: readonly unknown[],
    body: Uint8Array | undefined,
    timeoutMs: number,
    decode: (reader: HeaderReader, body: Buffer) => T,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#rpc.call(header, body, timeoutMs, (error, fields, bytes) => {
        if (error !== undefined) return reject(error);
        tell(
          fields,
          bytes,
          (reader, content) => resolve(decode(reader, content)),
          (malformed) => {
            if (malformed !== undefined) reject(malformed);
          },
        );
      });
    });
  }
}

/** No socket can be here. */
const NOWHERE = "/dev/null/nowhere";

type ConnectionsContext = {
  readonly config: ClusterConfig;
  readonly paths: RuntimePaths;
  readonly clusterKey: Buffer;
  readonly deviceGroups: DeviceGroups;
};

/** The processes that serve devices: over Unix sockets on this node, one for each of its disks, over TCP on others. Disposal closes the connections. */
export class StorageNodeConnections implements Disposable {
  readonly #context: ConnectionsContext;
  /** By the name of the process on this node, else by node. */
  readonly #clients = new Map<string, RpcClient>();

  constructor(context: ConnectionsContext) {
    this.#context = context;
  }

  /** Throws RingsteadError `ring-names-unknown-node` where a ring places data on a node that cluster.toml does not have. */
  checkKnown(devices: readonly (RingDevice | undefined)[]): void {
    const { config } = this.#context;
    for (const device of devices) {
      if (device === undefined || device.node === config.node) continue;
      if (rpcAddress(config, device.node, "storage-node") !== undefined) continue;
      throw new RingsteadError(
        "ring-names-unknown-node",
        `a ring places data on ${device.node}/${device.device}, and cluster.toml has no table [node.${device.node}]`,
        { node: device.node },
      );
    }
  }

  /** The connection to the process that serves a device; to nowhere, where cluster.toml does not have its node (any more): nobody answers there. */
  of({ node, device }: Pick<RingDevice, "node" | "device">): RpcClient {
    const { clusterKey, config, deviceGroups, paths } = this.#context;
    const isOwn = node === config.node;
    const name = isOwn ? storageNodeName(deviceGroups, device) : `node ${node}`;
    let client = this.#clients.get(name);
    if (client === undefined) {
      const address = isOwn ? paths.socket(name) : rpcAddress(config, node, "storage-node");
      client = new RpcClient(address ?? NOWHERE, clusterKey);
      this.#clients.set(name, client);
    }
    return client;
  }

  [Symbol.dispose](): void {
    for (const client of this.#clients.values()) client[Symbol.dispose]();
  }
}
