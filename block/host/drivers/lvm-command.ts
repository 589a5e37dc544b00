import { existsSync } from "node:fs";
import { codeOf, RingsteadError } from "../../../common/errors.ts";
import { runCommand } from "../run-command.ts";

/** What `lvm` answers where there is no such thing, or no space for it. */
const EXIT_REFUSED = 5;
/** A udev daemon that runs makes the nodes in /dev; where none does, LVM would wait for one for ever. */
const UDEV_SOCKET = "/run/udev/control";

const NO_ARCHIVE = "backup { backup=0 archive=0 }";
/** No other daemon is to watch, or grow, what is ours. */
const NO_MONITOR = "activation { monitoring=0 }";
const NO_UDEV = "activation { udev_sync=0 udev_rules=0 monitoring=0 }";

type Row = Readonly<Record<string, string>>;

/** How `lvm` is to be run. */
export type LvmOptions = {
  /** The one device that it may look at; undefined for all that the machine's own lvm.conf lets it see. */
  readonly device: string | undefined;
  /** Without it nothing is activated, and whoever wants a volume's bytes finds them by its extents. */
  readonly hasDeviceMapper: boolean;
};

/** Runs commands of LVM. None writes into /etc/lvm. */
export class Lvm {
  readonly hasDeviceMapper: boolean;
  readonly #options: readonly string[];

  constructor({ device, hasDeviceMapper }: LvmOptions) {
    this.hasDeviceMapper = hasDeviceMapper;
    const activation = existsSync(UDEV_SOCKET) ? NO_MONITOR : NO_UDEV;
    this.#options = [
      ...(hasDeviceMapper ? [] : ["--driverloaded", "n"]),
      ...(device === undefined ? [] : ["--devices", device]),
      "--config",
      hasDeviceMapper ? `${NO_ARCHIVE} ${activation}` : NO_ARCHIVE,
    ];
  }

  /** Resolves with what it printed. Errors: those of `runCommand`. */
  run(command: string, ...rest: readonly string[]): Promise<string> {
    return runCommand("lvm", [command, ...this.#options, ...rest]);
  }

  /** Rows of `lvs`, `pvs` or `vgs`; sizes are bytes. */
  async report(command: "lvs" | "pvs" | "vgs", fields: string, ...rest: readonly string[]): Promise<readonly Row[]> {
    const form = ["--reportformat", "json", "--units", "b", "--nosuffix", "--options", fields];
    const text = await this.run(command, ...form, ...rest);
    const { report } = JSON.parse(text) as { report: Record<string, Row[]>[] };
    return report.flatMap((part) => Object.values(part).flat());
  }

  /** Resolves with false where there is too little space for it. */
  async unlessFull(command: string, ...rest: readonly string[]): Promise<boolean> {
    try {
      await this.run(command, ...rest);
      return true;
    } catch (error) {
      if (codeOf(error) !== "command-failed") throw error;
      const { exitCode, stderr } = (error as RingsteadError).fields;
      if (exitCode === EXIT_REFUSED && /insufficient/i.test(String(stderr))) return false;
      throw error;
    }
  }
}
