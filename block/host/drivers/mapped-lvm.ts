import { RingsteadError } from "../../../common/errors.ts";
import { runCommand } from "../run-command.ts";
import type { LayerId } from "../core/chains.ts";
import type { Capacity, Driver, Place } from "./driver.ts";
import { ERASE_TIMEOUT_MS, erase } from "./erase.ts";
import type { GroupBase } from "./group-base.ts";
import { growingFrom, growingTag } from "./growing-tag.ts";
import { layerOfVolume, type VolumeGroup, volumeNameOf } from "./volume-group.ts";

/** The logical volume that thin layers take their space from. */
export const THIN_POOL = "ringstead-pool";
/** Of what is free: the rest is for the pool's own tables, when they grow or are repaired. */
const THIN_POOL_SHARE = "95%FREE";
/** A pool whose tables are full takes no write at all, whatever its data has left. */
const TABLES_FULL_PERCENT = 95;
/** Commands with a word for each layer are given so many at once. */
const LAYERS_A_COMMAND = 500;

type Mapped = {
  readonly layer: LayerId;
  readonly name: string;
  readonly path: string;
  readonly sizeBytes: number;
  readonly isThin: boolean;
  readonly isActive: boolean;
  readonly isOpen: boolean;
  readonly tags: string;
};

/** Percentages of what is taken. */
type PoolUse = { readonly sizeBytes: number; readonly dataPercent: number; readonly tablesPercent: number };
type State = { readonly layers: readonly Mapped[]; readonly pool: PoolUse | undefined };

/** Makes the thin pool where there is none. Errors: "pool-full" where the group has no room for one. */
export const ensureThinPool = async (group: VolumeGroup): Promise<void> => {
  const rows = await group.lvm.report("lvs", "lv_name,lv_when_full", group.name);
  const there = rows.find(({ lv_name: name }) => name === THIN_POOL);
  if (there === undefined) {
    const parts = ["--type", "thin-pool", "--extents", THIN_POOL_SHARE, "--name", THIN_POOL];
    // Blocks are zeroed before a layer has them, and those that it gives back are given back below.
    const manners = ["--zero", "y", "--discards", "passdown"];
    if (!(await group.lvm.unlessFull("lvcreate", "--yes", ...parts, ...manners, group.name)))
      throw new RingsteadError("pool-full", `the volume group ${group.name} has no room for a thin pool`);
  }
  // Who finds no block left is told at once, instead of waiting a minute for somebody to extend the pool.
  if (there?.["lv_when_full"] !== "error")
    await group.lvm.run("lvchange", "--errorwhenfull", "y", group.path(THIN_POOL));
};

/**
 * A logical volume for each layer, as a block device of device-mapper: `/dev/GROUP/layer-ID`. Where the group has a thin pool, layers are thin: a
 * block is taken, and zeroed, when it is first written to, and what is discarded is free again. Else a layer has all its extents from the
 * beginning, wherever they are. Layers of either kind are served whichever is made now.
 */
export class MappedLvmDriver implements Driver {
  readonly kind = "lvm";
  readonly growsByItself = false;
  readonly #group: VolumeGroup;
  readonly #base: GroupBase;
  readonly #isThin: boolean;
  /** LVM decides by what it read before: two commands at once could each find the same last extents free. */
  #last: Promise<unknown> = Promise.resolve();

  private constructor(group: VolumeGroup, base: GroupBase, isThin: boolean) {
    this.#group = group;
    this.#base = base;
    this.#isThin = isThin;
  }

  /** Makes devices of all layers that are there. Requires: the group is there, and with `isThin` its thin pool. */
  static async opened(group: VolumeGroup, base: GroupBase, isThin: boolean): Promise<MappedLvmDriver> {
    const { layers } = await stateOf(group);
    const closed = layers.filter(({ isActive }) => !isActive).map(({ name }) => name);
    await activate(group, "y", closed);
    return new MappedLvmDriver(group, base, isThin);
  }

  capacity(): Promise<Capacity> {
    return this.#inTurn(() => this.#capacity());
  }

  create(layer: LayerId, sizeBytes: number): Promise<void> {
    return this.#inTurn(async () => {
      const there = await this.#find(layer);
      // It was to be made before, and no byte of it was ever used.
      if (there !== undefined) await this.#remove(there);
      const { extentBytes } = await this.#group.facts();
      const extents = Math.ceil(sizeBytes / extentBytes);
      const { freeBytes } = await this.#capacity();
      const isRoom = this.#isThin ? freeBytes > 0 : extents * extentBytes <= freeBytes;
      if (!isRoom || !(await this.#make(layer, extents, extentBytes)))
        throw new RingsteadError("pool-full", `the pool has no ${sizeBytes} bytes`, { freeBytes });
      const made = await this.#found(layer);
      // Extents hold what somebody wrote to them; blocks of a thin pool do not.
      if (!made.isThin) await erase(made.path, 0, made.sizeBytes);
    });
  }

  grow(layer: LayerId, sizeBytes: number): Promise<boolean> {
    return this.#inTurn(async () => {
      const there = await this.#found(layer);
      const { extentBytes } = await this.#group.facts();
      const wanted = Math.ceil(sizeBytes / extentBytes);
      const path = this.#group.path(there.name);
      if (there.isThin) {
        if (there.sizeBytes < wanted * extentBytes) await this.#extend(path, wanted);
        return true;
      }
      const had = Math.round(there.sizeBytes / extentBytes);
      const begun = growingFrom(there.tags);
      if (begun === undefined && had >= wanted) return true;
      // Nobody reads beyond the layer's old end before this resolves; who does it again after a kill erases from there.
      const from = begun ?? had;
      if (begun === undefined) await this.#group.lvm.run("lvchange", "--addtag", growingTag(from), path);
      if (had < wanted) await this.#extend(path, wanted);
      const grown = await this.#found(layer);
      await erase(grown.path, from * extentBytes, grown.sizeBytes - from * extentBytes);
      await this.#group.lvm.run("lvchange", "--deltag", growingTag(from), path);
      return true;
    });
  }

  remove(layer: LayerId): Promise<void> {
    return this.#inTurn(async () => {
      const there = await this.#find(layer);
      if (there !== undefined) await this.#remove(there);
    });
  }

  place(layer: LayerId): Promise<Place | undefined> {
    return this.#inTurn(async () => {
      const there = await this.#find(layer);
      if (there === undefined) return undefined;
      const { path, sizeBytes, isThin } = there;
      return { path, kind: "device", offset: 0, sizeBytes, isShared: false, ...(isThin ? { isThin } : {}) };
    });
  }

  layers(): Promise<readonly LayerId[]> {
    return this.#inTurn(async () => (await stateOf(this.#group)).layers.map(({ layer }) => layer));
  }

  /** Devices that daemons have open stay, with what they lie on, and are found again. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#last;
    await closeGroup(this.#group, this.#base);
  }

  async #capacity(): Promise<Capacity> {
    const { pool } = await stateOf(this.#group);
    if (this.#isThin && pool !== undefined) {
      const hasTables = pool.tablesPercent < TABLES_FULL_PERCENT;
      const unwritten = hasTables ? Math.floor(pool.sizeBytes * (1 - pool.dataPercent / 100)) : 0;
      const freeBytes = Math.min(unwritten, await this.#base.writableBytes());
      return { totalBytes: pool.sizeBytes, freeBytes, isThin: true };
    }
    const { extentBytes, totalExtents, freeExtents } = await this.#group.facts();
    const room = await this.#base.roomBytes((totalExtents - freeExtents) * extentBytes);
    const freeBytes = Math.min(freeExtents, Math.floor(room / extentBytes)) * extentBytes;
    return { totalBytes: totalExtents * extentBytes, freeBytes, isThin: false };
  }

  #make(layer: LayerId, extents: number, extentBytes: number): Promise<boolean> {
    const space = this.#isThin
      ? ["--type", "thin", "--thinpool", THIN_POOL, "--virtualsize", `${extents * extentBytes}b`]
      : ["--type", "linear", "--zero", "n", "--extents", String(extents)];
    const parts = ["--activate", "y", "--wipesignatures", "n", "--name", volumeNameOf(layer), ...space];
    return this.#group.lvm.unlessFull("lvcreate", "--yes", ...parts, this.#group.name);
  }

  async #extend(path: string, extents: number): Promise<void> {
    if (!(await this.#group.lvm.unlessFull("lvextend", "--extents", String(extents), path)))
      throw new RingsteadError("pool-full", `the pool has no room for ${path} to grow`);
  }

  async #remove({ name, path, sizeBytes, isThin, isActive }: Mapped): Promise<void> {
    if (!isActive) await activate(this.#group, "y", [name]);
    if (isThin) await runCommand("blkdiscard", ["--force", path], ERASE_TIMEOUT_MS);
    else await erase(path, 0, sizeBytes);
    await this.#group.remove(name);
  }

  async #find(layer: LayerId): Promise<Mapped | undefined> {
    return (await stateOf(this.#group)).layers.find((one) => one.layer === layer);
  }

  async #found(layer: LayerId): Promise<Mapped> {
    const there = await this.#find(layer);
    if (there === undefined)
      throw new RingsteadError("pool-damaged", `the logical volume ${volumeNameOf(layer)} is gone`);
    return there;
  }

  #inTurn<Result>(action: () => Promise<Result>): Promise<Result> {
    const result = this.#last.then(action);
    this.#last = result.catch(() => undefined);
    return result;
  }
}

/** Takes down the devices of layers that nobody has open, and once all are, what the group lies on. */
export const closeGroup = async (group: VolumeGroup, base: GroupBase): Promise<void> => {
  const { layers, pool } = await stateOf(group);
  const active = layers.filter(({ isActive }) => isActive);
  const closed = active.filter(({ isOpen }) => !isOpen).map(({ name }) => name);
  await activate(group, "n", closed);
  if (closed.length < active.length) return;
  if (pool !== undefined) await activate(group, "n", [THIN_POOL]);
  await base.release();
};

const activate = async (group: VolumeGroup, how: "y" | "n", names: readonly string[]): Promise<void> => {
  for (let done = 0; done < names.length; done += LAYERS_A_COMMAND) {
    const paths = names.slice(done, done + LAYERS_A_COMMAND).map((name) => group.path(name));
    await group.lvm.run("lvchange", "--activate", how, ...paths);
  }
};

const STATE_FIELDS =
  "lv_name,lv_path,lv_size,lv_active,lv_device_open,lv_tags,pool_lv,data_percent,metadata_percent" as const;

const stateOf = async (group: VolumeGroup): Promise<State> => {
  const rows = await group.lvm.report("lvs", STATE_FIELDS, group.name);
  const layers = rows.flatMap((row): Mapped[] => {
    const { lv_name: name = "", lv_path: path = "", lv_size: size, lv_tags: tags = "", pool_lv: pool } = row;
    const layer = layerOfVolume(name);
    if (layer === undefined) return [];
    const isActive = row["lv_active"] === "active";
    const isOpen = row["lv_device_open"] === "open";
    return [{ layer, name, path, sizeBytes: Number(size), isThin: pool === THIN_POOL, isActive, isOpen, tags }];
  });
  const pool = rows.find(({ lv_name: name }) => name === THIN_POOL);
  if (pool === undefined) return { layers, pool };
  const sizeBytes = Number(pool["lv_size"]);
  const [dataPercent, tablesPercent] = [Number(pool["data_percent"]), Number(pool["metadata_percent"])];
  return { layers, pool: { sizeBytes, dataPercent, tablesPercent } };
};
