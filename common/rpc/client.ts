import { randomBytes } from "node:crypto";
import { createConnection, type Socket } from "node:net";
import { RingsteadError } from "../errors.ts";
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

/** Called once: with an error, or with the answer. */
export type RpcCallback = (error: RingsteadError | undefined, header: readonly unknown[], body: Buffer) => void;

type PendingCall = { readonly callback: RpcCallback; readonly deadlineMs: number };

/** Requests that may wait for one peer; the next is refused with "rpc-overloaded". */
const PENDING_LIMIT = 16_384;
/** How often deadlines are looked at: a time-out is late by at most this. */
const TICK_MS = 50;
const RECONNECT_FIRST_MS = 20;
const RECONNECT_LIMIT_MS = 1000;
const NO_HEADER: readonly unknown[] = [];

/**
 * A connection to one peer, opened when first needed and again after it broke. Requests of one connection are answered in any
 * order. A callback costs less than a promise here: a PUT sends nine messages.
 */
export class RpcClient implements Disposable {
  readonly #socketPath: string;
  readonly #clusterKey: Buffer;
  readonly #pending = new Map<number, PendingCall>();
  #socket: Socket | undefined;
  #writer: FrameWriter | undefined;
  #queuedBeforeHello: { head: Buffer; body: Uint8Array }[] = [];
  #isTrusted = false;
  #isClosed = false;
  #nextId = 1;
  #retryAtMs = 0;
  #retryDelayMs = RECONNECT_FIRST_MS;
  readonly #ticker: NodeJS.Timeout;

  constructor(socketPath: string, clusterKey: Buffer) {
    this.#socketPath = socketPath;
    this.#clusterKey = clusterKey;
    this.#ticker = setInterval(() => this.#expire(), TICK_MS);
    this.#ticker.unref();
  }

  /** Sends a request. `callback` gets "rpc-unreachable", "rpc-timeout", "rpc-overloaded", the peer's error, or the answer. */
  call(header: readonly unknown[], body: Uint8Array | undefined, timeoutMs: number, callback: RpcCallback): void {
    if (this.#isClosed || !this.#connect()) {
      queueMicrotask(() =>
        callback(new RingsteadError("rpc-unreachable", "the peer cannot be reached"), NO_HEADER, EMPTY_BODY),
      );
      return;
    }
    if (this.#pending.size >= PENDING_LIMIT) {
      queueMicrotask(() =>
        callback(new RingsteadError("rpc-overloaded", "too many requests wait for the peer"), NO_HEADER, EMPTY_BODY),
      );
      return;
    }
    const id = this.#nextId;
    this.#nextId = id === 0xffffffff ? 1 : id + 1;
    const bytes = body ?? EMPTY_BODY;
    const head = encodeFrame(FRAME_REQUEST, id, header, bytes.length);
    this.#pending.set(id, { callback, deadlineMs: performance.now() + timeoutMs });
    if (this.#isTrusted && this.#writer !== undefined) this.#writer.write(head, bytes);
    else this.#queuedBeforeHello.push({ head, body: bytes });
  }

  [Symbol.dispose](): void {
    this.#isClosed = true;
    clearInterval(this.#ticker);
    this.#socket?.destroy();
    this.#failAll();
  }

  #connect(): boolean {
    if (this.#socket !== undefined) return true;
    if (performance.now() < this.#retryAtMs) return false;
    const socket = createConnection(this.#socketPath);
    const writer = new FrameWriter(socket);
    this.#socket = socket;
    this.#writer = writer;
    const clientChallenge = randomBytes(CHALLENGE_BYTES);
    let serverChallenge: Buffer | undefined;
    const onFrame = (frame: Frame): void => {
      if (this.#isTrusted) {
        this.#deliver(frame);
        return;
      }
      if (frame.type !== FRAME_HELLO) throw new RingsteadError("rpc-malformed", "the peer did not say hello");
      if (serverChallenge === undefined) {
        serverChallenge = Buffer.from(frame.body);
        const proof = proofOf(this.#clusterKey, "client", serverChallenge, clientChallenge);
        const hello = Buffer.concat([clientChallenge, proof]);
        writer.write(encodeFrame(FRAME_HELLO, 0, [], hello.length), hello);
        return;
      }
      if (!isProof(frame.body, proofOf(this.#clusterKey, "server", serverChallenge, clientChallenge))) {
        throw new RingsteadError("rpc-untrusted", "the peer does not know the cluster key");
      }
      this.#isTrusted = true;
      this.#retryDelayMs = RECONNECT_FIRST_MS;
      for (const { head, body } of this.#queuedBeforeHello) writer.write(head, body);
      this.#queuedBeforeHello = [];
    };
    const decoder = new FrameDecoder(onFrame);
    socket.on("data", (chunk: Buffer) => {
      try {
        decoder.push(chunk);
      } catch (error) {
        if (!(error instanceof RingsteadError)) throw error;
        socket.destroy();
      }
    });
    socket.on("error", () => socket.destroy());
    socket.on("close", () => {
      if (this.#socket !== socket) return;
      this.#socket = undefined;
      this.#writer = undefined;
      this.#isTrusted = false;
      this.#queuedBeforeHello = [];
      this.#retryAtMs = performance.now() + this.#retryDelayMs;
      this.#retryDelayMs = Math.min(this.#retryDelayMs * 2, RECONNECT_LIMIT_MS);
      this.#failAll();
    });
    return true;
  }

  #deliver(frame: Frame): void {
    const call = this.#pending.get(frame.id);
    if (call === undefined) return;
    this.#pending.delete(frame.id);
    if (frame.type === FRAME_REPLY) {
      call.callback(undefined, frame.header, frame.body);
    } else if (frame.type === FRAME_ERROR) {
      const [code, message, fields] = frame.header;
      call.callback(
        new RingsteadError(
          String(code),
          String(message),
          typeof fields === "object" && fields !== null ? { ...fields } : {},
        ),
        NO_HEADER,
        EMPTY_BODY,
      );
    }
  }

  #expire(): void {
    const nowMs = performance.now();
    for (const [id, call] of this.#pending) {
      if (call.deadlineMs > nowMs) continue;
      this.#pending.delete(id);
      call.callback(new RingsteadError("rpc-timeout", "the peer did not answer in time"), NO_HEADER, EMPTY_BODY);
    }
  }

  #failAll(): void {
    const calls = [...this.#pending.values()];
    this.#pending.clear();
    for (const call of calls) {
      call.callback(new RingsteadError("rpc-unreachable", "the connection to the peer broke"), NO_HEADER, EMPTY_BODY);
    }
  }
}
