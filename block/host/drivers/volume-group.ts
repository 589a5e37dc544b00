import { codeOf, RingsteadError } from "../../../common/errors.ts";
import { runCommand } from "../run-command.ts";

/**
 * Every command of LVM names the one device that it may look at, writes nothing into /etc/lvm, and does without device-mapper: nothing is
 * activated, and whoever wants a volume's bytes finds them by its extents.
 */
const optionsFor = (device: string): readonly string[] => [
  "--driverloaded",
  "n",
  "--devices",
  device,
  "--config",
  "backup { backup=0 archive=0 }",
];

/** What `lvm` answers where there is no such thing, or no space for it. */
const EXIT_REFUSED = 5;

type Run = { readonly first: number; readonly count: number };

export type LogicalVolume = {
  readonly name: string;
  /** Extents of its volume, one run after the other. */
  readonly run: Run;
};

export type GroupFacts = {
  readonly extentBytes: number;
  readonly totalExtents: number;
  readonly freeExtents: number;
  /** Bytes before the first extent. */
  readonly startOffset: number;
  readonly volumes: readonly LogicalVolume[];
};

const rowsOf = (text: string, what: "lv" | "vg" | "pv"): readonly Readonly<Record<string, string>>[] => {
  const { report } = JSON.parse(text) as { report: Record<string, Record<string, string>[]>[] };
  return report.flatMap((part) => part[what] ?? []);
};

const runOf = (name: string, text: string): Run => {
  const match = /:(\d+)-(\d+)$/.exec(text);
  if (match === null) throw new RingsteadError("pool-damaged", `LVM says that ${name} lies at "${text}"`);
  const first = Number(match[1]);
  return { first, count: Number(match[2]) - first + 1 };
};

/** One volume group on one device. */
export class VolumeGroup {
  readonly #name: string;
  readonly #device: string;

  /** Requires: `name` is made of lower-case letters, digits and dashes, and begins with a letter. */
  constructor(name: string, device: string) {
    this.#name = name;
    this.#device = device;
  }

  /** Makes it where the device has none. Errors: "pool-damaged" where the device belongs to another. */
  async ensure(): Promise<void> {
    if (await this.#exists()) return;
    const found = rowsOf(await this.#report("pvs", "vg_name"), "pv");
    const other = found.find(({ vg_name: owner }) => owner !== undefined && owner !== "");
    if (other !== undefined) {
      const owner = other["vg_name"] ?? "";
      throw new RingsteadError(
        "pool-damaged",
        `${this.#device} belongs to the volume group ${owner}, not ${this.#name}`,
      );
    }
    await this.#lvm("pvcreate", "--yes", this.#device);
    await this.#lvm("vgcreate", this.#name, this.#device);
  }

  async facts(): Promise<GroupFacts> {
    const fields = "pe_start,vg_extent_size,vg_extent_count,vg_free_count";
    const [groups, volumes] = await Promise.all([
      this.#report("pvs", fields, "--select", `vg_name=${this.#name}`),
      this.#report("lvs", "lv_name,seg_pe_ranges", this.#name),
    ]);
    const [group] = rowsOf(groups, "pv");
    if (group === undefined) throw new RingsteadError("pool-damaged", `the volume group ${this.#name} is not there`);
    return {
      extentBytes: Number(group["vg_extent_size"]),
      totalExtents: Number(group["vg_extent_count"]),
      freeExtents: Number(group["vg_free_count"]),
      startOffset: Number(group["pe_start"]),
      volumes: rowsOf(volumes, "lv").map(({ lv_name: name = "", seg_pe_ranges: ranges = "" }) => ({
        name,
        run: runOf(name, ranges),
      })),
    };
  }

  /** One run of extents. Resolves with false where there is none of that length. */
  async create(name: string, extents: number): Promise<boolean> {
    const parts = ["--activate", "n", "--zero", "n", "--wipesignatures", "n", "--alloc", "contiguous"];
    return this.#unlessRefused("lvcreate", "--yes", ...parts, "--name", name, "--extents", String(extents), this.#name);
  }

  /** Resolves with false where what follows its extents is taken. */
  async extend(name: string, extents: number): Promise<boolean> {
    return this.#unlessRefused("lvextend", "--alloc", "contiguous", "--extents", String(extents), this.#path(name));
  }

  async remove(name: string): Promise<void> {
    await this.#lvm("lvremove", "--yes", this.#path(name));
  }

  #path(name: string): string {
    return `${this.#name}/${name}`;
  }

  async #exists(): Promise<boolean> {
    const groups = rowsOf(await this.#report("vgs", "vg_name"), "vg");
    return groups.some(({ vg_name: name }) => name === this.#name);
  }

  #report(command: string, fields: string, ...rest: readonly string[]): Promise<string> {
    return this.#lvm(command, "--reportformat", "json", "--units", "b", "--nosuffix", "--options", fields, ...rest);
  }

  #lvm(command: string, ...rest: readonly string[]): Promise<string> {
    return runCommand("lvm", [command, ...optionsFor(this.#device), ...rest]);
  }

  async #unlessRefused(command: string, ...rest: readonly string[]): Promise<boolean> {
    try {
      await this.#lvm(command, ...rest);
      return true;
    } catch (error) {
      if (codeOf(error) !== "command-failed") throw error;
      const { exitCode, stderr } = (error as RingsteadError).fields;
      if (exitCode === EXIT_REFUSED && /insufficient|Insufficient/.test(String(stderr))) return false;
      throw error;
    }
  }
}
