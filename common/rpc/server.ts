import { randomBytes } from "node:crypto";
import { chmodSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { RingsteadError } from "../errors.ts";
import type { Log } from "../log.ts";
import {
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

/** Answers one request; `undefined` as answer means that the request wants none. May throw or reject with a RingsteadError. */
export type RpcHandler = (header: readonly unknown[], body: Buffer, reply: RpcReply) => void;

/** How a handler answers, once. */
export type RpcReply = {
  ok(header: readonly unknown[], body?: Uint8Array): void;
  error(error: unknown): void;
};

/** Requests of one connection that may be unanswered; more wait in the socket. */
const IN_FLIGHT_LIMIT = 4096;
const HANDSHAKE_TIMEOUT_MS = 5000;

const toWireError = (error: unknown): readonly unknown[] =>
  error instanceof RingsteadError ? [error.code, error.message, error.fields] : ["internal", "internal error", {}];

/** The listening side. Each connection proves the cluster key before its first request is looked at. */
export class RpcServer implements AsyncDisposable {
  readonly #server: Server;
  readonly #connections = new Set<Socket>();
  readonly #log: Log;

  constructor(clusterKey: Buffer, handler: RpcHandler, log: Log) {
    this.#log = log;
    this.#server = createServer((socket) => this.#serve(socket, clusterKey, handler));
  }

  /** Listens on a Unix socket that only this user may open, replacing a stale one. */
  listen(socketPath: string): Promise<void> {
    rmSync(socketPath, { force: true });
    return new Promise((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(socketPath, () => {
        chmodSync(socketPath, 0o600);
        resolve();
      });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#connections) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #serve(socket: Socket, clusterKey: Buffer, handler: RpcHandler): void {
    this.#connections.add(socket);
    const writer = new FrameWriter(socket);
    const challenge = randomBytes(CHALLENGE_BYTES);
    let isTrusted = false;
    let inFlight = 0;
    const handshakeTimer = setTimeout(() => socket.destroy(), HANDSHAKE_TIMEOUT_MS);
    writer.write(encodeFrame(FRAME_HELLO, 0, [], CHALLENGE_BYTES), challenge);

    const finish = (): void => {
      inFlight -= 1;
      if (socket.isPaused() && inFlight < IN_FLIGHT_LIMIT / 2) socket.resume();
    };
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
      inFlight += 1;
      if (inFlight >= IN_FLIGHT_LIMIT) socket.pause();
      const { id } = frame;
      const reply: RpcReply = {
        ok(header, body = EMPTY_BODY) {
          finish();
          writer.write(encodeFrame(FRAME_REPLY, id, header, body.length), body);
        },
        error: (error) => {
          finish();
          if (!(error instanceof RingsteadError))
            this.#log.error("a request failed unexpectedly", { error: String(error) });
          writer.write(encodeFrame(FRAME_ERROR, id, toWireError(error), 0), EMPTY_BODY);
        },
      };
      try {
        handler(frame.header, frame.body, reply);
      } catch (error) {
        reply.error(error);
      }
    };
    const decoder = new FrameDecoder(onFrame);
    socket.on("data", (chunk: Buffer) => {
      try {
        decoder.push(chunk);
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
