import { createConnection, type Socket } from "node:net";

/** An answer, its body only counted or, when asked for, kept. The connection uses the same object for every answer. */
export type Answer = { status: number; contentLength: number; bodyBytes: number; body: string };

/** What to send, `bytes` and then `chunk` `chunkCount` times, and what to do with the answer. */
export type Exchange = {
  readonly bytes: Buffer;
  readonly chunk: Buffer | undefined;
  readonly chunkCount: number;
  /** False for HEAD, whose Content-Length speaks of a body that does not come. */
  readonly bringsBody: boolean;
  readonly keepsBody: boolean;
};

/** One of the two is called once for each exchange. */
export type AnswerListener = { answered(answer: Answer): void; failed(reason: Error): void };

const HEAD_LIMIT_BYTES = 64 * 1024;
const READ_BYTES = 256 * 1024;
/** A server that says nothing for so long has failed. */
const SILENCE_LIMIT_MS = 60_000;
const HEAD_END = Buffer.from("\r\n\r\n");
const EMPTY = Buffer.alloc(0);

/** All connections read into it: what arrives is consumed, or copied, before the next read begins. */
const received = Buffer.allocUnsafe(READ_BYTES);

/**
 * One keep-alive HTTP/1.1 connection with one exchange at a time. It knows only what the object servers here send: Content-Length, and
 * no chunked bodies. A 4 KiB request costs one write and one or two reads into a shared buffer; no promise, no stream event, no copy.
 */
export class HttpConnection {
  readonly #host: string;
  readonly #port: number;
  readonly #listener: AnswerListener;
  readonly #answer: Answer = { status: 0, contentLength: 0, bodyBytes: 0, body: "" };
  #socket: Socket | undefined;
  #exchange: Exchange | undefined;
  /** The part of a head that has come. */
  #head: Buffer = EMPTY;
  #hasHead = false;
  #closes = false;
  #bodyLimit = 0;
  #parts: Buffer[] = [];

  constructor(host: string, port: number, listener: AnswerListener) {
    this.#host = host;
    this.#port = port;
    this.#listener = listener;
  }

  /** Requires: no exchange under way; its `bytes` and `chunk` stay as they are until the listener is called. */
  send(exchange: Exchange): void {
    const socket = this.#socket ?? this.#connect();
    this.#exchange = exchange;
    socket.write(exchange.bytes);
    if (exchange.chunk !== undefined) this.#pump(socket, exchange.chunk, exchange.chunkCount);
  }

  /** An exchange under way is forgotten. */
  close(): void {
    const socket = this.#socket;
    this.#socket = undefined;
    socket?.destroy();
  }

  #connect(): Socket {
    const onread = {
      buffer: received,
      callback: (byteCount: number): boolean => {
        // What a socket that was given up still brings belongs to nobody.
        if (this.#socket === socket) this.#receive(byteCount);
        return true;
      },
    };
    const socket = createConnection({ host: this.#host, port: this.#port, noDelay: true, onread });
    socket.setTimeout(SILENCE_LIMIT_MS, () => this.#broken(socket, new Error("the server fell silent")));
    socket.on("error", (error) => this.#broken(socket, error));
    socket.on("end", () => this.#broken(socket, new Error("the server closed the connection")));
    socket.on("close", () => this.#broken(socket, new Error("the connection was closed")));
    this.#socket = socket;
    return socket;
  }

  #broken(socket: Socket, reason: Error): void {
    if (this.#socket !== socket) return;
    this.close();
    this.#head = EMPTY;
    this.#hasHead = false;
    this.#parts = [];
    if (this.#exchange === undefined) return;
    this.#exchange = undefined;
    this.#listener.failed(reason);
  }

  #pump(socket: Socket, chunk: Buffer, chunksLeft: number): void {
    for (let left = chunksLeft; left > 0; left -= 1) {
      if (socket.destroyed) return;
      if (!socket.write(chunk)) {
        socket.once("drain", () => this.#pump(socket, chunk, left - 1));
        return;
      }
    }
  }

  #receive(byteCount: number): void {
    const exchange = this.#exchange;
    const socket = this.#socket;
    if (socket === undefined) return;
    if (exchange === undefined) return this.#broken(socket, new Error("bytes that nobody asked for"));
    let bodyAt = 0;
    if (!this.#hasHead) {
      bodyAt = this.#receiveHead(socket, exchange, byteCount);
      if (bodyAt < 0) return;
    }
    const bodyBytes = byteCount - bodyAt;
    this.#answer.bodyBytes += bodyBytes;
    if (exchange.keepsBody && bodyBytes > 0) this.#parts.push(Buffer.from(received.subarray(bodyAt, byteCount)));
    if (this.#answer.bodyBytes >= this.#bodyLimit) this.#finish(exchange);
  }

  /** Returns where in `received` the body begins, -1 while the head is incomplete or when it is none. */
  #receiveHead(socket: Socket, exchange: Exchange, byteCount: number): number {
    const had = this.#head.length;
    const arrived = received.subarray(0, byteCount);
    const bytes = had === 0 ? arrived : Buffer.concat([this.#head, arrived]);
    const end = bytes.indexOf(HEAD_END);
    if (end < 0) {
      this.#head = had === 0 ? Buffer.from(bytes) : bytes;
      if (bytes.length > HEAD_LIMIT_BYTES) this.#broken(socket, new Error("the head of an answer is too long"));
      return -1;
    }
    this.#head = EMPTY;
    const head = bytes.toString("latin1", 0, end);
    if (/\r\ntransfer-encoding:/i.test(head)) {
      this.#broken(socket, new Error("the server sent a chunked body"));
      return -1;
    }
    const status = Number(head.slice(9, 12));
    this.#answer.status = status;
    this.#answer.contentLength = Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? 0);
    this.#answer.bodyBytes = 0;
    this.#bodyLimit = exchange.bringsBody && status !== 204 && status !== 304 ? this.#answer.contentLength : 0;
    this.#closes = /\r\nconnection: *close/i.test(head);
    this.#hasHead = true;
    return end + HEAD_END.length - had;
  }

  #finish(exchange: Exchange): void {
    this.#hasHead = false;
    this.#exchange = undefined;
    if (this.#closes) this.close();
    this.#answer.body = "";
    if (exchange.keepsBody) {
      this.#answer.body = Buffer.concat(this.#parts).toString();
      this.#parts = [];
    }
    this.#listener.answered(this.#answer);
  }
}
