import type { Socket } from "node:net";
import { releaseMemory } from "../release-memory.ts";

/** Bodies below this are copied behind their header, so that one write carries many frames; larger ones go as they are. */
const COPY_LIMIT_BYTES = 16 * 1024;

/**
 * Gathers the frames of one turn of the event loop and hands them to the socket together: under load a dozen small
 * messages cost one system call.
 */
export class FrameWriter {
  readonly #socket: Socket;
  #queue: Uint8Array[] = [];
  readonly #given = new WeakSet<Uint8Array>();
  #queuedBytes = 0;
  #isScheduled = false;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** What was written and the kernel did not take yet. */
  get unsentBytes(): number {
    return this.#queuedBytes + this.#socket.writableLength;
  }

  /** @param isGiven nobody uses the body's memory any more: it is released once it is sent */
  write(head: Buffer, body: Uint8Array, isGiven = false): void {
    if (isGiven && body.length > COPY_LIMIT_BYTES) this.#given.add(body);
    this.#queuedBytes += head.length + body.length;
    this.#queue.push(head);
    if (body.length > 0) this.#queue.push(body);
    if (!this.#isScheduled) {
      this.#isScheduled = true;
      setImmediate(this.#flush);
    }
  }

  readonly #flush = (): void => {
    this.#isScheduled = false;
    const queue = this.#queue;
    this.#queue = [];
    this.#queuedBytes = 0;
    if (this.#socket.destroyed) return;
    this.#socket.cork();
    let small: Uint8Array[] = [];
    for (const part of queue) {
      if (part.length <= COPY_LIMIT_BYTES) {
        small.push(part);
        continue;
      }
      if (small.length > 0) this.#socket.write(Buffer.concat(small));
      small = [];
      if (this.#given.has(part)) this.#socket.write(part, (error) => void (isSent(error) && releaseMemory(part)));
      else this.#socket.write(part);
    }
    if (small.length > 0) this.#socket.write(Buffer.concat(small));
    this.#socket.uncork();
  };
}

/** After a failure the kernel may still have the memory. */
const isSent = (error: Error | null | undefined): boolean => error === null || error === undefined;
