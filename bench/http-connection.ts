import { createConnection, type Socket } from "node:net";

/** An answer, its body only counted or, when asked for, kept. */
export type Answer = {
  readonly status: number;
  readonly bodyBytes: number;
  readonly contentLength: number;
  readonly body: string;
};

/** What to send: `head` ends with an empty line; `chunk` follows it `chunkCount` times. */
export type Request = {
  readonly method: string;
  readonly head: string;
  readonly chunk: Buffer | undefined;
  readonly chunkCount: number;
  readonly keepBody: boolean;
};

type Waiting = {
  readonly request: Request;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (reason: Error) => void;
};

/** Bodies up to this size travel in one write with the head. */
const ONE_WRITE_BYTES = 64 * 1024;
const HEAD_LIMIT_BYTES = 64 * 1024;
/** A server that says nothing for so long has failed. */
const SILENCE_LIMIT_MS = 60_000;

/**
 * One keep-alive HTTP/1.1 connection with one request at a time. It knows only what the object servers here send: Content-Length, and
 * no chunked bodies. Cost of a 4 KiB request: one write, one or two reads, no copy of a body that arrives.
 */
export class HttpConnection {
  readonly #host: string;
  readonly #port: number;
  #socket: Socket | undefined;
  #waiting: Waiting | undefined;
  #head: Buffer = Buffer.alloc(0);
  /** Undefined while the head is incomplete. */
  #answer: { status: number; contentLength: number; closes: boolean } | undefined;
  #bodyBytes = 0;
  #bodyLimit = 0;
  #parts: Buffer[] = [];

  constructor(host: string, port: number) {
    this.#host = host;
    this.#port = port;
  }

  /** Resolves with the whole answer; rejects when the connection breaks or falls silent. Requires: no request under way. */
  exchange(request: Request): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.#waiting = { request, resolve, reject };
      this.#send(this.#socket ?? this.#connect(), request);
    });
  }

  close(): void {
    this.#socket?.destroy();
    this.#socket = undefined;
  }

  #connect(): Socket {
    const socket = createConnection({ host: this.#host, port: this.#port, noDelay: true });
    socket.setTimeout(SILENCE_LIMIT_MS, () => socket.destroy(new Error("the server fell silent")));
    socket.on("data", (data) => this.#receive(data));
    socket.on("error", (error) => this.#broken(socket, error));
    socket.on("close", () => this.#broken(socket, new Error("the server closed the connection")));
    this.#socket = socket;
    return socket;
  }

  #broken(socket: Socket, error: Error): void {
    if (this.#socket !== socket) return;
    this.#socket = undefined;
    this.#head = Buffer.alloc(0);
    this.#answer = undefined;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.reject(error);
  }

  #send(socket: Socket, { head, chunk, chunkCount }: Request): void {
    if (chunk === undefined) {
      socket.write(head, "latin1");
    } else if (chunkCount === 1 && chunk.length <= ONE_WRITE_BYTES) {
      socket.write(Buffer.concat([Buffer.from(head, "latin1"), chunk]));
    } else {
      socket.write(head, "latin1");
      this.#pump(socket, chunk, chunkCount);
    }
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

  #receive(data: Buffer): void {
    let body = data;
    if (this.#answer === undefined) {
      const received = this.#head.length === 0 ? data : Buffer.concat([this.#head, data]);
      const end = received.indexOf("\r\n\r\n");
      if (end < 0) {
        this.#head = received;
        if (received.length > HEAD_LIMIT_BYTES) this.#socket?.destroy(new Error("the head of an answer is too long"));
        return;
      }
      this.#readHead(received.toString("latin1", 0, end));
      this.#head = Buffer.alloc(0);
      body = received.subarray(end + 4);
    }
    this.#bodyBytes += body.length;
    if (this.#waiting?.request.keepBody === true && body.length > 0) this.#parts.push(body);
    if (this.#bodyBytes >= this.#bodyLimit) this.#finish();
  }

  #readHead(head: string): void {
    const status = Number(head.slice(9, 12));
    const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
    if (/\r\ntransfer-encoding:/i.test(head)) this.#socket?.destroy(new Error("the server sent a chunked body"));
    const contentLength = Number(length ?? 0);
    this.#answer = { status, contentLength, closes: /\r\nconnection: *close/i.test(head) };
    const bodyless = this.#waiting?.request.method === "HEAD" || status === 204 || status === 304;
    this.#bodyLimit = bodyless ? 0 : contentLength;
    this.#bodyBytes = 0;
    this.#parts = [];
  }

  #finish(): void {
    const { answer, waiting } = { answer: this.#answer, waiting: this.#waiting };
    this.#answer = undefined;
    this.#waiting = undefined;
    if (answer === undefined || waiting === undefined) return;
    if (answer.closes) this.close();
    const body = waiting.request.keepBody ? Buffer.concat(this.#parts).toString() : "";
    waiting.resolve({ status: answer.status, contentLength: answer.contentLength, bodyBytes: this.#bodyBytes, body });
  }
}
