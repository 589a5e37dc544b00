import type { Disk } from "../../common/disk.ts";
import type { FilterLayer } from "./key-filter.ts";
import {
  FILTER_HEADER_BYTES,
  FILTER_PIECE_BYTES,
  type LayerStamp,
  decodeFilterFile,
  encodeFilterHeader,
  filterPieceSum,
  filterPieces,
} from "./key-filter-format.ts";
import { type DevicePaths, layerOfName } from "./paths.ts";

/** The files of a key filter, one for each layer, replaced whole. */
export class FilterFiles {
  readonly #disk: Disk;
  readonly #paths: DevicePaths;
  readonly #deviceSeed: bigint;
  /** Number of a layer → count of its keys that its file holds. */
  readonly #saved = new Map<number, number>();

  constructor(disk: Disk, paths: DevicePaths, deviceSeed: bigint) {
    this.#disk = disk;
    this.#paths = paths;
    this.#deviceSeed = deviceSeed;
  }

  /** Removes all but the layers `kept`. */
  async removeOthers(kept: ReadonlySet<number>): Promise<void> {
    for (const name of await this.#disk.list(this.#paths.filter)) {
      const number = layerOfName(name);
      if (number === undefined || kept.has(number)) continue;
      await this.#disk.unlink(this.#paths.filterLayer(number));
      await this.#disk.unlink(this.#paths.newFilterLayer(number));
      this.#saved.delete(number);
    }
  }

  /** A number that no file has. */
  async unusedNumber(): Promise<number> {
    const numbers = (await this.#disk.list(this.#paths.filter)).map((name) => layerOfName(name) ?? -1);
    return Math.max(-1, ...numbers) + 1;
  }

  /** Undefined where one of them is absent, damaged or too old. */
  async load(stamps: readonly LayerStamp[]): Promise<FilterLayer[] | undefined> {
    const layers: FilterLayer[] = [];
    for (const { number, count } of stamps) {
      const layer = await this.#read(number);
      if (layer === undefined || layer.number !== number || layer.count < count) return undefined;
      this.#saved.set(number, layer.count);
      layers.push(layer);
    }
    return layers;
  }

  async #read(number: number): Promise<FilterLayer | undefined> {
    const path = this.#paths.filterLayer(number);
    if ((await this.#disk.kindOf(path)) !== "file") return undefined;
    const file = await this.#disk.open(path, "existing");
    try {
      const bytes = new Uint8Array(await file.size());
      await file.read([bytes], 0);
      return decodeFilterFile(bytes, this.#deviceSeed);
    } finally {
      await file.close();
    }
  }

  /** Resolves when everything that the layers held at the call is durable. Layers that did not change since cost nothing. */
  async save(layers: readonly FilterLayer[]): Promise<LayerStamp[]> {
    const stamps = layers.map(({ number, count }) => ({ number, count }));
    const changed = layers.filter(({ number, count }) => this.#saved.get(number) !== count);
    for (const layer of changed) await this.#write(layer);
    if (changed.length > 0) await this.#disk.syncFolder(this.#paths.filter);
    return stamps;
  }

  async #write(layer: FilterLayer): Promise<void> {
    // Keys that come meanwhile are in the later pieces and not in the earlier ones: what is not counted promises nothing.
    const { number, count } = layer;
    const path = this.#paths.newFilterLayer(number);
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
      await file.write(encodeFilterHeader(layer, count, sums, this.#deviceSeed).subarray(0, FILTER_HEADER_BYTES), 0);
      await file.sync();
    } catch (error) {
      // On a full device half a file would only take space; where this fails too, the next save removes it.
      await this.#disk.unlink(path).catch(() => {});
      throw error;
    } finally {
      await file.close();
    }
    await this.#disk.rename(path, this.#paths.filterLayer(number));
    this.#saved.set(number, count);
  }
}
