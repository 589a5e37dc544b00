import type { Ballot, Incarnation } from "../common/ballot.ts";
import { RingsteadError } from "../common/errors.ts";
import type { RpcClient } from "../common/rpc/client.ts";
import {
  type AcceptReply,
  HeaderReader,
  type ListQuery,
  type ListReply,
  METHOD_ACCEPT,
  METHOD_CONFIRM,
  METHOD_LIST,
  METHOD_PREPARE,
  METHOD_READ,
  METHOD_READ_BODY,
  METHOD_ROW,
  METHOD_STAGE_ABANDON,
  METHOD_STAGE_OPEN,
  METHOD_STAGE_SEAL,
  METHOD_STAGE_WRITE,
  type Name,
  type PrepareReply,
  type Proposal,
  type ReadReply,
  type Row,
  type RowReply,
  spaceCode,
  unpackFates,
  unpackRegister,
  unpackRow,
  unpackRows,
} from "./wire.ts";

/** Called once with an error or an answer. */
export type Answer<T> = (error: RingsteadError | undefined, value: T | undefined) => void;

export type Confirm = { readonly name: Name; readonly version: Ballot; readonly isVoid: boolean };

const BODY_CODES = { none: 0, inline: 1, staged: 2, keep: 3 } as const;
const ROW_REPLIES = ["stored", "closing", "moved", "behind", "old"] as const;

/** One device of a storage node, over the node's connection. Errors of every call: the RPC's, "device-full", "device-failed". */
export class DeviceClient {
  readonly device: string;
  readonly #rpc: RpcClient;

  constructor(rpc: RpcClient, device: string) {
    this.#rpc = rpc;
    this.device = device;
  }

  accept(
    name: Name,
    version: Ballot,
    ballot: Ballot,
    proposal: Proposal,
    body: { readonly bytes?: Uint8Array; readonly stagedId?: number },
    own: readonly Ballot[],
    timeoutMs: number,
    answer: Answer<AcceptReply>,
  ): void {
    const header = [
      METHOD_ACCEPT,
      this.device,
      spaceCode(name.space),
      name.hash32,
      name.path,
      version,
      ballot,
      proposal.bodyVersion,
      proposal.isTombstone ? 1 : 0,
      proposal.bodyLength,
      proposal.metadata,
      BODY_CODES[proposal.body],
      body.stagedId ?? 0,
      own,
    ];
    this.#call<AcceptReply>(header, body.bytes, timeoutMs, answer, (reader) => {
      const kind = reader.count();
      if (kind === 0) return { kind: "accepted", liveRow: unpackRow(reader.nested()) };
      if (kind === 1)
        return { kind: "refused", seen: reader.ballot(), floor: reader.timestamp(), fates: unpackFates(reader) };
      return { kind: "nodata" };
    });
  }

  prepare(name: Name, ballot: Ballot, own: readonly Ballot[], timeoutMs: number, answer: Answer<PrepareReply>): void {
    const header = [METHOD_PREPARE, this.device, spaceCode(name.space), name.hash32, name.path, ballot, own];
    this.#call<PrepareReply>(header, undefined, timeoutMs, answer, (reader) => {
      if (reader.count() === 1) {
        return { kind: "refused", seen: reader.ballot(), floor: reader.timestamp(), fates: unpackFates(reader) };
      }
      const register = unpackRegister(reader.nested());
      return { kind: "promised", register, fates: unpackFates(reader), liveRow: unpackRow(reader.nested()) };
    });
  }

  /** Bodies up to `bodyLimit` bytes that lie in the log come with the answer. */
  read(name: Name, bodyLimit: number, timeoutMs: number, answer: Answer<ReadReply>): void {
    const header = [METHOD_READ, this.device, spaceCode(name.space), name.hash32, name.path, bodyLimit];
    this.#call(header, undefined, timeoutMs, answer, (reader, body) => {
      const register = unpackRegister(reader.nested());
      return { register, body: reader.flag() ? body : undefined };
    });
  }

  confirm(confirms: readonly Confirm[], timeoutMs: number): void {
    const items = confirms.map(({ name, version, isVoid }) => [
      spaceCode(name.space),
      name.hash32,
      name.path,
      version,
      isVoid ? 1 : 0,
    ]);
    this.#rpc.call([METHOD_CONFIRM, this.device, items], undefined, timeoutMs, () => {});
  }

  row(owner: Name, incarnation: Incarnation, row: Row, timeoutMs: number, answer: Answer<RowReply>): void {
    const header = [
      METHOD_ROW,
      this.device,
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
    this.#call(header, undefined, timeoutMs, answer, (reader) => {
      const text = reader.text();
      const kind = ROW_REPLIES.find((known) => known === text);
      if (kind === undefined) throw new RingsteadError("bad-message", "unknown row answer");
      return { kind };
    });
  }

  list(owner: Name, incarnation: Incarnation, query: ListQuery, timeoutMs: number, answer: Answer<ListReply>): void {
    const header = [
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
    this.#call<ListReply>(header, undefined, timeoutMs, answer, (reader, body) => {
      const kind = reader.text();
      if (kind === "closing" || kind === "moved" || kind === "behind") return { kind };
      const summary = {
        rows: reader.count(),
        objects: reader.count(),
        bytes: reader.count(),
        setHash: reader.text(),
      };
      return { kind: "rows", summary, rows: unpackRows(body) };
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

  stageOpen(timeoutMs: number): Promise<number> {
    return this.#promise([METHOD_STAGE_OPEN, this.device], undefined, timeoutMs, (reader) => reader.count());
  }

  stageWrite(id: number, bytes: Uint8Array, timeoutMs: number): Promise<void> {
    return this.#promise([METHOD_STAGE_WRITE, this.device, id], bytes, timeoutMs, () => undefined);
  }

  stageSeal(id: number, timeoutMs: number): Promise<number> {
    return this.#promise([METHOD_STAGE_SEAL, this.device, id], undefined, timeoutMs, (reader) => reader.count());
  }

  stageAbandon(id: number, timeoutMs: number): void {
    this.#rpc.call([METHOD_STAGE_ABANDON, this.device, id], undefined, timeoutMs, () => {});
  }

  #promise<T>(
    header: readonly unknown[],
    body: Uint8Array | undefined,
    timeoutMs: number,
    decode: (reader: HeaderReader, body: Buffer) => T,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#rpc.call(header, body, timeoutMs, (error, fields, bytes) => {
        if (error !== undefined) reject(error);
        else resolve(decode(new HeaderReader(fields), bytes));
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
    this.#rpc.call(header, body, timeoutMs, (error, fields, bytes) => {
      if (error !== undefined) answer(error, undefined);
      else answer(undefined, decode(new HeaderReader(fields), bytes));
    });
  }
}
