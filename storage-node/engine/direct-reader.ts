import { DIRECT_UNIT_BYTES, type Disk, type DiskFile } from "../../common/disk.ts";

const CHUNK_BYTES = 1024 * 1024;
/** Chunks on their way or kept: what the widest read touches, and those read ahead. */
const CHUNKS = 6;
const AHEAD = 2;

type Chunk = { readonly number: number; readonly bytes: Uint8Array; readonly filled: Promise<number> };

/**
 * A file read from its beginning to its end past the page cache, with chunks on their way while others are looked at: the bytes are the
 * disk's own, and what clients read stays cached. Bytes that the disk cannot read come as zeros.
 */
export class DirectReader {
  readonly #memory: Uint8Array;
  #file: DiskFile | undefined;
  #chunks: Chunk[] = [];
  #end = 0;
  /** Units that the disk could not read. */
  unreadableUnits = 0;

  constructor(disk: Disk) {
    this.#memory = disk.directMemory(CHUNK_BYTES * CHUNKS);
  }

  /** Goes on with another file, of which `end` bytes are looked at; who opened it closes it, after `stop`. */
  async turnTo(file: DiskFile, end: number): Promise<void> {
    await this.stop();
    this.#file = file;
    this.#end = end;
    this.unreadableUnits = 0;
  }

  /** Resolves when no read is under way. */
  async stop(): Promise<void> {
    await Promise.all(this.#chunks.map(({ filled }) => filled));
    this.#chunks = [];
    this.#file = undefined;
  }

  /** Fills `bytes` as far as the file goes. Requires: no other read is under way; at most three chunks; offsets mostly ascend. */
  async read(bytes: Uint8Array, offset: number): Promise<number> {
    const first = Math.floor(offset / CHUNK_BYTES);
    const last = Math.floor((offset + bytes.length - 1) / CHUNK_BYTES);
    let done = 0;
    for (let number = first; number <= last; number++) {
      const chunk = await this.#chunk(number, first);
      const count = await chunk.filled;
      const from = offset + done - number * CHUNK_BYTES;
      const part = chunk.bytes.subarray(from, Math.min(count, from + bytes.length - done));
      bytes.set(part, done);
      done += part.length;
      if (count < CHUNK_BYTES) break;
    }
    for (let ahead = 1; ahead <= AHEAD; ahead++)
      if ((last + ahead) * CHUNK_BYTES < this.#end) await this.#chunk(last + ahead, first);
    return done;
  }

  /** The chunk, on its way at least; those before `keepFrom` give their memory first. */
  async #chunk(number: number, keepFrom: number): Promise<Chunk> {
    const known = this.#chunks.find((chunk) => chunk.number === number);
    if (known !== undefined) return known;
    let bytes: Uint8Array;
    if (this.#chunks.length < CHUNKS) {
      const at = this.#chunks.length * CHUNK_BYTES;
      bytes = this.#memory.subarray(at, at + CHUNK_BYTES);
    } else {
      const at = this.#chunks.findIndex((chunk) => chunk.number < keepFrom || chunk.number > number + AHEAD);
      const [old] = this.#chunks.splice(Math.max(0, at), 1);
      await old?.filled;
      bytes = old?.bytes ?? new Uint8Array(0);
    }
    const chunk: Chunk = { number, bytes, filled: this.#fill(bytes, number * CHUNK_BYTES) };
    this.#chunks.push(chunk);
    return chunk;
  }

  async #fill(bytes: Uint8Array, offset: number): Promise<number> {
    const file = this.#file;
    if (file === undefined) return 0;
    try {
      return await file.read([bytes], offset);
    } catch {
      return this.#fillByUnits(file, bytes, offset);
    }
  }

  /** What can be read around a bad place. */
  async #fillByUnits(file: DiskFile, bytes: Uint8Array, offset: number): Promise<number> {
    for (let at = 0; at < bytes.length; at += DIRECT_UNIT_BYTES) {
      const unit = bytes.subarray(at, at + DIRECT_UNIT_BYTES);
      try {
        const count = await file.read([unit], offset + at);
        if (count < unit.length) return at + count;
      } catch {
        unit.fill(0);
        this.unreadableUnits++;
      }
    }
    return bytes.length;
  }
}
