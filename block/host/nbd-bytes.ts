import type { Socket } from "node:net";

/** What comes and nobody has asked for is kept up to this; beyond it the other end waits. */
const AHEAD_LIMIT_BYTES = 256 * 1024;

/** Bytes of a socket, so many at a time. One `take` at a time; each rejects once the socket has closed. */
export class ByteReader {
  readonly #socket: Socket;
  readonly #parts: Buffer[] = [];
  #length = 0;
  #isOver = false;
  #wanted:
    | { readonly count: number; readonly resolve: (bytes: Buffer) => void; readonly reject: (error: Error) => void }
    | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (bytes: Buffer) => {
      this.#parts.push(bytes);
      this.#length += bytes.length;
      this.#serve();
      if (this.#wanted === undefined && this.#length > AHEAD_LIMIT_BYTES) socket.pause();
    });
    socket.on("error", () => socket.destroy());
    socket.on("close", () => {
      this.#isOver = true;
      this.#serve();
    });
  }

  take(count: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#wanted = { count, resolve, reject };
      this.#serve();
      const isEnough = this.#wanted === undefined && this.#length > AHEAD_LIMIT_BYTES;
      if (!isEnough && this.#socket.isPaused()) this.#socket.resume();
    });
  }

  #serve(): void {
    const wanted = this.#wanted;
    if (wanted === undefined) return;
    if (this.#length >= wanted.count) {
      this.#wanted = undefined;
      wanted.resolve(this.#cut(wanted.count));
    } else if (this.#isOver) {
      this.#wanted = undefined;
      wanted.reject(new Error("the connection is closed"));
    }
  }

  #cut(count: number): Buffer {
    const taken: Buffer[] = [];
    let missing = count;
    while (missing > 0) {
      const part = this.#parts[0];
      if (part === undefined) throw new Error("fewer bytes are there than were counted");
      if (part.length <= missing) this.#parts.shift();
      else this.#parts[0] = part.subarray(missing);
      taken.push(part.subarray(0, Math.min(part.length, missing)));
      missing -= Math.min(part.length, missing);
    }
    this.#length -= count;
    const [first] = taken;
    return taken.length === 1 && first !== undefined ? first : Buffer.concat(taken, count);
  }
}
