import { randomBytes } from "node:crypto";
import { chmodSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { createServer as createTlsServer, TLSSocket, type Server as TlsServer } from "node:tls";
import { type Clock, systemClock } from "../clock.ts";
import { RingsteadError } from "../errors.ts";
import { bindServer } from "../listeners.ts";
import type { Log } from "../log.ts";
import { releaseMemory } from "../release-memory.ts";
import { sleep } from "../worker.ts";
import {
  ALL_PARTS,
  EMPTY_BODY,
  FAREWELL_ID,
  encodeFrame,
  FRAME_ERROR,
  FRAME_HELLO,
  FRAME_REPLY,
  FRAME_REQUEST,
  type Frame,
  FrameDecoder,
  HELLO_LIMIT_BYTES,
} from "./frame.ts";
import { FrameWriter } from "./frame-writer.ts";
import {
  CHALLENGE_BYTES,
  helloHeader,
  isProof,
  proofOf,
  readIntroduction,
  refusalOf,
  WIRE_VERSIONS,
  type WireVersions,
} from "./handshake.ts";
import { type PeerRefusal, tellRefused } from "./peer-refusals.ts";
import { bindingOf, handshakeRefusal, serverTls, type TcpAddress } from "./secure-transport.ts";

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
/** Answers of one connection that its peer did not take yet: until it has, its further requests wait. */
const UNSENT_LIMIT_BYTES = 64 * 1024 * 1024;
/** From the first byte to the end of the hello, TLS included. */
const HELLO_LIMIT_MS = 5000;
/**
 * Connections that have not said hello. Of more, the oldest is closed: a peer says hello in milliseconds, so that who opens connections without
 * end keeps nobody out.
 */
const STRANGERS_LIMIT = 128;
/** What requests under way get when the server ends: they are writes that wait for a sync, not more. */
const DRAIN_LIMIT_MS = 3000;
const DRAIN_POLL_MS = 5;
/** What begun work gets that needs further requests, while all others wait. */
const BEGUN_WORK_LIMIT_MS = 3000;
/** What peers get to close their connection once they were told that the server ends. */
const FAREWELL_LIMIT_MS = 500;
/** Of all kinds on one address; what comes beyond it is closed at once. */
const CONNECTIONS_LIMIT = 4096;
const NO_BINDING = EMPTY_BODY;

const PROGRAM_REMEDY = "if it is a Ringstead node see what its log says; if it is not, keep it away from the RPC port";

const until = async (isSo: () => boolean, limitMs: number): Promise<void> => {
  const deadline = performance.now() + limitMs;
  while (!isSo() && performance.now() < deadline) await sleep(DRAIN_POLL_MS);
};

const toWireError = (error: unknown): readonly unknown[] =>
  error instanceof RingsteadError ? [error.code, error.message, error.fields] : ["internal", "internal error", {}];

/** What the requests of one connection share. */
class Connection {
  readonly socket: Socket;
  readonly writer: FrameWriter;
  readonly #log: Log;
  #inFlight = 0;
  #held: Frame[] = [];
  #heldFrom = 0;
  #isRelieving = false;
  #isOver = false;
  /** It has said hello, and proved to know the key. */
  isTrusted = false;
  #handle: ((frame: Frame) => void) | undefined;

  constructor(socket: Socket, log: Log) {
    this.socket = socket;
    this.writer = new FrameWriter(socket);
    this.#log = log;
  }

  begin(): void {
    this.#inFlight += 1;
  }

  finish(): void {
    this.#inFlight -= 1;
    this.relieve();
  }

  /** Takes a request on, or keeps it until there is room; those of one chunk may wait here, further ones in the socket. */
  take(frame: Frame, handle: (frame: Frame) => void): void {
    if (this.#isOver) return;
    if (this.#heldFrom === this.#held.length && !this.#isFull()) {
      handle(frame);
      return;
    }
    this.#held.push(frame);
    this.#handle = handle;
    this.socket.pause();
  }

  /** Goes on with what was kept, once there is room. */
  relieve(): void {
    if (this.#heldFrom === this.#held.length || this.#isRelieving) return;
    this.#isRelieving = true;
    while (this.#heldFrom < this.#held.length && !this.#isFull() && !this.#isOver && !this.socket.destroyed) {
      const frame = this.#held[this.#heldFrom++];
      if (frame !== undefined) this.#handle?.(frame);
    }
    this.#isRelieving = false;
    if (this.#heldFrom < this.#held.length) return;
    this.#held = [];
    this.#heldFrom = 0;
    this.socket.resume();
  }

  /** Something is not answered, or an answer not taken. */
  get isBusy(): boolean {
    return this.#inFlight > 0 || this.writer.unsentBytes > 0;
  }

  /**
   * Takes nothing on any more. Where all that was taken on is answered, the peer is told, so that it knows of what is on its way here that nothing was
   * or will be done of it.
   */
  end(): void {
    this.#isOver = true;
    if (this.isBusy || !this.isTrusted) {
      this.socket.destroy();
      return;
    }
    // The peer closes: with bytes of it unread here, a close would take the farewell from it.
    this.socket.end(encodeFrame(FRAME_REPLY, FAREWELL_ID, [], 0));
  }

  #isFull(): boolean {
    return this.#inFlight >= IN_FLIGHT_LIMIT || this.writer.unsentBytes >= UNSENT_LIMIT_BYTES;
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

type Refusing = Pick<PeerRefusal, "code" | "reason" | "remedy">;

/** What a service has begun that takes several requests: a server that ends gives it some seconds. */
export type BegunWork = {
  isUnderWay(): boolean;
  /** Whether a request may be part of it. */
  admits(header: readonly unknown[]): boolean;
};

/** `versions` and `clock` for tests of two versions, and of clocks that differ. */
export type RpcServerOptions = {
  readonly begunWork?: BegunWork;
  readonly versions?: WireVersions;
  readonly clock?: Clock;
};

/** A connection until it has said hello. */
type Stranger = { readonly socket: Socket; readonly peer: string; readonly timer: NodeJS.Timeout };

const addressOf = (socket: Socket): string => `${socket.remoteAddress ?? ""} ${socket.remotePort ?? ""}`;

/** The listening side. Each connection proves the cluster key before its first request is looked at; what comes over TCP is in TLS. */
export class RpcServer implements AsyncDisposable {
  readonly #servers: Server[] = [];
  readonly #clusterKey: Buffer;
  readonly #handler: RpcHandler;
  readonly #connections = new Set<Connection>();
  readonly #begunWork: BegunWork | undefined;
  /** Which requests are taken on still. */
  #takes: "all" | "begun" | "none" = "all";
  /** The longest known first. */
  readonly #strangers = new Set<Stranger>();
  readonly #log: Log;
  readonly #versions: WireVersions;
  readonly #clock: Clock;

  constructor(
    clusterKey: Buffer,
    handler: RpcHandler,
    log: Log,
    { begunWork, versions = WIRE_VERSIONS, clock = systemClock }: RpcServerOptions = {},
  ) {
    this.#clusterKey = clusterKey;
    this.#handler = handler;
    this.#log = log;
    this.#begunWork = begunWork;
    this.#versions = versions;
    this.#clock = clock;
  }

  /**
   * Listens on a Unix socket that only this user may open, replacing a stale one, or on a TCP port for other hosts. May be called for
   * several addresses. Throws RingsteadError `invalid-config` where TLS files cannot be used.
   */
  async listen(address: string | TcpAddress): Promise<void> {
    const options = { noDelay: true, keepAlive: true };
    if (typeof address === "string") {
      const server = createServer(options, (socket) => this.#serve(socket, this.#meet(socket, address)));
      this.#servers.push(server);
      rmSync(address, { force: true });
      await bindServer(server, { path: address });
      chmodSync(address, 0o600);
      return;
    }
    const secure = this.#secureServer(address);
    const server = createServer(options, (socket) => {
      socket.on("error", () => socket.destroy());
      this.#meet(socket, socket.remoteAddress ?? "");
      // How a TLS server is given a connection that another one accepted.
      secure.emit("connection", socket);
    });
    server.maxConnections = CONNECTIONS_LIMIT;
    this.#servers.push(server);
    await bindServer(server, { host: address.host, port: address.port });
  }

  /** The port of the TCP address that was listened on last. */
  get port(): number | undefined {
    const address = this.#servers.at(-1)?.address();
    return typeof address === "object" ? address?.port : undefined;
  }

  /** Connections that have not said hello. */
  get strangers(): number {
    return this.#strangers.size;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#takes = "begun";
    const closed = this.#servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve())));
    for (const { socket } of this.#strangers) socket.destroy();
    await until(() => this.#begunWork?.isUnderWay() !== true, BEGUN_WORK_LIMIT_MS);
    this.#takes = "none";
    // Whose outcome is told need not be guessed: a write that was cut here could have taken effect or not.
    await until(() => [...this.#connections].every((one) => !one.isBusy), DRAIN_LIMIT_MS);
    for (const connection of this.#connections) connection.end();
    await until(() => this.#connections.size === 0, FAREWELL_LIMIT_MS);
    for (const { socket } of this.#connections) socket.destroy();
    await Promise.all(closed);
  }

  #secureServer(address: TcpAddress): TlsServer {
    const secure = createTlsServer(serverTls(this.#clusterKey, address), (socket) => {
      const from = addressOf(socket);
      const stranger = [...this.#strangers].find((one) => addressOf(one.socket) === from);
      if (stranger === undefined) socket.destroy();
      else this.#serve(socket, stranger);
    });
    secure.on("tlsClientError", (error: NodeJS.ErrnoException, socket) => {
      const refusal = handshakeRefusal(error);
      if (refusal !== undefined) this.#refuse(socket.remoteAddress ?? "", refusal);
      socket.destroy();
    });
    return secure;
  }

  #refuse(peer: string, refusal: Refusing): void {
    tellRefused({ side: "server", peer, ...refusal });
  }

  /** Gives a connection its time to say hello, in the place of an older one where there are too many. */
  #meet(socket: Socket, peer: string): Stranger {
    const timer = setTimeout(() => {
      this.#refuse(peer, {
        code: "rpc-silent",
        reason: `it did not say hello within ${HELLO_LIMIT_MS / 1000} s`,
        remedy: PROGRAM_REMEDY,
      });
      this.#know(stranger);
      socket.destroy();
    }, HELLO_LIMIT_MS);
    const stranger: Stranger = { socket, peer, timer };
    this.#strangers.add(stranger);
    socket.on("close", () => this.#know(stranger));
    const [oldest] = this.#strangers;
    if (this.#strangers.size > STRANGERS_LIMIT && oldest !== undefined) {
      this.#refuse(oldest.peer, {
        code: "rpc-crowded",
        reason: `more than ${STRANGERS_LIMIT} connections did not say hello`,
        remedy: PROGRAM_REMEDY,
      });
      this.#know(oldest);
      oldest.socket.destroy();
    }
    return stranger;
  }

  /** It is none any more: it is known now, or gone. */
  #know(stranger: Stranger): void {
    clearTimeout(stranger.timer);
    this.#strangers.delete(stranger);
  }

  #serve(socket: Socket, stranger: Stranger): void {
    const connection = new Connection(socket, this.#log);
    this.#connections.add(connection);
    const { writer } = connection;
    const binding = socket instanceof TLSSocket ? bindingOf(socket) : NO_BINDING;
    const challenge = randomBytes(CHALLENGE_BYTES);
    const fromMs = this.#clock.nowMs();
    writer.write(encodeFrame(FRAME_HELLO, 0, helloHeader(this.#versions, fromMs), CHALLENGE_BYTES), challenge);

    const greet = (frame: Frame): void => {
      const clientChallenge = frame.body.subarray(0, CHALLENGE_BYTES);
      const proof = frame.body.subarray(CHALLENGE_BYTES);
      const expected = proofOf(this.#clusterKey, "client", challenge, clientChallenge, binding);
      if (frame.type !== FRAME_HELLO || !isProof(proof, expected)) {
        this.#refuse(stranger.peer, {
          code: "rpc-untrusted",
          reason: "it does not know the cluster key",
          remedy: "if it is a node of this cluster give it the same key file",
        });
        socket.destroy();
        return;
      }
      this.#know(stranger);
      const refusal = refusalOf(this.#versions, readIntroduction(frame.header), fromMs, this.#clock.nowMs());
      if (refusal !== undefined) {
        const { code, reason, remedy } = refusal;
        this.#refuse(stranger.peer, refusal);
        socket.end(encodeFrame(FRAME_ERROR, 0, [code, reason, { remedy }], 0));
        socket.destroySoon();
        return;
      }
      connection.isTrusted = true;
      decoder.trust();
      const answer = proofOf(this.#clusterKey, "server", challenge, clientChallenge, binding);
      writer.write(encodeFrame(FRAME_HELLO, 0, [], answer.length), answer);
    };
    const handle = (frame: Frame): void => {
      connection.begin();
      const reply = new Reply(connection, frame);
      const isTaken =
        this.#takes === "all" || (this.#takes === "begun" && this.#begunWork?.admits(frame.header) === true);
      if (!isTaken) {
        reply.error(new RingsteadError("rpc-unsent", "the peer is ending, and did nothing of this"));
        return;
      }
      try {
        this.#handler(frame.header, frame.body, reply);
      } catch (error) {
        reply.error(error);
      }
    };
    const onFrame = (frame: Frame): void => {
      if (socket.destroyed || socket.writableEnded) return;
      if (!connection.isTrusted) greet(frame);
      else if (frame.type === FRAME_REQUEST) connection.take(frame, handle);
    };
    const decoder = new FrameDecoder(onFrame, HELLO_LIMIT_BYTES);
    socket.on("data", (chunk: Buffer) => {
      try {
        if (decoder.push(chunk)) releaseMemory(chunk);
      } catch (error) {
        if (!(error instanceof RingsteadError)) throw error;
        this.#refuse(stranger.peer, { code: error.code, reason: error.message, remedy: PROGRAM_REMEDY });
        socket.destroy();
      }
    });
    socket.on("drain", () => connection.relieve());
    socket.on("error", () => socket.destroy());
    socket.on("close", () => {
      this.#know(stranger);
      this.#connections.delete(connection);
    });
  }
}
