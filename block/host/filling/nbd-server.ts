import { chmodSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { messageOf } from "../../../common/errors.ts";
import type { Log } from "../../../common/log.ts";
import type { BackupPart } from "../../backup/backup-reader.ts";
import { ByteReader } from "../nbd-bytes.ts";
import { ByteBudget } from "./byte-budget.ts";
import { NbdReplies } from "./nbd-replies.ts";
import { READ_PATIENCE_MS } from "./patience.ts";
import {
  CHUNK_ERROR,
  CHUNK_NONE,
  CHUNK_OFFSET_DATA,
  CHUNK_OFFSET_HOLE,
  COMMAND_DISCONNECT,
  COMMAND_FLUSH,
  COMMAND_READ,
  ERROR_INVALID,
  ERROR_IO,
  ERROR_NOT_PERMITTED,
  FLAG_DONE,
  HANDSHAKE_FLAGS,
  INFO_EXPORT,
  NBD_MAGIC,
  OPTION_ABORT,
  OPTION_GO,
  OPTION_INFO,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  OPTION_STRUCTURED_REPLY,
  READ_ONLY_FLAGS,
  REPLY_ACK,
  REPLY_INFO,
  REPLY_INVALID,
  REPLY_UNKNOWN,
  REPLY_UNSUPPORTED,
  REQUEST_MAGIC,
  STRUCTURED_REPLY_MAGIC,
} from "../nbd-protocol.ts";

/** What an export is; nobody writes to it. */
export type NbdExport = {
  readonly sizeBytes: number;
  /**
   * In order, without gaps. What it rejects with, the client sees as an I/O error; once the signal aborts nobody waits for it. Requires: the range is
   * within the export.
   */
  read(this: void, offset: number, length: number, signal: AbortSignal): Promise<readonly BackupPart[]>;
};

export type NbdServerOptions = {
  find(this: void, name: string): NbdExport | undefined;
  readonly log: Log;
  /** In the place of the limits below, for tests. */
  readonly patienceMs?: number;
  readonly heldLimitBytes?: number;
  readonly takeLimitMs?: number;
};

const OPTION_LIMIT_BYTES = 64 * 1024;
const OPTIONS_LIMIT = 64;
/** Who connects says soon what it wants. */
const HANDSHAKE_LIMIT_MS = 10_000;
/** What one request may read; NBD's clients ask for no more without having been told that they may. */
const READ_LIMIT_BYTES = 32 * 1024 * 1024;
/** It is read and sent in parts of this length, which are those of a backup's chunks. */
const PART_BYTES = 1024 * 1024;
/** Of all connections together: what was read, or is being read, and no client has taken yet. */
const HELD_LIMIT_BYTES = 64 * 1024 * 1024;
/** Requests of a connection that are answered at once: further ones are not read before. */
const REQUESTS_LIMIT = 16;
const CONNECTIONS_LIMIT = 1024;
const REQUEST_BYTES = 28;

/** What was asked cannot be understood: the connection ends. */
class ProtocolError extends Error {}

const optionReply = (option: number, type: number, data: Buffer = Buffer.alloc(0)): Buffer => {
  const head = Buffer.alloc(20);
  head.writeBigUInt64BE(OPTION_REPLY_MAGIC, 0);
  head.writeUInt32BE(option, 8);
  head.writeUInt32BE(type, 12);
  head.writeUInt32BE(data.length, 16);
  return Buffer.concat([head, data]);
};

const chunkHead = (flags: number, type: number, cookie: bigint, length: number): Buffer => {
  const head = Buffer.alloc(20);
  head.writeUInt32BE(STRUCTURED_REPLY_MAGIC, 0);
  head.writeUInt16BE(flags, 4);
  head.writeUInt16BE(type, 6);
  head.writeBigUInt64BE(cookie, 8);
  head.writeUInt32BE(length, 16);
  return head;
};

const failure = (cookie: bigint, errorNumber: number): readonly Buffer[] => {
  const error = Buffer.alloc(6);
  error.writeUInt32BE(errorNumber, 0);
  return [chunkHead(FLAG_DONE, CHUNK_ERROR, cookie, error.length), error];
};

const partReply = (cookie: bigint, part: BackupPart, isLast: boolean): readonly Buffer[] => {
  const flags = isLast ? FLAG_DONE : 0;
  const at = Buffer.alloc("bytes" in part ? 8 : 12);
  at.writeBigUInt64BE(BigInt(part.offset), 0);
  if ("bytes" in part)
    return [chunkHead(flags, CHUNK_OFFSET_DATA, cookie, at.length + part.bytes.length), at, part.bytes];
  at.writeUInt32BE(part.zeroBytes, 8);
  return [chunkHead(flags, CHUNK_OFFSET_HOLE, cookie, at.length), at];
};

type Part = { readonly cookie: bigint; readonly offset: number; readonly length: number; readonly isLast: boolean };

/** One connection after its handshake; `gone` aborts with it. */
type Client = { readonly chosen: NbdExport; readonly replies: NbdReplies; readonly gone: AbortSignal };

/**
 * Serves read-only exports over NBD on a Unix socket, to who may open that: daemons of this host. Clients have to take structured replies, so that zeros are
 * not carried. However much clients ask for, and however little of it they take, a limited number of bytes is held: the next part is read once there is room
 * for it, the next request once there are fewer under way, and who takes nothing is cut off.
 */
export class NbdServer implements AsyncDisposable {
  readonly #options: NbdServerOptions;
  readonly #server: Server;
  readonly #held: ByteBudget;
  readonly #sockets = new Set<Socket>();
  #path: string | undefined;

  constructor(options: NbdServerOptions) {
    this.#options = options;
    this.#held = new ByteBudget(options.heldLimitBytes ?? HELD_LIMIT_BYTES);
    this.#server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
      this.#serve(socket).catch((error: unknown) => {
        if (error instanceof ProtocolError)
          options.log.warn("a client of a backup's export is not understood", { error });
        socket.destroy();
      });
    });
    this.#server.maxConnections = CONNECTIONS_LIMIT;
  }

  /** Listens in the place of whoever did before. */
  async listen(path: string): Promise<void> {
    rmSync(path, { force: true });
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject).listen(path, () => resolve());
    });
    chmodSync(path, 0o600);
    this.#path = path;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    if (this.#path === undefined) return;
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  async #serve(socket: Socket): Promise<void> {
    const reader = new ByteReader(socket);
    socket.setTimeout(HANDSHAKE_LIMIT_MS, () => socket.destroy());
    const chosen = await this.#shakeHands(socket, reader);
    if (chosen === undefined) return void socket.end();
    socket.setTimeout(0);
    const gone = new AbortController();
    socket.once("close", () => gone.abort(new Error("the client is gone")));
    const client: Client = { chosen, replies: new NbdReplies(socket, this.#options.takeLimitMs), gone: gone.signal };
    const running = new Set<Promise<void>>();
    for (;;) {
      while (running.size >= REQUESTS_LIMIT) await Promise.race(running);
      const request = await reader.take(REQUEST_BYTES);
      if (request.readUInt32BE(0) !== REQUEST_MAGIC) throw new ProtocolError("that is no request");
      const command = request.readUInt16BE(6);
      if (command === COMMAND_DISCONNECT) return void socket.end();
      if (command !== COMMAND_READ && command !== COMMAND_FLUSH) {
        // The bytes of a write follow, which nobody reads here.
        await client.replies.send(failure(request.readBigUInt64BE(8), ERROR_NOT_PERMITTED));
        return void socket.end();
      }
      const answered = this.#answer(client, command, request)
        // Only a client that is gone cannot be answered.
        .catch(() => void socket.destroy())
        .finally(() => running.delete(answered));
      running.add(answered);
    }
  }

  /** Resolves with what the client goes on with; undefined where it goes. */
  async #shakeHands(socket: Socket, reader: ByteReader): Promise<NbdExport | undefined> {
    const greeting = Buffer.alloc(18);
    greeting.writeBigUInt64BE(NBD_MAGIC, 0);
    greeting.writeBigUInt64BE(OPTION_MAGIC, 8);
    greeting.writeUInt16BE(HANDSHAKE_FLAGS, 16);
    socket.write(greeting);
    await reader.take(4);
    let isStructured = false;
    for (let count = 0; count < OPTIONS_LIMIT; count++) {
      const head = await reader.take(16);
      const [option, length] = [head.readUInt32BE(8), head.readUInt32BE(12)];
      if (head.readBigUInt64BE(0) !== OPTION_MAGIC || length > OPTION_LIMIT_BYTES)
        throw new ProtocolError("that is no option");
      const data = await reader.take(length);
      if (option === OPTION_ABORT) {
        socket.write(optionReply(option, REPLY_ACK));
        return undefined;
      }
      if (option === OPTION_STRUCTURED_REPLY) {
        isStructured = true;
        socket.write(optionReply(option, REPLY_ACK));
      } else if (option === OPTION_GO || option === OPTION_INFO) {
        const found = this.#choose(socket, option, data, isStructured);
        if (found !== undefined && option === OPTION_GO) return found;
      } else socket.write(optionReply(option, REPLY_UNSUPPORTED));
    }
    throw new ProtocolError("it asks for options without end");
  }

  #choose(socket: Socket, option: number, data: Buffer, isStructured: boolean): NbdExport | undefined {
    const length = data.length >= 6 ? data.readUInt32BE(0) : 0;
    const found = 4 + length + 2 <= data.length ? this.#options.find(data.toString("utf8", 4, 4 + length)) : undefined;
    if (found === undefined || !isStructured) {
      socket.write(optionReply(option, found === undefined ? REPLY_UNKNOWN : REPLY_INVALID));
      return undefined;
    }
    const info = Buffer.alloc(12);
    info.writeUInt16BE(INFO_EXPORT, 0);
    info.writeBigUInt64BE(BigInt(found.sizeBytes), 2);
    info.writeUInt16BE(READ_ONLY_FLAGS, 10);
    socket.write(Buffer.concat([optionReply(option, REPLY_INFO, info), optionReply(option, REPLY_ACK)]));
    return found;
  }

  /** Rejects where the client is gone. */
  async #answer(client: Client, command: number, request: Buffer): Promise<void> {
    const cookie = request.readBigUInt64BE(8);
    const offset = Number(request.readBigUInt64BE(16));
    const length = request.readUInt32BE(24);
    const { replies, chosen } = client;
    if (command === COMMAND_FLUSH) return replies.send([chunkHead(FLAG_DONE, CHUNK_NONE, cookie, 0)]);
    const end = offset + length;
    if (length === 0 || length > READ_LIMIT_BYTES || end > chosen.sizeBytes)
      return replies.send(failure(cookie, ERROR_INVALID));
    for (let at = offset; at < end; ) {
      const next = Math.min(end, (Math.floor(at / PART_BYTES) + 1) * PART_BYTES);
      const part = { cookie, offset: at, length: next - at, isLast: next === end };
      if (!(await this.#answerPart(client, part))) return;
      at = next;
    }
  }

  /** Resolves with false where the client had an error for an answer; rejects where it is gone. */
  async #answerPart(client: Client, { cookie, offset, length, isLast }: Part): Promise<boolean> {
    await this.#held.take(length, client.gone);
    // From now on: what other clients hold, and how fast this one takes the parts before, says nothing about the object store.
    const patience = AbortSignal.timeout(this.#options.patienceMs ?? READ_PATIENCE_MS);
    const signal = AbortSignal.any([client.gone, patience]);
    try {
      const parts = await client.chosen.read(offset, length, signal).catch((error: unknown) => {
        const why = messageOf(error);
        this.#options.log.warn("what a volume is restored from cannot be read", { offset, length, why });
        return undefined;
      });
      if (parts === undefined) {
        await client.replies.send(failure(cookie, ERROR_IO));
        return false;
      }
      for (const [index, part] of parts.entries())
        await client.replies.send(partReply(cookie, part, isLast && index === parts.length - 1));
      return true;
    } finally {
      this.#held.give(length);
    }
  }
}
