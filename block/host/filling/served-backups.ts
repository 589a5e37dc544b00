import { codeOf, messageOf, RingsteadError } from "../../../common/errors.ts";
import type { Log } from "../../../common/log.ts";
import { sleep } from "../../../common/worker.ts";
import type { BackupContents } from "../../backup/backup-contents.ts";
import type { BackupPart } from "../../backup/backup-reader.ts";
import type { BackupId, Layer, LayerId } from "../core/chains.ts";
import { type NbdExport, NbdServer } from "./nbd-server.ts";

/** For so long a read waits for an object store that does not answer; then whoever reads the volume gets an error, and may ask again. */
const PATIENCE_MS = 45_000;
const RETRY_MS = 500;
/** What asking again does not change. */
const FINAL_CODES = new Set(["backup-damaged", "backup-key-unknown", "object-store-refused"]);

type ServedBackupsOptions = {
  readonly socketPath: string;
  /** Undefined where there is no such layer. */
  layer(this: void, id: LayerId): Layer | undefined;
  /** Undefined where this host cannot read backups. */
  readonly contents: BackupContents | undefined;
  readonly log: Log;
};

/**
 * Backups as the lowest layers of volumes that are restored: each is an export of the name of its layer, which daemons read what is not in the volume yet
 * from. A daemon whose connection ends, because this process did, waits for the next one.
 */
export class ServedBackups implements AsyncDisposable {
  readonly #options: ServedBackupsOptions;
  readonly #server: NbdServer;
  /** What is wrong with backups that were read. */
  readonly #damages = new Map<string, string>();
  readonly #stop = new AbortController();

  constructor(options: ServedBackupsOptions) {
    this.#options = options;
    this.#server = new NbdServer((name) => this.#exportOf(name), options.log);
  }

  listen(): Promise<void> {
    return this.#server.listen(this.#options.socketPath);
  }

  /** Resolves where the backup is there and has that size. Errors: "backup-damaged", "backups-unavailable", those of the object store. */
  async check(place: BackupId & { readonly sizeBytes: number }): Promise<void> {
    const sizeBytes = await this.#contents().size(place);
    if (sizeBytes !== place.sizeBytes)
      throw new RingsteadError("backup-damaged", `backup ${place.backupId} has ${sizeBytes} bytes`);
    this.#damages.delete(place.backupId);
  }

  /** What of the backup could not be read. */
  damageOf(backupId: string): string | undefined {
    return this.#damages.get(backupId);
  }

  /** The layer is gone. */
  close(id: LayerId): void {
    const backup = this.#options.layer(id)?.backup;
    if (backup === undefined) return;
    this.#options.contents?.forget(backup.backupId);
    this.#damages.delete(backup.backupId);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#server[Symbol.asyncDispose]();
  }

  #contents(): BackupContents {
    const { contents } = this.#options;
    if (contents !== undefined) return contents;
    throw new RingsteadError("backups-unavailable", "this host has no object service to read backups from");
  }

  #exportOf(name: string): NbdExport | undefined {
    const layer = this.#options.layer(name);
    const backup = layer?.backup;
    if (layer === undefined || backup === undefined) return undefined;
    return { sizeBytes: layer.virtualBytes, read: (offset, length) => this.#read(backup, offset, length) };
  }

  async #read(backup: BackupId, offset: number, length: number): Promise<readonly BackupPart[]> {
    const deadline = performance.now() + PATIENCE_MS;
    for (;;) {
      try {
        return await this.#contents().read(backup, offset, length);
      } catch (error) {
        const isFinal = FINAL_CODES.has(codeOf(error) ?? "");
        if (isFinal) this.#damages.set(backup.backupId, messageOf(error));
        if (isFinal || performance.now() > deadline || this.#stop.signal.aborted) throw error;
        await sleep(RETRY_MS, this.#stop.signal);
      }
    }
  }
}
