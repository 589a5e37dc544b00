import { statfs } from "node:fs/promises";
import { RingsteadError } from "../../../common/errors.ts";
import type { LayerId } from "../core/chains.ts";
import type { Capacity, Driver, Place } from "./driver.ts";
import { erase } from "./erase.ts";
import { allocatedBytesOf, attachLoop, detachLoop, ensureSparseFile } from "./loop-device.ts";
import { type LogicalVolume, VolumeGroup } from "./volume-group.ts";

/** Of the file system below a sparse pool, kept for what else lives there. */
const RESERVED_BYTES = 256 * 1024 * 1024;
const VOLUME_NAME = /^layer-([0-9a-f]{20})$/;

const nameOf = (layer: LayerId): string => `layer-${layer}`;

/**
 * A logical volume for each layer, in a volume group of its own on a loop device over a sparse file. LVM says where the extents are; the bytes
 * are read and written in the file itself, at that offset: no kernel object stands between a daemon and its bytes, a pool needs no
 * device-mapper, and only LVM's own records go through the loop device. Each layer is one run of extents, since QEMU opens one range.
 */
export class LvmDriver implements Driver {
  readonly kind = "lvm";
  readonly growsByItself = false;
  readonly #group: VolumeGroup;
  readonly #device: string;
  readonly #file: string;
  /** LVM locks its group, but decides by what it read before: two commands at once could each find the same last extents free. */
  #last: Promise<unknown> = Promise.resolve();

  private constructor(group: VolumeGroup, device: string, file: string) {
    this.#group = group;
    this.#device = device;
    this.#file = file;
  }

  /** Opens the pool in the file, made where it is not there. Errors: "command-missing", "command-failed", "pool-damaged", "pool-full". */
  static async opened(file: string, groupName: string): Promise<LvmDriver> {
    await ensureSparseFile(file);
    const device = await attachLoop(file);
    try {
      const group = new VolumeGroup(groupName, device);
      await group.ensure();
      return new LvmDriver(group, device, file);
    } catch (error) {
      await detachLoop(device).catch(() => undefined);
      throw error;
    }
  }

  capacity(): Promise<Capacity> {
    return this.#inTurn(async () => {
      const { extentBytes, totalExtents, freeExtents, volumes } = await this.#group.facts();
      const { bavail, bsize } = await statfs(this.#file);
      // What layers were promised and did not write to yet has to fit into the file system too.
      const promised = volumes.reduce((sum, { run }) => sum + run.count, 0) * extentBytes;
      const unwritten = Math.max(0, promised - (await allocatedBytesOf(this.#file)));
      const room = Math.max(0, bavail * bsize - RESERVED_BYTES - unwritten);
      return {
        totalBytes: totalExtents * extentBytes,
        freeBytes: Math.min(freeExtents * extentBytes, Math.floor(room / extentBytes) * extentBytes),
        isThin: false,
      };
    });
  }

  async create(layer: LayerId, sizeBytes: number): Promise<void> {
    const { freeBytes } = await this.capacity();
    await this.#inTurn(async () => {
      const { extentBytes, volumes } = await this.#group.facts();
      const wanted = Math.ceil(sizeBytes / extentBytes);
      const there = volumes.find(({ name }) => name === nameOf(layer));
      // Of another size: the layer was to have another one before it was given up, and no byte of it was ever used.
      if (there !== undefined && there.run.count !== wanted) await this.#group.remove(there.name);
      if (there?.run.count !== wanted) {
        if (wanted * extentBytes > freeBytes || !(await this.#group.create(nameOf(layer), wanted)))
          throw new RingsteadError("pool-full", `the pool has no ${sizeBytes} bytes in one piece`, { freeBytes });
      }
    });
    const place = await this.#placeOf(layer);
    await erase(place.path, place.offset, place.sizeBytes);
  }

  grow(layer: LayerId, sizeBytes: number): Promise<boolean> {
    return this.#inTurn(async () => {
      const { extentBytes, startOffset, volumes } = await this.#group.facts();
      const there = this.#found(volumes, layer);
      const wanted = Math.ceil(sizeBytes / extentBytes);
      if (wanted <= there.run.count) return true;
      if (!(await this.#isFree(volumes, there, wanted))) return false;
      // Erased while the extents are nobody's: once they are the layer's, its owner may read them.
      const from = startOffset + (there.run.first + there.run.count) * extentBytes;
      await erase(this.#file, from, (wanted - there.run.count) * extentBytes);
      return this.#group.extend(there.name, wanted);
    });
  }

  async remove(layer: LayerId): Promise<void> {
    const place = await this.place(layer);
    if (place === undefined) return;
    const { path, offset, sizeBytes } = place;
    await erase(path, offset, sizeBytes);
    await this.#inTurn(() => this.#group.remove(nameOf(layer)));
  }

  place(layer: LayerId): Promise<(Place & { readonly sizeBytes: number }) | undefined> {
    return this.#inTurn(async () => {
      const { extentBytes, startOffset, volumes } = await this.#group.facts();
      const there = volumes.find(({ name }) => name === nameOf(layer));
      if (there === undefined) return undefined;
      return {
        path: this.#file,
        offset: startOffset + there.run.first * extentBytes,
        sizeBytes: there.run.count * extentBytes,
        isShared: true,
      };
    });
  }

  layers(): Promise<readonly LayerId[]> {
    return this.#inTurn(async () => {
      const { volumes } = await this.#group.facts();
      return volumes.flatMap(({ name }) => VOLUME_NAME.exec(name)?.[1] ?? []);
    });
  }

  /** Daemons go on: they read and write the file. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#last;
    await detachLoop(this.#device);
  }

  async #placeOf(layer: LayerId): Promise<Place & { readonly sizeBytes: number }> {
    const place = await this.place(layer);
    if (place === undefined) throw new RingsteadError("pool-damaged", `the logical volume ${nameOf(layer)} is gone`);
    return place;
  }

  #found(volumes: readonly LogicalVolume[], layer: LayerId): LogicalVolume {
    const there = volumes.find(({ name }) => name === nameOf(layer));
    if (there === undefined) throw new RingsteadError("pool-damaged", `the logical volume ${nameOf(layer)} is gone`);
    return there;
  }

  /** Whether the extents after it are free as far as `wanted` reaches. */
  async #isFree(volumes: readonly LogicalVolume[], there: LogicalVolume, wanted: number): Promise<boolean> {
    const { totalExtents } = await this.#group.facts();
    const [from, to] = [there.run.first + there.run.count, there.run.first + wanted];
    if (to > totalExtents) return false;
    return !volumes.some(({ run }) => run.first < to && run.first + run.count > from);
  }

  #inTurn<Result>(action: () => Promise<Result>): Promise<Result> {
    const result = this.#last.then(action);
    this.#last = result.catch(() => undefined);
    return result;
  }
}
