import { codeOf, messageOf, RingsteadError } from "../../../common/errors.ts";
import type { Log } from "../../../common/log.ts";
import { sleep } from "../../../common/worker.ts";
import type { BackupContents } from "../../backup/backup-contents.ts";
import type { BackupPart } from "../../backup/backup-reader.ts";
import type { BackupId, Layer, LayerId } from "../core/chains.ts";
import { type NbdExport, NbdServer } from "./nbd-server.ts";

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
  /** In the place of READ_PATIENCE_MS, for tests. */
  readonly patienceMs?: number;
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
    const { log, patienceMs } = options;
    const find = (name: string): NbdExport | undefined => this.#exportOf(name);
    this.#server = new NbdServer({ find, log, ...(patienceMs === undefined ? {} : { patienceMs }) });
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
    const read: NbdExport["read"] = (offset, length, signal) =>
      this.#read(backup, offset, length, AbortSignal.any([signal, this.#stop.signal]));
    return { sizeBytes: layer.virtualBytes, read };
  }

  /** Waits for an object store that does not answer as long as the signal lets it. */
  async #read(backup: BackupId, offset: number, length: number, signal: AbortSignal): Promise<readonly BackupPart[]> {
    for (;;) {
      try {
        return await orAway(this.#contents().read(backup, offset, length), signal);
      } catch (error) {
        const isFinal = FINAL_CODES.has(codeOf(error) ?? "");
        if (isFinal) this.#damages.set(backup.backupId, messageOf(error));
        if (isFinal || signal.aborted) throw error;
        await sleep(RETRY_MS, signal);
        if (signal.aborted) throw error;
      }
    }
  }
}

/** What the promise gives, or that the object store is away where the signal aborts before; what it gives then is nobody's. */
const orAway = <Value>(promise: Promise<Value>, signal: AbortSignal): Promise<Value> =>
  new Promise((resolve, reject) => {
    const giveUp = (): void =>
      reject(new RingsteadError("object-store-away", "the object store does not answer in time"));
    signal.addEventListener("abort", giveUp, { once: true });
    if (signal.aborted) giveUp();
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", giveUp));
  });
