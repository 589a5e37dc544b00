import type { Socket } from "node:net";

/** For so long a client may leave an answer where it is; then its connection ends, and what it holds is free for others. A client that lives comes again. */
const TAKE_LIMIT_MS = 30_000;

/** What one client is sent: one message after the other, each once the one before it was taken. */
export class NbdReplies {
  readonly #socket: Socket;
  readonly #takeLimitMs: number;
  #last: Promise<void> = Promise.resolve();

  constructor(socket: Socket, takeLimitMs = TAKE_LIMIT_MS) {
    this.#socket = socket;
    this.#takeLimitMs = takeLimitMs;
  }

  /** Resolves once the client has taken so much that the next message may follow; rejects where it is gone, or takes nothing. */
  send(message: readonly Buffer[]): Promise<void> {
    const sent = this.#last.then(() => this.#write(message));
    this.#last = sent.catch(() => undefined);
    return sent;
  }

  async #write(message: readonly Buffer[]): Promise<void> {
    const socket = this.#socket;
    if (!socket.writable) throw new Error("the client is gone");
    socket.cork();
    for (const part of message) socket.write(part);
    socket.uncork();
    if (!socket.writableNeedDrain) return;
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => socket.destroy(), this.#takeLimitMs);
      const over = (): void => {
        clearTimeout(timer);
        socket.off("drain", drained).off("close", closed);
      };
      const drained = (): void => {
        over();
        resolve();
      };
      const closed = (): void => {
        over();
        reject(new Error("the client is gone, or took nothing"));
      };
      socket.once("drain", drained).once("close", closed);
    });
  }
}
