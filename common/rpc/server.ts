import { randomBytes } from "node:crypto";
import { chmodSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { RingsteadError } from "../errors.ts";
import type { Log } from "../log.ts";
import { releaseMemory } from "../release-memory.ts";
import {
  ALL_PARTS,
  EMPTY_BODY,
  encodeFrame,
  FRAME_ERROR,
  FRAME_HELLO,
  FRAME_REPLY,
  FRAME_REQUEST,
  type Frame,
  FrameDecoder,
} from "./frame.ts";
import { FrameWriter } from "./frame-writer.ts";
import { CHALLENGE_BYTES, isProof, proofOf } from "./handshake.ts";

/**
 * Answers one request. May throw a RingsteadError before it has answered anything. The body is the handler's until it has answered all
 * parts: then its memory is given back.
 */
export type RpcHandler = (header: readonly unknown[], body: Buffer, reply: RpcReply) => void;

/** How a handler answers: once for each part. A request has one part unless `expect` said otherwise before. */
export type RpcReply = {
  /** The request has `parts` addressees. Requires: 1 ≤ parts ≤ PARTS_LIMIT, nothing answered yet. */
  expect(parts: number): void;
  ok(header: readonly unknown[], body?: Uint8Array, part?: number): void;
  /** The same with a body whose memory nobody else uses, now or later: it is given back once it is sent. */
  give(header: readonly unknown[], body: Uint8Array, part?: number): void;
  error(error: unknown, part?: number): void;
};

/** Requests of one connection that may be unanswered; more wait in the socket. */
const IN_FLIGHT_LIMIT = 4096;
const HANDSHAKE_TIMEOUT_MS = 5000;

const toWireError = (error: unknown): readonly unknown[] =>
  error instanceof RingsteadError ? [error.code, error.message, error.fields] : ["internal", "internal error", {}];

/** What the requests of one connection share. */
class Connection {
  readonly socket: Socket;
  readonly writer: FrameWriter;
  readonly #log: Log;
  #inFlight = 0;

  constructor(socket: Socket, log: Log) {
    this.socket = socket;
    this.writer = new FrameWriter(socket);
    this.#log = log;
  }

  begin(): void {
    this.#inFlight += 1;
    if (this.#inFlight >= IN_FLIGHT_LIMIT) this.socket.pause();
  }

  finish(): void {
    this.#inFlight -= 1;
    if (this.socket.isPaused() && this.#inFlight < IN_FLIGHT_LIMIT / 2) this.socket.resume();
  }

  noteUnexpected(error: unknown): void {
    if (!(error instanceof RingsteadError)) this.#log.error("a request failed unexpectedly", { error });
  }
}

class Reply implements RpcReply {
  readonly #connection: Connection;
  readonly #request: Frame;
  #unanswered = 1;

  constructor(connection: Connection, request: Frame) {
    this.#connection = connection;
    this.#request = request;
  }

  expect(parts: number): void {
    this.#unanswered = parts;
  }

  ok(header: readonly unknown[], body: Uint8Array = EMPTY_BODY, part = 0): void {
    this.#reply(header, body, part, false);
  }

  give(header: readonly unknown[], body: Uint8Array, part = 0): void {
    this.#reply(header, body, part, true);
  }

  #reply(header: readonly unknown[], body: Uint8Array, part: number, isGiven: boolean): void {
    // An answer that is too large for the wire is none yet.
    const head = encodeFrame(FRAME_REPLY, this.#request.id, header, body.length, part);
    this.#connection.writer.write(head, body, isGiven);
    this.#answered(1);
  }

  error(error: unknown, part = ALL_PARTS): void {
    this.#answered(part === ALL_PARTS ? this.#unanswered : 1);
    this.#connection.noteUnexpected(error);
    this.#connection.writer.write(encodeFrame(FRAME_ERROR, this.#request.id, toWireError(error), 0, part), EMPTY_BODY);
  }

  #answered(parts: number): void {
    this.#unanswered -= parts;
    if (this.#unanswered > 0) return;
    if (this.#request.ownsBody) releaseMemory(this.#request.body);
    this.#connection.finish();
  }
}

/** The listening side. Each connection proves the cluster key before its first request is looked at. */
export class RpcServer implements AsyncDisposable {
  readonly #servers: Server[] = [];
  readonly #accept: (socket: Socket) => void;
  readonly #connections = new Set<Socket>();
  readonly #log: Log;

  constructor(clusterKey: Buffer, handler: RpcHandler, log: Log) {
    this.#log = log;
    this.#accept = (socket) => this.#serve(socket, clusterKey, handler);
  }

  /**
   * Listens on a Unix socket that only this user may open, replacing a stale one, or on a TCP port for other hosts. May be called for
   * several addresses.
   */
  listen(address: string | { readonly host: string; readonly port: number }): Promise<void> {
    const server = createServer({ noDelay: true, keepAlive: true }, this.#accept);
    this.#servers.push(server);
    if (typeof address === "string") rmSync(address, { force: true });
    return new Promise((resolve, reject) => {
      server.once("error", reject);
      server.listen(typeof address === "string" ? { path: address } : address, () => {
        if (typeof address === "string") chmodSync(address, 0o600);
        resolve();
      });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#connections) socket.destroy();
    await Promise.all(this.#servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve()))));
  }

  #serve(socket: Socket, clusterKey: Buffer, handler: RpcHandler): void {
    this.#connections.add(socket);
    const connection = new Connection(socket, this.#log);
    const { writer } = connection;
    const challenge = randomBytes(CHALLENGE_BYTES);
    let isTrusted = false;
    const handshakeTimer = setTimeout(() => socket.destroy(), HANDSHAKE_TIMEOUT_MS);
    writer.write(encodeFrame(FRAME_HELLO, 0, [], CHALLENGE_BYTES), challenge);

    const onFrame = (frame: Frame): void => {
      if (!isTrusted) {
        const clientChallenge = frame.body.subarray(0, CHALLENGE_BYTES);
        const proof = frame.body.subarray(CHALLENGE_BYTES);
        if (frame.type !== FRAME_HELLO || !isProof(proof, proofOf(clusterKey, "client", challenge, clientChallenge))) {
          this.#log.warn("refused an RPC connection that does not know the cluster key");
          socket.destroy();
          return;
        }
        isTrusted = true;
        clearTimeout(handshakeTimer);
        const answer = proofOf(clusterKey, "server", challenge, clientChallenge);
        writer.write(encodeFrame(FRAME_HELLO, 0, [], answer.length), answer);
        return;
      }
      if (frame.type !== FRAME_REQUEST) return;
      connection.begin();
      const reply = new Reply(connection, frame);
      try {
        handler(frame.header, frame.body, reply);
      } catch (error) {
        reply.error(error);
      }
    };
    const decoder = new FrameDecoder(onFrame);
    socket.on("data", (chunk: Buffer) => {
      try {
        if (decoder.push(chunk)) releaseMemory(chunk);
      } catch (error) {
        this.#log.warn("closed an RPC connection", { error: String(error) });
        socket.destroy();
      }
    });
    socket.on("error", () => socket.destroy());
    socket.on("close", () => {
      clearTimeout(handshakeTimer);
      this.#connections.delete(socket);
    });
  }
}
