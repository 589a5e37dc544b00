import type { Disk } from "../../common/disk.ts";
import { type DevicePaths, quarantineNumberOf } from "./paths.ts";

/** What is kept of damaged bytes for the curious; the oldest files go first. */
const MAX_FILES = 256;
const MAX_BYTES = 64 * 1024 * 1024;
/** Of one finding. */
const MAX_FILE_BYTES = 4 * 1024 * 1024;
/** Left to what the device needs. */
const RESERVED_BYTES = 256 * 1024 * 1024;

/** Some bytes of a file as they were found; undefined where they could not even be read. */
export type DamagedPiece = { readonly file: string; readonly offset: number; readonly bytes: Uint8Array | undefined };

/** Whose bytes, and what was wrong with them. */
export type Finding = { readonly key: string; readonly cause: string; readonly atMs: number };

/**
 * The damaged bytes of a device, set aside before good ones take their place. Nothing depends on them: a file that cannot be written is
 * left out.
 */
export class Quarantine {
  readonly #disk: Disk;
  readonly #paths: DevicePaths;
  readonly #reservedBytes: number;
  /** By number, ascending. */
  #sizes: Map<number, number> | undefined;
  #bytes = 0;
  /** One at a time. */
  #last: Promise<void> = Promise.resolve();

  constructor(disk: Disk, paths: DevicePaths, reservedBytes = RESERVED_BYTES) {
    this.#disk = disk;
    this.#paths = paths;
    this.#reservedBytes = reservedBytes;
  }

  /** Resolves when the bytes are in a file, or were left out. */
  setAside(finding: Finding, pieces: readonly DamagedPiece[]): Promise<void> {
    this.#last = this.#last.then(() => this.#write(finding, pieces)).catch(() => {});
    return this.#last;
  }

  async #write(finding: Finding, pieces: readonly DamagedPiece[]): Promise<void> {
    const sizes = (this.#sizes ??= await this.#load());
    const file = encodeQuarantined(finding, pieces);
    if ((await this.#disk.freeBytes(this.#paths.root)) < this.#reservedBytes) return;
    const number = ([...sizes.keys()].at(-1) ?? 0) + 1;
    const written = await this.#disk.open(this.#paths.quarantined(number), "create");
    try {
      await written.write(file, 0);
    } finally {
      await written.close();
    }
    sizes.set(number, file.length);
    this.#bytes += file.length;
    for (const [oldest, size] of sizes) {
      if (sizes.size <= MAX_FILES && this.#bytes <= MAX_BYTES) break;
      await this.#disk.unlink(this.#paths.quarantined(oldest));
      sizes.delete(oldest);
      this.#bytes -= size;
    }
  }

  async #load(): Promise<Map<number, number>> {
    await this.#disk.makeFolder(this.#paths.quarantine);
    const sizes = new Map<number, number>();
    const numbers = (await this.#disk.list(this.#paths.quarantine)).map(quarantineNumberOf);
    for (const number of numbers.filter((one) => one !== undefined).toSorted((left, right) => left - right)) {
      const file = await this.#disk.open(this.#paths.quarantined(number), "existing");
      const size = await file.size();
      await file.close();
      sizes.set(number, size);
      this.#bytes += size;
    }
    return sizes;
  }
}

/** One line of JSON that says what follows it, and the bytes (FORMAT.md). */
export const encodeQuarantined = ({ key, cause, atMs }: Finding, pieces: readonly DamagedPiece[]): Buffer => {
  const kept: Uint8Array[] = [];
  let left = MAX_FILE_BYTES;
  const places = pieces.map(({ file, offset, bytes }) => {
    const part = bytes?.subarray(0, left) ?? new Uint8Array(0);
    left -= part.length;
    kept.push(part);
    return { file, offset, length: part.length, isReadable: bytes !== undefined };
  });
  const head = `${JSON.stringify({ format: 1, at: new Date(atMs).toISOString(), key, cause, pieces: places })}\n`;
  return Buffer.concat([Buffer.from(head), ...kept]);
};
