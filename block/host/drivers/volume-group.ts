import { RingsteadError } from "../../../common/errors.ts";
import type { LayerId } from "../core/chains.ts";
import type { Lvm } from "./lvm-command.ts";

const LAYER_NAME = /^layer-([0-9a-f]{20})$/;

/** The name of a layer's logical volume. */
export const volumeNameOf = (layer: LayerId): string => `layer-${layer}`;

/** The layer of that logical volume; undefined where it is somebody else's. */
export const layerOfVolume = (name: string): LayerId | undefined => LAYER_NAME.exec(name)?.[1];

/** Extents of one device, one after the other. */
export type Run = { readonly device: string; readonly first: number; readonly count: number };

export type LogicalVolume = {
  readonly name: string;
  readonly runs: readonly Run[];
};

export type GroupFacts = {
  readonly extentBytes: number;
  readonly totalExtents: number;
  readonly freeExtents: number;
  /** Its devices, with the bytes before the first extent of each. */
  readonly devices: readonly { readonly path: string; readonly startOffset: number; readonly extents: number }[];
  /** All that have extents, also those that are nobody's layers. */
  readonly volumes: readonly LogicalVolume[];
};

/** One volume group. */
export class VolumeGroup {
  readonly name: string;
  readonly lvm: Lvm;

  /** Requires: `name` is one that LVM takes, and no option of it: it does not begin with a dash. */
  constructor(name: string, lvm: Lvm) {
    this.name = name;
    this.lvm = lvm;
  }

  /** Makes it where the device has none. Errors: "pool-damaged" where the device belongs to another. */
  async ensure(device: string): Promise<void> {
    if (await this.exists()) return;
    const found = await this.lvm.report("pvs", "vg_name");
    const other = found.find(({ vg_name: owner }) => owner !== undefined && owner !== "");
    if (other !== undefined) {
      const owner = other["vg_name"] ?? "";
      throw new RingsteadError("pool-damaged", `${device} belongs to the volume group ${owner}, not ${this.name}`);
    }
    await this.lvm.run("pvcreate", "--yes", device);
    await this.lvm.run("vgcreate", this.name, device);
  }

  async exists(): Promise<boolean> {
    return (await this.lvm.report("vgs", "vg_name")).some(({ vg_name: name }) => name === this.name);
  }

  /** Errors: "pool-damaged" where it is not there. */
  async facts(): Promise<GroupFacts> {
    const own = ["--select", `vg_name=${this.name}`];
    const [devices, segments] = await Promise.all([
      this.lvm.report("pvs", "pv_name,pe_start,pv_pe_count,vg_extent_size,vg_extent_count,vg_free_count", ...own),
      this.lvm.report("pvs", "pv_name,pvseg_start,pvseg_size,lv_name,seg_start_pe", "--segments", ...own),
    ]);
    const [one] = devices;
    if (one === undefined) throw new RingsteadError("pool-damaged", `the volume group ${this.name} is not there`);
    return {
      extentBytes: Number(one["vg_extent_size"]),
      totalExtents: Number(one["vg_extent_count"]),
      freeExtents: Number(one["vg_free_count"]),
      devices: devices.map(({ pv_name: path = "", pe_start: start, pv_pe_count: extents }) => ({
        path,
        startOffset: Number(start),
        extents: Number(extents),
      })),
      volumes: volumesOf(segments),
    };
  }

  /** Without device-mapper: one run of extents. Resolves with false where there is none of that length. */
  create(name: string, extents: number): Promise<boolean> {
    const parts = ["--activate", "n", "--zero", "n", "--wipesignatures", "n", "--alloc", "contiguous"];
    return this.lvm.unlessFull("lvcreate", "--yes", ...parts, "--name", name, "--extents", String(extents), this.name);
  }

  /** Without device-mapper: resolves with false where what follows its extents is taken. */
  extend(name: string, extents: number): Promise<boolean> {
    return this.lvm.unlessFull("lvextend", "--alloc", "contiguous", "--extents", String(extents), this.path(name));
  }

  /** Also one that is active. */
  async remove(name: string): Promise<void> {
    await this.lvm.run("lvremove", "--yes", this.path(name));
  }

  /** As LVM takes the name of a logical volume. */
  path(name: string): string {
    return `${this.name}/${name}`;
  }
}

/** Runs of what is in the group, in the order of their volume's bytes. LVM puts the names of its inner volumes into brackets. */
const volumesOf = (rows: readonly Readonly<Record<string, string>>[]): readonly LogicalVolume[] => {
  const segments = rows
    .map(
      ({ pv_name: device = "", pvseg_start: first, pvseg_size: count, lv_name: name = "", seg_start_pe: start }) => ({
        name,
        start: Number(start),
        run: { device, first: Number(first), count: Number(count) },
      }),
    )
    .filter(({ name }) => name !== "")
    .toSorted((one, other) => one.start - other.start);
  const runs = new Map<string, Run[]>();
  for (const { name, run } of segments) {
    const own = runs.get(name) ?? [];
    runs.set(name, own);
    const last = own.at(-1);
    // A volume that was extended where it is has two segments of the device, but one run.
    const goesOn = last !== undefined && last.device === run.device && last.first + last.count === run.first;
    if (goesOn) own[own.length - 1] = { ...last, count: last.count + run.count };
    else own.push(run);
  }
  return [...runs].map(([name, own]) => ({ name, runs: own }));
};
