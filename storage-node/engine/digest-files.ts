import { AssertionError } from "node:assert/strict";
import type { Disk } from "../../common/disk.ts";
import { codeOf } from "../../common/errors.ts";
import { decodeDigests, encodeDigests, maxDigestFileBytes } from "./digest-format.ts";
import type { DigestScheme, DigestTable } from "./digest-table.ts";
import type { DevicePaths } from "./paths.ts";

/** Left to what the device needs: digests can be counted anew. */
const RESERVED_BYTES = 64 * 1024 * 1024;

/** The file of a device's digests, saved with each checkpoint and good only for that one. */
export class DigestFiles {
  readonly #disk: Disk;
  readonly #paths: DevicePaths;
  readonly #deviceSeed: bigint;
  readonly #reservedBytes: number;

  constructor(disk: Disk, paths: DevicePaths, deviceSeed: bigint, reservedBytes = RESERVED_BYTES) {
    this.#disk = disk;
    this.#paths = paths;
    this.#deviceSeed = deviceSeed;
    this.#reservedBytes = reservedBytes;
  }

  /** The digests at a checkpoint; undefined where they have to be counted. */
  async load(scheme: DigestScheme, nextSequence: number): Promise<DigestTable | undefined> {
    for (const path of this.#paths.digests) {
      const bytes = await this.#read(path, maxDigestFileBytes(scheme.bucketCount));
      const table = bytes === undefined ? undefined : decodeDigests(bytes, scheme, nextSequence, this.#deviceSeed);
      if (table !== undefined) return table;
    }
    return undefined;
  }

  async #read(path: string, limitBytes: number): Promise<Uint8Array | undefined> {
    try {
      const file = await this.#disk.open(path, "existing");
      try {
        const size = await file.size();
        if (size > limitBytes) return undefined;
        const bytes = new Uint8Array(size);
        await file.read([bytes], 0);
        return bytes;
      } finally {
        await file.close();
      }
    } catch (error) {
      // What cannot be read is counted anew; a disk that fails says so to those who need it.
      if (error instanceof AssertionError) throw error;
      return undefined;
    }
  }

  /** What `save` writes, as the digests are in this turn; undefined while they are in doubt. */
  snapshot(table: DigestTable, nextSequence: number): Uint8Array | undefined {
    return table.isCertain ? encodeDigests(table, nextSequence, this.#deviceSeed) : undefined;
  }

  /**
   * Resolves when the snapshot is durable, or was left out for want of space. The file of the checkpoint before stays until then: which of
   * the two checkpoints counts after a power loss is not known yet.
   */
  async save(snapshot: Uint8Array): Promise<void> {
    if ((await this.#disk.freeBytes(this.#paths.root)) < snapshot.length + this.#reservedBytes) return;
    const [newer, older] = this.#paths.digests;
    try {
      await this.#disk.unlink(this.#paths.newDigests);
      const file = await this.#disk.open(this.#paths.newDigests, "create");
      try {
        await file.write(snapshot, 0);
        await file.sync();
      } finally {
        await file.close();
      }
      if ((await this.#disk.kindOf(newer)) === "file") await this.#disk.rename(newer, older);
      await this.#disk.rename(this.#paths.newDigests, newer);
      await this.#disk.syncFolder(this.#paths.root);
    } catch (error) {
      if (codeOf(error) !== "ENOSPC" && codeOf(error) !== "EDQUOT") throw error;
      await this.#disk.unlink(this.#paths.newDigests).catch(() => {});
    }
  }
}
