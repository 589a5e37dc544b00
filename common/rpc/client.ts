import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { createConnection, type Socket, type TcpNetConnectOpts } from "node:net";
import { type ConnectionOptions, connect as connectTls, TLSSocket } from "node:tls";
import { type Clock, systemClock } from "../clock.ts";
import { RingsteadError } from "../errors.ts";
import {
  ALL_PARTS,
  EMPTY_BODY,
  encodeFrame,
  FAREWELL_ID,
  FRAME_ERROR,
  FRAME_HELLO,
  FRAME_REPLY,
  FRAME_REQUEST,
  type Frame,
  FrameDecoder,
  HELLO_LIMIT_BYTES,
  PARTS_LIMIT,
} from "./frame.ts";
import { FrameWriter } from "./frame-writer.ts";
import {
  CHALLENGE_BYTES,
  commonVersion,
  helloHeader,
  isProof,
  proofOf,
  readIntroduction,
  refusalOf,
  WIRE_VERSIONS,
  type WireVersions,
} from "./handshake.ts";
import { type PeerRefusal, tellRefused, tellTrusted } from "./peer-refusals.ts";
import { bindingOf, clientTls, handshakeRefusal, type TcpAddress } from "./secure-transport.ts";

/** Called once for each part of the request: with an error, or with the answer. */
export type RpcCallback = (
  error: RingsteadError | undefined,
  header: readonly unknown[],
  body: Buffer,
  part: number,
) => void;

/** `unanswered` has a bit for each part. */
type PendingCall = { readonly callback: RpcCallback; readonly deadlineMs: number; unanswered: number };

/** Requests that may wait for one peer; the next is refused with "rpc-overloaded". */
const PENDING_LIMIT = 16_384;
/**
 * Bytes for one peer that its socket did not take yet; the next request is refused with "rpc-overloaded". A peer that is stopped reads
 * nothing, and what was meant for it stays in this process's memory long after its time is over. More than twice what callers have under
 * way to a peer that reads (a proxy takes on 40 MiB of bodies, `proxy/object-service/transfer-budget.ts`): what was handed to the socket
 * together counts until all of it is gone, though most of it may be answered.
 */
const UNSENT_LIMIT_BYTES = 96 * 1024 * 1024;
/** How often deadlines are looked at: a time-out is late by at most this. */
const TICK_MS = 50;
/** Answers are read into one buffer and copied out: a buffer for each read costs more, in memory and in collecting it. */
const READ_BUFFER_BYTES = 256 * 1024;
const RECONNECT_FIRST_MS = 20;
/** For a host that does not answer. */
const RECONNECT_LIMIT_MS = 1000;
/** A Unix socket without a listener refuses at once: trying it costs next to nothing, and a process that is back is wanted back. */
const LOCAL_RECONNECT_LIMIT_MS = 100;
const NO_HEADER: readonly unknown[] = [];

/** The path of a Unix socket, or where a peer on another host listens. */
export type RpcPeer = string | TcpAddress;

/** Small messages must not wait for each other; a peer that lost its power is noticed even between requests. */
const TCP_OPTIONS = {
  noDelay: true,
  keepAlive: true,
  keepAliveInitialDelay: 10_000,
} as const satisfies Partial<TcpNetConnectOpts>;

/** `onread` is documented, and missing in the types. */
const tlsOptions = (
  { host, port }: TcpAddress,
  tls: ConnectionOptions | undefined,
  onread: TcpNetConnectOpts["onread"],
): ConnectionOptions => {
  const options = { host, port, ...TCP_OPTIONS, ...tls, onread };
  return options;
};

/** For tests of two versions, and of clocks that differ. */
export type RpcSides = { readonly versions?: WireVersions; readonly clock?: Clock };

/** Of what a peer says of its refusal. */
const WORDS_LIMIT_CHARACTERS = 300;
const NO_BINDING = EMPTY_BODY;

/**
 * A connection to one peer, opened when first needed and again after it broke; in TLS where it leaves this host. Requests of one connection are
 * answered in any order. A callback costs less than a promise here: a PUT sends nine messages.
 */
export class RpcClient implements Disposable {
  readonly #peer: RpcPeer;
  readonly #clusterKey: Buffer;
  readonly #pending = new Map<number, PendingCall>();
  #socket: Socket | undefined;
  #writer: FrameWriter | undefined;
  #queuedBeforeHello: { head: Buffer; body: Uint8Array }[] = [];
  #queuedBytes = 0;
  #isTrusted = false;
  /** Of the connection, where one broke before it. */
  #returnedAtMs: number | undefined;
  #isClosed = false;
  #nextId = 1;
  #retryAtMs = 0;
  #retryDelayMs = RECONNECT_FIRST_MS;
  readonly #ticker: NodeJS.Timeout;
  readonly #tls: ConnectionOptions | undefined;
  readonly #versions: WireVersions;
  readonly #clock: Clock;
  #wireVersion: number | undefined;
  /** Why the last connection was refused, by either side. */
  #refusal: string | undefined;

  /** Throws RingsteadError `invalid-config` where the peer's TLS files cannot be used. */
  constructor(peer: RpcPeer, clusterKey: Buffer, { versions = WIRE_VERSIONS, clock = systemClock }: RpcSides = {}) {
    this.#peer = peer;
    this.#clusterKey = clusterKey;
    this.#tls = typeof peer === "string" ? undefined : clientTls(clusterKey, peer);
    this.#versions = versions;
    this.#clock = clock;
    this.#ticker = setInterval(() => this.#expire(), TICK_MS);
    this.#ticker.unref();
  }

  /**
   * Sends a request with `parts` addressees. `callback` gets, for each, "rpc-unsent", "rpc-unreachable", "rpc-timeout", "rpc-overloaded", the
   * peer's error, or the answer; never before this returns. "rpc-unsent" is said where the peer did nothing of it, and never will.
   */
  call(
    header: readonly unknown[],
    body: Uint8Array | undefined,
    timeoutMs: number,
    callback: RpcCallback,
    parts = 1,
  ): void {
    assert(parts >= 1 && parts <= PARTS_LIMIT, "a request has between 1 and 16 addressees");
    const call: PendingCall = {
      callback,
      deadlineMs: performance.now() + timeoutMs,
      unanswered: (1 << parts) - 1,
    };
    if (this.#isClosed || !this.#connect()) {
      queueMicrotask(() => fail(call, this.#unreachable("rpc-unsent", "the peer cannot be reached")));
      return;
    }
    if (this.#pending.size >= PENDING_LIMIT) {
      queueMicrotask(() => fail(call, new RingsteadError("rpc-overloaded", "too many requests wait for the peer")));
      return;
    }
    if (this.unsentBytes >= UNSENT_LIMIT_BYTES) {
      queueMicrotask(() =>
        fail(call, new RingsteadError("rpc-overloaded", "the peer does not read what is sent to it")),
      );
      return;
    }
    const id = this.#nextId;
    this.#nextId = id === 0xffffffff ? 1 : id + 1;
    const bytes = body ?? EMPTY_BODY;
    const head = encodeFrame(FRAME_REQUEST, id, header, bytes.length);
    this.#pending.set(id, call);
    if (this.#isTrusted && this.#writer !== undefined) this.#writer.write(head, bytes);
    else {
      this.#queuedBeforeHello.push({ head, body: bytes });
      this.#queuedBytes += head.length + bytes.length;
    }
  }

  /** What waits in this process's memory for the peer to read; at most one request more than its limit. */
  get unsentBytes(): number {
    return this.#queuedBytes + (this.#writer?.unsentBytes ?? 0);
  }

  /** The version that both sides agreed on; undefined while there is no connection. */
  get wireVersion(): number | undefined {
    return this.#wireVersion;
  }

  /** Whether a connection broke, and there is none since or one that is not `ms` old: the peer's process may just have been restarted. */
  hasReturnedWithin(ms: number): boolean {
    return this.#returnedAtMs !== undefined && performance.now() - this.#returnedAtMs < ms;
  }

  [Symbol.dispose](): void {
    this.#isClosed = true;
    clearInterval(this.#ticker);
    this.#socket?.destroy();
    this.#failAll("rpc-unreachable");
  }

  #connect(): boolean {
    if (this.#socket !== undefined) return true;
    if (performance.now() < this.#retryAtMs) return false;
    const buffer = Buffer.allocUnsafeSlow(READ_BUFFER_BYTES);
    const onread = {
      buffer,
      callback: (count: number): boolean => {
        try {
          decoder.push(buffer, true, count);
        } catch (error) {
          if (!(error instanceof RingsteadError)) throw error;
          this.#refuse({ code: error.code, reason: error.message, remedy: MALFORMED_REMEDY });
          socket.destroy();
        }
        return true;
      },
    };
    const fromMs = this.#clock.nowMs();
    const socket: Socket =
      typeof this.#peer === "string"
        ? createConnection({ path: this.#peer, onread })
        : connectTls(tlsOptions(this.#peer, this.#tls, onread));
    const writer = new FrameWriter(socket);
    this.#socket = socket;
    this.#writer = writer;
    const clientChallenge = randomBytes(CHALLENGE_BYTES);
    let serverChallenge: Buffer | undefined;
    let isRefused = false;
    const onFrame = (frame: Frame): void => {
      if (socket.destroyed) return;
      if (this.#isTrusted) {
        this.#deliver(frame);
        return;
      }
      if (frame.type === FRAME_ERROR) {
        // What both sides find is said in this one's words.
        if (!isRefused) this.#refuse(wordsOf(frame));
        socket.destroy();
        return;
      }
      if (frame.type !== FRAME_HELLO) throw new RingsteadError("rpc-malformed", "the peer did not say hello");
      const binding = socket instanceof TLSSocket ? bindingOf(socket) : NO_BINDING;
      if (serverChallenge === undefined) {
        serverChallenge = Buffer.from(frame.body);
        const theirs = readIntroduction(frame.header);
        const refusal = refusalOf(this.#versions, theirs, fromMs, this.#clock.nowMs());
        isRefused = refusal !== undefined;
        if (refusal !== undefined) this.#refuse(refusal);
        this.#wireVersion = commonVersion(this.#versions, theirs.versions);
        // Also to a peer that is refused: so its log and status say the same.
        const proof = proofOf(this.#clusterKey, "client", serverChallenge, clientChallenge, binding);
        const hello = Buffer.concat([clientChallenge, proof]);
        writer.write(
          encodeFrame(FRAME_HELLO, 0, helloHeader(this.#versions, this.#clock.nowMs()), hello.length),
          hello,
        );
        return;
      }
      if (!isProof(frame.body, proofOf(this.#clusterKey, "server", serverChallenge, clientChallenge, binding))) {
        throw new RingsteadError("rpc-untrusted", "the peer does not know the cluster key");
      }
      if (isRefused) {
        socket.destroy();
        return;
      }
      this.#isTrusted = true;
      if (this.#returnedAtMs !== undefined) this.#returnedAtMs = performance.now();
      this.#refusal = undefined;
      decoder.trust();
      tellTrusted(this.#peerName);
      this.#retryDelayMs = RECONNECT_FIRST_MS;
      for (const { head, body } of this.#queuedBeforeHello) writer.write(head, body);
      this.#queuedBeforeHello = [];
      this.#queuedBytes = 0;
    };
    const decoder = new FrameDecoder(onFrame, HELLO_LIMIT_BYTES);
    socket.on("error", (error) => {
      const refusal = socket instanceof TLSSocket ? handshakeRefusal(error) : undefined;
      if (refusal !== undefined) this.#refuse(refusal);
      socket.destroy();
    });
    socket.on("close", () => {
      if (this.#socket !== socket) return;
      this.#socket = undefined;
      this.#writer = undefined;
      const wasTrusted = this.#isTrusted;
      this.#returnedAtMs = Number.POSITIVE_INFINITY;
      this.#isTrusted = false;
      this.#wireVersion = undefined;
      this.#queuedBeforeHello = [];
      this.#queuedBytes = 0;
      this.#retryAtMs = performance.now() + this.#retryDelayMs;
      const limitMs = typeof this.#peer === "string" ? LOCAL_RECONNECT_LIMIT_MS : RECONNECT_LIMIT_MS;
      this.#retryDelayMs = Math.min(this.#retryDelayMs * 2, limitMs);
      this.#failAll(wasTrusted ? "rpc-unreachable" : "rpc-unsent");
    });
    return true;
  }

  #deliver(frame: Frame): void {
    const call = this.#pending.get(frame.id);
    if (call === undefined) {
      if (frame.id === FAREWELL_ID) this.#leave();
      return;
    }
    const isForAll = frame.part === ALL_PARTS;
    const bit = isForAll ? call.unanswered : 1 << frame.part;
    if ((call.unanswered & bit) === 0) return;
    if (frame.type === FRAME_ERROR) {
      const [code, message, fields] = frame.header;
      const error = new RingsteadError(
        String(code),
        String(message),
        typeof fields === "object" && fields !== null ? { ...fields } : {},
      );
      if (call.unanswered === bit) this.#pending.delete(frame.id);
      if (isForAll) {
        fail(call, error);
        return;
      }
      call.unanswered &= ~bit;
      call.callback(error, NO_HEADER, EMPTY_BODY, frame.part);
    } else if (frame.type === FRAME_REPLY && !isForAll) {
      call.unanswered &= ~bit;
      if (call.unanswered === 0) this.#pending.delete(frame.id);
      call.callback(undefined, frame.header, frame.body, frame.part);
    }
  }

  #expire(): void {
    const nowMs = performance.now();
    for (const [id, call] of this.#pending) {
      // Calls are kept in the order in which they were made, but not all have the same time-out.
      if (call.deadlineMs > nowMs) continue;
      this.#pending.delete(id);
      fail(call, new RingsteadError("rpc-timeout", "the peer did not answer in time"));
    }
  }

  /** The peer ends, and has answered all that it will ever do of what it was sent. */
  #leave(): void {
    this.#socket?.destroy();
    // What is asked until the socket is closed is not sent either.
    this.#isTrusted = false;
    this.#failAll("rpc-unsent");
  }

  #failAll(code: "rpc-unsent" | "rpc-unreachable"): void {
    const calls = [...this.#pending.values()];
    this.#pending.clear();
    const error = this.#unreachable(code, "the connection to the peer broke");
    for (const call of calls) fail(call, error);
  }

  get #peerName(): string {
    return typeof this.#peer === "string" ? this.#peer : `${this.#peer.host}:${this.#peer.port}`;
  }

  #unreachable(code: "rpc-unsent" | "rpc-unreachable", message: string): RingsteadError {
    const why = this.#refusal === undefined ? "" : `: ${this.#refusal}`;
    return new RingsteadError(code, `${message}${why}`);
  }

  #refuse(refusal: Pick<PeerRefusal, "code" | "reason" | "remedy">): void {
    this.#refusal = refusal.reason;
    tellRefused({ side: "client", peer: this.#peerName, ...refusal });
  }
}

const MALFORMED_REMEDY = "see what listens there: a node of another version, or another program";

/** What a server says of its refusal before it closes. */
const wordsOf = ({ header: [code, message, fields] }: Frame): Pick<PeerRefusal, "code" | "reason" | "remedy"> => {
  const words = (value: unknown, otherwise: string): string =>
    typeof value === "string" ? value.slice(0, WORDS_LIMIT_CHARACTERS) : otherwise;
  const remedy: unknown =
    typeof fields === "object" && fields !== null && "remedy" in fields ? fields.remedy : undefined;
  return {
    code: words(code, "rpc-refused"),
    reason: `it refused this node, of which it says: ${words(message, "it did not say why")}`,
    remedy: words(remedy, "its log says more"),
  };
};

/** Tells all parts that were not answered. */
const fail = (call: PendingCall, error: RingsteadError): void => {
  const { unanswered } = call;
  call.unanswered = 0;
  for (let part = 0; part < PARTS_LIMIT; part++) {
    if ((unanswered & (1 << part)) !== 0) call.callback(error, NO_HEADER, EMPTY_BODY, part);
  }
};
