import type { Socket } from "node:net";

/** Bodies below this are copied behind their header, so that one write carries many frames; larger ones go as they are. */
const COPY_LIMIT_BYTES = 16 * 1024;

/**
 * Gathers the frames of one turn of the event loop and hands them to the socket together: under load a dozen small
 * messages cost one system call.
 */
export class FrameWriter {
  readonly #socket: Socket;
  #queue: Uint8Array[] = [];
  #isScheduled = false;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  write(head: Buffer, body: Uint8Array): void {
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
      this.#socket.write(part);
    }
    if (small.length > 0) this.#socket.write(Buffer.concat(small));
    this.#socket.uncork();
  };
}
