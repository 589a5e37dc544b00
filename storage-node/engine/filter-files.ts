import { AssertionError } from "node:assert/strict";
import { join } from "node:path";
import type { Disk } from "../../common/disk.ts";
import type { FilterLayer } from "./key-filter.ts";
import {
  FILTER_PIECE_BYTES,
  type FilterStamp,
  MAX_FILTER_FILE_BYTES,
  decodeFilterFile,
  encodeFilterHeader,
  filterPieceSum,
  filterPieces,
} from "./key-filter-format.ts";
import type { DevicePaths } from "./paths.ts";

/** Left to what the device needs: the filter can be done without. */
const RESERVED_BYTES = 64 * 1024 * 1024;

/** The files of a key filter, one for each layer, replaced whole. */
export class FilterFiles {
  readonly #disk: Disk;
  readonly #paths: DevicePaths;
  readonly #deviceSeed: bigint;
  readonly #reservedBytes: number;
  /** Path of a layer → count of its keys that its file holds. */
  readonly #saved = new Map<string, number>();

  constructor(disk: Disk, paths: DevicePaths, deviceSeed: bigint, reservedBytes = RESERVED_BYTES) {
    this.#disk = disk;
    this.#paths = paths;
    this.#deviceSeed = deviceSeed;
    this.#reservedBytes = reservedBytes;
  }

  /** Removes all files but those of the layers that a stamp names. */
  async removeOthers({ life, counts }: FilterStamp): Promise<void> {
    const kept = new Set(counts.map((_, number) => this.#paths.filterLayer(life, number)));
    for (const name of await this.#disk.list(this.#paths.filter)) {
      const path = join(this.#paths.filter, name);
      if (kept.has(path)) continue;
      await this.#disk.unlink(path);
      this.#saved.delete(path);
    }
  }

  /** Undefined where a layer is absent, unreadable, damaged or holds too little. */
  async load({ life, counts }: FilterStamp): Promise<FilterLayer[] | undefined> {
    const layers: FilterLayer[] = [];
    for (const [number, count] of counts.entries()) {
      const path = this.#paths.filterLayer(life, number);
      const layer = await this.#read(path);
      if (layer === undefined || layer.life !== life || layer.number !== number || layer.count < count)
        return undefined;
      this.#saved.set(path, layer.count);
      layers.push(layer);
    }
    return layers;
  }

  async #read(path: string): Promise<FilterLayer | undefined> {
    try {
      const file = await this.#disk.open(path, "existing");
      try {
        const size = await file.size();
        if (size > MAX_FILTER_FILE_BYTES) return undefined;
        const bytes = new Uint8Array(size);
        await file.read([bytes], 0);
        return decodeFilterFile(bytes, this.#deviceSeed);
      } finally {
        await file.close();
      }
    } catch (error) {
      // A cache that cannot be read costs a scan, and no more; a disk that fails says so to those who need it.
      if (error instanceof AssertionError) throw error;
      return undefined;
    }
  }

  /**
   * Resolves with a stamp when everything that the layers held at the call is durable; undefined where the disk has no room for it.
   * Layers that did not change since cost nothing.
   */
  async save(life: number, layers: readonly FilterLayer[]): Promise<FilterStamp | undefined> {
    const stamp = { life, counts: layers.map(({ count }) => count) };
    const changed = layers.filter(
      ({ number, count }) => this.#saved.get(this.#paths.filterLayer(life, number)) !== count,
    );
    if (changed.length === 0) return stamp;
    const bytes = changed.reduce((sum, { words }) => sum + words.byteLength, 0);
    if ((await this.#disk.freeBytes(this.#paths.root)) < bytes + this.#reservedBytes) return undefined;
    for (const layer of changed) await this.#write(layer);
    await this.#disk.syncFolder(this.#paths.filter);
    return stamp;
  }

  async #write(layer: FilterLayer): Promise<void> {
    // Keys that come meanwhile are in the later pieces and not in the earlier ones: what is not counted promises nothing.
    const { life, number, count } = layer;
    const path = this.#paths.newFilterLayer(life, number);
    await this.#disk.unlink(path);
    const file = await this.#disk.open(path, "create");
    try {
      const sums: bigint[] = [];
      const copy = new Uint8Array(FILTER_PIECE_BYTES);
      for (const { fileOffset, bytes } of filterPieces(layer)) {
        const piece = copy.subarray(0, bytes.length);
        piece.set(bytes);
        sums.push(filterPieceSum(piece, this.#deviceSeed));
        await file.write(piece, fileOffset);
      }
      await file.write(encodeFilterHeader(layer, count, sums, this.#deviceSeed), 0);
      await file.sync();
    } catch (error) {
      // On a full device half a file would only take space; where this fails too, the next save removes it.
      await this.#disk.unlink(path).catch(() => {});
      throw error;
    } finally {
      await file.close();
    }
    const saved = this.#paths.filterLayer(life, number);
    await this.#disk.rename(path, saved);
    this.#saved.set(saved, count);
  }
}
