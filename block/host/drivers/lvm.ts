import { RingsteadError } from "../../../common/errors.ts";
import type { LayerId } from "../core/chains.ts";
import type { Capacity, Driver, Place } from "./driver.ts";
import { erase } from "./erase.ts";
import type { GroupBase } from "./group-base.ts";
import { growingFrom, growingTag } from "./growing-tag.ts";
import {
  type GroupFacts,
  layerOfVolume,
  type LogicalVolume,
  type Run,
  type VolumeGroup,
  volumeNameOf,
} from "./volume-group.ts";

type RunPlace = Place & { readonly sizeBytes: number };

/**
 * A logical volume for each layer, where the kernel has no device-mapper. LVM says where the extents are; the bytes are read and written in what
 * the group lies on (`GroupBase`), at that offset: no kernel object stands between a daemon and its bytes, and only LVM's own records go
 * through a loop device. Each layer is one run of extents, since QEMU opens one range.
 */
export class LvmDriver implements Driver {
  readonly kind = "lvm";
  readonly growsByItself = false;
  readonly #group: VolumeGroup;
  readonly #base: GroupBase;
  /** LVM locks its group, but decides by what it read before: two commands at once could each find the same last extents free. */
  #last: Promise<unknown> = Promise.resolve();

  /** Requires: the group is there, on one device. */
  constructor(group: VolumeGroup, base: GroupBase) {
    this.#group = group;
    this.#base = base;
  }

  capacity(): Promise<Capacity> {
    return this.#inTurn(async () => {
      const { extentBytes, totalExtents, freeExtents } = await this.#group.facts();
      const promisedBytes = (totalExtents - freeExtents) * extentBytes;
      const room = await this.#base.roomBytes(promisedBytes);
      return {
        totalBytes: totalExtents * extentBytes,
        freeBytes: Math.min(freeExtents, Math.floor(room / extentBytes)) * extentBytes,
        isThin: false,
      };
    });
  }

  async create(layer: LayerId, sizeBytes: number): Promise<void> {
    const { freeBytes } = await this.capacity();
    await this.#inTurn(async () => {
      const facts = await this.#group.facts();
      const { extentBytes } = facts;
      const wanted = Math.ceil(sizeBytes / extentBytes);
      const there = runOf(facts, layer);
      // Of another size: the layer was to have another one before it was given up, and no byte of it was ever used.
      if (there !== undefined && there.count !== wanted) await this.#group.remove(volumeNameOf(layer));
      if (there?.count !== wanted) {
        if (wanted * extentBytes > freeBytes || !(await this.#group.create(volumeNameOf(layer), wanted)))
          throw new RingsteadError("pool-full", `the pool has no ${sizeBytes} bytes in one piece`, { freeBytes });
      }
    });
    const place = await this.place(layer);
    if (place === undefined) throw gone(layer);
    await erase(place.path, place.offset, place.sizeBytes);
  }

  grow(layer: LayerId, sizeBytes: number): Promise<boolean> {
    return this.#inTurn(async () => {
      const facts = await this.#group.facts();
      const there = runOf(facts, layer);
      if (there === undefined) throw gone(layer);
      const wanted = Math.ceil(sizeBytes / facts.extentBytes);
      await this.#finishGrowth(facts, layer, there);
      if (wanted <= there.count) return true;
      const end = there.first + there.count;
      if (!isFree(facts, end, there.first + wanted)) return false;
      // Erased while the extents are nobody's: once they are the layer's, its owner may read them.
      const from = this.#offsetOf(facts, end);
      await erase(this.#base.path, from, (wanted - there.count) * facts.extentBytes);
      return this.#group.extend(volumeNameOf(layer), wanted);
    });
  }

  /** With device-mapper extents are a layer's before they are erased: who was killed in between may be followed by one without it. */
  async #finishGrowth(facts: GroupFacts, layer: LayerId, { first, count }: Run): Promise<void> {
    const path = this.#group.path(volumeNameOf(layer));
    const [row] = await this.#group.lvm.report("lvs", "lv_tags", path);
    const from = growingFrom(row?.["lv_tags"] ?? "");
    if (from === undefined) return;
    await erase(this.#base.path, this.#offsetOf(facts, first + from), Math.max(0, count - from) * facts.extentBytes);
    await this.#group.lvm.run("lvchange", "--deltag", growingTag(from), path);
  }

  async remove(layer: LayerId): Promise<void> {
    const place = await this.place(layer);
    if (place === undefined) return;
    const { path, offset, sizeBytes } = place;
    await erase(path, offset, sizeBytes);
    await this.#inTurn(() => this.#group.remove(volumeNameOf(layer)));
  }

  place(layer: LayerId): Promise<RunPlace | undefined> {
    return this.#inTurn(async () => {
      const facts = await this.#group.facts();
      const there = runOf(facts, layer);
      if (there === undefined) return undefined;
      const { path, kind } = this.#base;
      const sizeBytes = there.count * facts.extentBytes;
      return { path, kind, offset: this.#offsetOf(facts, there.first), sizeBytes, isShared: true };
    });
  }

  layers(): Promise<readonly LayerId[]> {
    return this.#inTurn(async () => {
      const { volumes } = await this.#group.facts();
      return volumes.flatMap(({ name }) => layerOfVolume(name) ?? []);
    });
  }

  /** Daemons go on: they read and write what the group lies on. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#last;
    await this.#base.release();
  }

  #offsetOf({ devices, extentBytes }: GroupFacts, extent: number): number {
    return (devices[0]?.startOffset ?? 0) + extent * extentBytes;
  }

  #inTurn<Result>(action: () => Promise<Result>): Promise<Result> {
    const result = this.#last.then(action);
    this.#last = result.catch(() => undefined);
    return result;
  }
}

const gone = (layer: LayerId): RingsteadError =>
  new RingsteadError("pool-damaged", `the logical volume ${volumeNameOf(layer)} is gone`);

const runOf = ({ volumes }: GroupFacts, layer: LayerId): Run | undefined => {
  const name = volumeNameOf(layer);
  const volume = volumes.find((one) => one.name === name);
  if (volume === undefined) return undefined;
  const [run, ...others] = volume.runs;
  if (run === undefined || others.length > 0)
    throw new RingsteadError("pool-damaged", `${name} lies in ${volume.runs.length} pieces: that takes device-mapper`);
  return run;
};

/** Whether the extents from `from` to `to` are there and nobody's. */
const isFree = ({ volumes, totalExtents }: GroupFacts, from: number, to: number): boolean => {
  const isHit = ({ runs }: LogicalVolume): boolean =>
    runs.some(({ first, count }) => first < to && first + count > from);
  return to <= totalExtents && !volumes.some(isHit);
};
