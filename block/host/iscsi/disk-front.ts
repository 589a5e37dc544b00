import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { open, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { RingsteadError } from "../../../common/errors.ts";
import { type ProcessIdentity, signalProcess } from "../../../common/process-identity.ts";
import { sleep } from "../../../common/worker.ts";
import { boundLog, StorageDaemon, type StorageDaemonFiles } from "../exports/storage-daemon.ts";
import { runCommand } from "../run-command.ts";

export type FrontFiles = StorageDaemonFiles & {
  /** Where the volume is a file. */
  readonly disk: string;
  /** Where its daemon serves it over NBD. */
  readonly nbdSocket: string;
};

const NODE = "disk";
const EXPORT = "disk";
/** As long as that, what was asked waits for a daemon that died to be there again. */
const RECONNECT_SECONDS = 86_400;
/** One whose daemon is away waits for it, and is deaf meanwhile; QEMU tries anew after 16 s at most. */
const PATIENCE_MS = 40_000;
const SIZE_LIMIT_MS = 10_000;
const POLL_MS = 5;
const PROBE_BYTES = 512;
/** More than ever lie upon one another: each death of a front leaves one. */
const MOUNTS_LIMIT = 64;

/** As /proc/mounts writes a path. */
const mountText = (path: string): string =>
  path.replace(/[\\ \t\n]/g, (character) => `\\${character.charCodeAt(0).toString(8).padStart(3, "0")}`);

const isMounted = (path: string): boolean =>
  readFileSync("/proc/self/mounts", "utf8").includes(` ${mountText(path)} fuse`);

/** Takes away what a front that was killed left mounted; whoever has it open keeps what is dead. */
export const unmountDisk = async (disk: string): Promise<void> => {
  for (let count = 0; isMounted(disk) && count < MOUNTS_LIMIT; count++) await runCommand("umount", ["--lazy", disk]);
};

/**
 * A volume as a file, for tgtd: a `qemu-storage-daemon` of its own, which shows through FUSE what the volume's daemon serves over NBD. It has
 * no layers and no limits, and waits where that daemon is away: what dies with the volume's daemon is asked again, and nobody above notices. It
 * does one request at a time.
 */
export class DiskFront {
  readonly #daemon: StorageDaemon;
  readonly #files: FrontFiles;
  #sizeBytes = 0;

  private constructor(files: FrontFiles, daemon: StorageDaemon) {
    this.#files = files;
    this.#daemon = daemon;
  }

  /** The front that runs already; undefined where none does. */
  static async adopted(files: FrontFiles): Promise<DiskFront | undefined> {
    const daemon = await StorageDaemon.adopted(files, PATIENCE_MS);
    return daemon === undefined ? undefined : new DiskFront(files, daemon);
  }

  /** Requires: none runs. Errors: "daemon-failed". */
  static async started(files: FrontFiles): Promise<DiskFront> {
    await unmountDisk(files.disk);
    return new DiskFront(files, await StorageDaemon.started(files));
  }

  get identity(): ProcessIdentity {
    return this.#daemon.identity;
  }

  get closed(): Promise<void> {
    return this.#daemon.closed;
  }

  get isRunning(): boolean {
    return this.#daemon.isRunning;
  }

  /** How long the file is. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Opens the volume and shows it, where it does not yet. Requires: its daemon serves `exportName`. */
  async show(exportName: string, isReadOnly: boolean): Promise<void> {
    const { disk, nbdSocket } = this.#files;
    await this.#daemon.unlessDone(
      "blockdev-add",
      {
        driver: "nbd",
        "node-name": NODE,
        server: { type: "unix", path: nbdSocket },
        export: exportName,
        "reconnect-delay": RECONNECT_SECONDS,
        discard: "unmap",
      },
      /Duplicate|already in use/i,
    );
    const shown = (await this.#daemon.ask("query-block-exports")) as readonly object[];
    if (shown.length === 0) {
      await unmountDisk(disk);
      mkdirSync(dirname(disk), { recursive: true, mode: 0o700 });
      writeFileSync(disk, "", { mode: 0o600 });
      const what = { type: "fuse", id: EXPORT, "node-name": NODE, mountpoint: disk, "allow-other": "off" };
      await this.#daemon.ask("block-export-add", { ...what, writable: !isReadOnly });
    }
    boundLog(this.#files.log);
    this.#sizeBytes = (await stat(disk)).size;
  }

  /** Everything waits from now on until `letGo`. */
  hold(): void {
    signalProcess(this.identity, "SIGSTOP");
  }

  letGo(): void {
    signalProcess(this.identity, "SIGCONT");
  }

  /** Resolves once the file has the size. Requires: the volume's daemon serves it with that size. */
  async grow(sizeBytes: number): Promise<void> {
    // QEMU learns of a new size when it connects, and connects when something is asked of it.
    const file = await open(this.#files.disk, "r");
    try {
      await file.read(Buffer.alloc(PROBE_BYTES), 0, PROBE_BYTES, 0);
    } finally {
      await file.close();
    }
    await this.#daemon.ask("block_resize", { "node-name": NODE, size: sizeBytes });
    // The kernel keeps a file's size for a second.
    const deadline = performance.now() + SIZE_LIMIT_MS;
    for (;;) {
      this.#sizeBytes = (await stat(this.#files.disk)).size;
      if (this.#sizeBytes === sizeBytes) return;
      if (performance.now() > deadline)
        throw new RingsteadError("daemon-lost", `the volume's file does not get ${sizeBytes} bytes long`);
      await sleep(POLL_MS);
    }
  }

  release(): void {
    this.#daemon.release();
  }

  /** Requires: tgtd does not have it open any more, or does not run. */
  async end(): Promise<void> {
    this.letGo();
    await this.#daemon.end();
    await unmountDisk(this.#files.disk);
  }
}
