import { createConnection, type Socket } from "node:net";
import { RingsteadError } from "../../common/errors.ts";
import { ByteReader } from "./nbd-bytes.ts";
import {
  NBD_MAGIC,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  REQUEST_MAGIC,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
  OPTION_GO,
  OPTION_STRUCTURED_REPLY,
  OPTION_SET_META_CONTEXT,
  REPLY_ACK,
  REPLY_INFO,
  REPLY_META_CONTEXT,
  REPLY_ERROR_BIT,
  INFO_DESCRIPTION,
  INFO_EXPORT,
  CHUNK_NONE,
  CHUNK_OFFSET_DATA,
  CHUNK_OFFSET_HOLE,
  CHUNK_BLOCK_STATUS,
  CHUNK_ERROR_BIT,
  FLAG_DONE,
} from "./nbd-protocol.ts";

/** What a message of the server may have; a read of ours is shorter. */
const PAYLOAD_LIMIT_BYTES = 16 * 1024 * 1024;
const HANDSHAKE_LIMIT_BYTES = 64 * 1024;
/** A daemon that does not answer for so long hangs, or its disk does. */
const ANSWER_TIMEOUT_MS = 120_000;

type NbdOptions = {
  /** What is not answered for so long ends the connection. A request that was given up may still be done: who repeats what it asked waits for ever. */
  readonly answerLimitMs?: number;
};

/** A piece of the answer to a question: content of a read, or lengths and flags in one metadata context. */
export type NbdPiece =
  | { readonly kind: "data"; readonly offset: number; readonly bytes: Buffer }
  | { readonly kind: "hole"; readonly offset: number; readonly length: number }
  | {
      readonly kind: "status";
      readonly context: string;
      readonly extents: readonly (readonly [length: number, flags: number])[];
    };

type Waiting = {
  readonly pieces: NbdPiece[];
  failure: number | undefined;
  readonly resolve: (pieces: readonly NbdPiece[]) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout | undefined;
};

const lost = (why: string): RingsteadError => new RingsteadError("daemon-lost", `the volume's daemon ${why}`);

const optionRequest = (option: number, data: Buffer): Buffer => {
  const head = Buffer.alloc(16);
  head.writeBigUInt64BE(OPTION_MAGIC, 0);
  head.writeUInt32BE(option, 8);
  head.writeUInt32BE(data.length, 12);
  return Buffer.concat([head, data]);
};

const text = (value: string): Buffer => {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(Buffer.byteLength(value));
  return Buffer.concat([length, Buffer.from(value)]);
};

const uint = (value: number, bytes: 2 | 4): Buffer => {
  const buffer = Buffer.alloc(bytes);
  buffer.writeUIntBE(value, 0, bytes);
  return buffer;
};

/** A connection to one export of a qemu-storage-daemon on a Unix socket. Errors of every call: "daemon-lost" where it broke, "daemon-refused" with the daemon's error number. */
export class NbdConnection implements Disposable {
  readonly sizeBytes: number;
  /** What the export says of itself. */
  readonly description: string | undefined;
  readonly #socket: Socket;
  readonly #contexts: ReadonlyMap<number, string>;
  readonly #answerLimitMs: number;
  readonly #waiting = new Map<bigint, Waiting>();
  #nextId = 1n;
  #failure: RingsteadError | undefined;

  private constructor(socket: Socket, agreed: Agreed, { answerLimitMs = ANSWER_TIMEOUT_MS }: NbdOptions) {
    this.#socket = socket;
    this.sizeBytes = agreed.sizeBytes;
    this.description = agreed.description;
    this.#contexts = agreed.ids;
    this.#answerLimitMs = answerLimitMs;
  }

  /** `contexts`: metadata contexts that are asked for; each has to be there. */
  static async opened(
    path: string,
    exportName: string,
    contexts: readonly string[],
    options: NbdOptions = {},
  ): Promise<NbdConnection> {
    const socket = await new Promise<Socket>((resolve, reject) => {
      const connecting = createConnection({ path }, () => resolve(connecting));
      connecting.once("error", (error) => reject(lost(`cannot be reached: ${error.message}`)));
    });
    const reader = new ByteReader(socket);
    const timer = setTimeout(() => socket.destroy(), ANSWER_TIMEOUT_MS);
    try {
      const connection = new NbdConnection(socket, await handshake(socket, reader, exportName, contexts), options);
      void connection.#receive(reader);
      return connection;
    } catch (error) {
      socket.destroy();
      throw error instanceof RingsteadError ? error : lost("closed the connection");
    } finally {
      clearTimeout(timer);
    }
  }

  get isOpen(): boolean {
    return this.#failure === undefined;
  }

  /** `length`: what it is about, where there are no `bytes` to send. */
  ask(command: number, offset: number, length: number, bytes?: Buffer): Promise<readonly NbdPiece[]> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const id = this.#nextId++;
    const head = Buffer.alloc(28);
    head.writeUInt32BE(REQUEST_MAGIC, 0);
    head.writeUInt16BE(command, 6);
    head.writeBigUInt64BE(id, 8);
    head.writeBigUInt64BE(BigInt(offset), 16);
    head.writeUInt32BE(bytes?.length ?? length, 24);
    return new Promise((resolve, reject) => {
      const limitMs = this.#answerLimitMs;
      const timer = Number.isFinite(limitMs)
        ? setTimeout(() => this.#end(lost("does not answer")), limitMs)
        : undefined;
      this.#waiting.set(id, { pieces: [], failure: undefined, resolve, reject, timer });
      this.#socket.write(head);
      if (bytes !== undefined) this.#socket.write(bytes);
    });
  }

  [Symbol.dispose](): void {
    this.#end(lost("was let go of"));
  }

  #end(failure: RingsteadError): void {
    this.#failure ??= failure;
    this.#socket.destroy();
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject, timer } of waiting) {
      clearTimeout(timer);
      reject(this.#failure);
    }
  }

  async #receive(reader: ByteReader): Promise<void> {
    try {
      for (;;) {
        const head = await reader.take(16);
        if (head.readUInt32BE(0) === SIMPLE_REPLY_MAGIC) {
          this.#settle(head.readBigUInt64BE(8), head.readUInt32BE(4));
          continue;
        }
        if (head.readUInt32BE(0) !== STRUCTURED_REPLY_MAGIC) throw lost("says something else than NBD");
        const length = (await reader.take(4)).readUInt32BE(0);
        if (length > PAYLOAD_LIMIT_BYTES) throw lost(`sends ${length} bytes at once`);
        this.#deliver(head.readUInt16BE(4), head.readUInt16BE(6), head.readBigUInt64BE(8), await reader.take(length));
      }
    } catch (error) {
      this.#end(error instanceof RingsteadError ? error : lost("closed the connection"));
    }
  }

  #deliver(flags: number, type: number, id: bigint, payload: Buffer): void {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) throw lost("answers what it was not asked");
    if ((type & CHUNK_ERROR_BIT) !== 0) waiting.failure ??= payload.length >= 4 ? payload.readUInt32BE(0) : 1;
    else if (type !== CHUNK_NONE) waiting.pieces.push(this.#pieceOf(type, payload));
    if ((flags & FLAG_DONE) !== 0) this.#settle(id, 0);
  }

  #pieceOf(type: number, payload: Buffer): NbdPiece {
    if (type === CHUNK_OFFSET_DATA && payload.length > 8)
      return { kind: "data", offset: Number(payload.readBigUInt64BE(0)), bytes: payload.subarray(8) };
    if (type === CHUNK_OFFSET_HOLE && payload.length === 12)
      return { kind: "hole", offset: Number(payload.readBigUInt64BE(0)), length: payload.readUInt32BE(8) };
    const context =
      type === CHUNK_BLOCK_STATUS && payload.length >= 12 ? this.#contexts.get(payload.readUInt32BE(0)) : undefined;
    if (context === undefined || (payload.length - 4) % 8 !== 0) throw lost(`sends an answer of type ${type}`);
    const extents: [number, number][] = [];
    for (let at = 4; at < payload.length; at += 8)
      extents.push([payload.readUInt32BE(at), payload.readUInt32BE(at + 4)]);
    return { kind: "status", context, extents };
  }

  #settle(id: bigint, errorNumber: number): void {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) throw lost("answers what it was not asked");
    this.#waiting.delete(id);
    clearTimeout(waiting.timer);
    const failure = waiting.failure ?? (errorNumber === 0 ? undefined : errorNumber);
    if (failure === undefined) waiting.resolve(waiting.pieces);
    else {
      const message = `the volume's daemon failed with error ${failure}`;
      waiting.reject(new RingsteadError("daemon-refused", message, { errorNumber: failure }));
    }
  }
}

/** What was settled before the first request. */
type Agreed = {
  readonly sizeBytes: number;
  readonly description: string | undefined;
  readonly ids: ReadonlyMap<number, string>;
};

const handshake = async (
  socket: Socket,
  reader: ByteReader,
  exportName: string,
  contexts: readonly string[],
): Promise<Agreed> => {
  const greeting = await reader.take(18);
  if (greeting.readBigUInt64BE(0) !== NBD_MAGIC || greeting.readBigUInt64BE(8) !== OPTION_MAGIC)
    throw lost("is no NBD server");
  // Fixed newstyle, no padding of zeros.
  socket.write(uint(3, 4));
  socket.write(optionRequest(OPTION_STRUCTURED_REPLY, Buffer.alloc(0)));
  await optionReplies(reader, OPTION_STRUCTURED_REPLY);
  const ids = new Map<number, string>();
  if (contexts.length > 0) {
    const wanted = [text(exportName), uint(contexts.length, 4), ...contexts.map(text)];
    socket.write(optionRequest(OPTION_SET_META_CONTEXT, Buffer.concat(wanted)));
    for (const { type, data } of await optionReplies(reader, OPTION_SET_META_CONTEXT))
      if (type === REPLY_META_CONTEXT && data.length > 4) ids.set(data.readUInt32BE(0), data.toString("utf8", 4));
    const missing = contexts.find((context) => ![...ids.values()].includes(context));
    if (missing !== undefined) throw lost(`has no metadata context ${missing}`);
  }
  socket.write(optionRequest(OPTION_GO, Buffer.concat([text(exportName), uint(1, 2), uint(INFO_DESCRIPTION, 2)])));
  const infos = (await optionReplies(reader, OPTION_GO)).filter(
    ({ type, data }) => type === REPLY_INFO && data.length >= 2,
  );
  const about = infos.find(({ data }) => data.length >= 12 && data.readUInt16BE(0) === INFO_EXPORT);
  if (about === undefined) throw lost("does not say how large the export is");
  const description = infos.find(({ data }) => data.readUInt16BE(0) === INFO_DESCRIPTION)?.data.toString("utf8", 2);
  return { sizeBytes: Number(about.data.readBigUInt64BE(2)), description, ids };
};

/** What the server says of an option, up to its acknowledgement. */
const optionReplies = async (reader: ByteReader, option: number) => {
  const replies: { readonly type: number; readonly data: Buffer }[] = [];
  for (;;) {
    const head = await reader.take(20);
    const [type, length] = [head.readUInt32BE(12), head.readUInt32BE(16)];
    if (
      head.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC ||
      head.readUInt32BE(8) !== option ||
      length > HANDSHAKE_LIMIT_BYTES
    )
      throw lost("says something else than NBD");
    const data = await reader.take(length);
    if (type === REPLY_ACK) return replies;
    if (type >= REPLY_ERROR_BIT)
      throw new RingsteadError(
        "daemon-refused",
        `the volume's daemon refused option ${option}: ${data.toString("utf8").slice(0, 200)}`,
      );
    replies.push({ type, data });
  }
};
