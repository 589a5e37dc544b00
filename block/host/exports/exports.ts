import { rmSync } from "node:fs";
import { codeOf, messageOf, RingsteadError } from "../../../common/errors.ts";
import type { Log } from "../../../common/log.ts";
import type { RunningExport, VolumeExport, WantedExport } from "../../volume-host.ts";
import type { Flatten, LayerCopy, LayerId, Merge } from "../core/chains.ts";
import type { VolumeLimits } from "../../core/qos-limits.ts";
import type { HostPaths } from "../paths.ts";
import { ensureChapSecret } from "../iscsi/chap-secret.ts";
import { DISK_NUMBER, IscsiExports, targetNameOf, type WantedDisk } from "../iscsi/iscsi-exports.ts";
import { type AttachmentRecord, type ExportRecord, ExportRecords } from "../store/export-records.ts";
import { nodeOf, type PlacedLayer } from "./block-graph.ts";
import { ensureCredential, removeCredential, writeServerKeys } from "./credentials.ts";
import { type DaemonFiles, ExportDaemon, type Listening, type CopyProgress } from "./export-daemon.ts";
import { refuseCompany, refuseMixture } from "./refuse-mixture.ts";
import {
  DISK_EXPORT,
  discardsAreZeros,
  diskOf,
  hasDisk,
  servedOf,
  sizeOf,
  withoutAttachments,
} from "./served-attachments.ts";

/** Volumes that one host can export over TCP, each at a port of its own. */
const PORTS_LIMIT = 1000;

export type ExportsOptions = {
  readonly paths: HostPaths;
  /** Where TCP is listened on, and the first of its ports. */
  readonly host: string;
  /** What clients are told to connect to. */
  readonly publicHost: string;
  readonly firstPort: number;
  /** Where all volumes are served that are over iSCSI. */
  readonly iscsiPort: number;
  readonly log: Log;
  /** What a volume reads through now, its top first, as far as `top`. */
  chainOf(this: void, volumeId: string, top?: LayerId, sizeBytes?: number): Promise<readonly PlacedLayer[]>;
  /** What the volume may do in a second. */
  limitsOf(this: void, volumeId: string): VolumeLimits;
  /** Called when a daemon is gone that nobody ended. */
  onLost(this: void, volumeId: string): void;
};

const unfinished = (error: unknown): RingsteadError =>
  new RingsteadError("daemon-lost", `the change is not finished: ${messageOf(error)}`);

/**
 * Which volumes are served, and the daemons that do it. A volume that is not exported has a daemon as long as its layers are merged: its record
 * has no attachments. What is to be served is written before it is; a daemon that ended is started again from
 * that by `ensure`. The caller sees to it that two calls for one volume are not under way at once.
 */
export class Exports {
  readonly #options: ExportsOptions;
  readonly #records: ExportRecords;
  readonly #daemons = new Map<string, ExportDaemon>();
  readonly #iscsi: IscsiExports;
  /** Those whose daemon serves all that it should. */
  readonly #served = new Set<string>();

  /** Errors: "records-damaged". */
  constructor(options: ExportsOptions) {
    this.#options = options;
    this.#records = new ExportRecords(options.paths.exportRecords);
    this.#iscsi = new IscsiExports({
      ...options,
      port: options.iscsiPort,
      onLost: (volumeIds) => {
        for (const volumeId of volumeIds) options.onLost(volumeId);
      },
    });
  }

  /** Volumes that have a daemon, or should. */
  get volumeIds(): readonly string[] {
    return this.#records.all.map(({ volumeId }) => volumeId);
  }

  isExported(volumeId: string): boolean {
    return (this.#records.of(volumeId)?.attachments.length ?? 0) > 0;
  }

  /** Whether its daemon does all that it should; one that is not exported needs none. */
  isServed(volumeId: string): boolean {
    if (!this.#served.has(volumeId) || this.#daemons.get(volumeId)?.isRunning !== true) return false;
    return !hasDisk(this.#records.of(volumeId)) || this.#iscsi.isServed(volumeId);
  }

  running(): readonly RunningExport[] {
    return this.#records.all.flatMap(({ volumeId, attachments }) => {
      const daemon = this.#daemons.get(volumeId);
      if (daemon === undefined || attachments.length === 0 || !this.isServed(volumeId)) return [];
      return [{ volumeId, attachmentIds: attachments.map(({ attachmentId }) => attachmentId), ...daemon.identity }];
    });
  }

  /** Finds the daemon that serves the volume since before this process; starts none. */
  async adopt(volumeId: string): Promise<void> {
    if (this.#daemons.get(volumeId)?.isRunning === true) return;
    const daemon = await ExportDaemon.adopted(this.#filesOf(volumeId));
    if (daemon !== undefined) this.#keep(volumeId, daemon);
  }

  /** Sees to it that the volume is served as it should be. Errors: "daemon-failed", "daemon-refused", "port-unavailable". */
  async ensure(volumeId: string): Promise<void> {
    if (this.isExported(volumeId)) await this.#run(volumeId);
    else await this.#endUnlessExported(volumeId);
  }

  async #run(volumeId: string): Promise<void> {
    const record = this.#records.of(volumeId);
    if (record === undefined) return;
    // Before its export is cut off: what it has under way would wait for that.
    if (!hasDisk(record)) await this.#iscsi.remove(volumeId);
    const before = this.#daemons.get(volumeId);
    if (before !== undefined && !before.isRunning) this.#forget(volumeId, before);
    await this.adopt(volumeId);
    const daemon = this.#daemons.get(volumeId) ?? (await this.#start(volumeId));
    const { pid, startTime } = daemon.identity;
    if (record.pid !== pid || record.startTime !== startTime) this.#records.set({ ...record, pid, startTime });
    if (record.port !== undefined) this.#writeKeys(record);
    const chain = await this.#options.chainOf(volumeId);
    await daemon.open(chain);
    await daemon.limit(this.#options.limitsOf(volumeId));
    if (record.attachments.length > 0) await this.#listen(daemon, volumeId);
    await daemon.serve(servedOf(record));
    const disk = this.#diskOf(record, chain, daemon);
    if (disk !== undefined) await this.#iscsi.ensure(disk);
    this.#served.add(volumeId);
    daemon.boundLog();
  }

  /**
   * `isWriter`: for a session of this process that nobody else's export goes beside (`endSessions`). Errors: "port-unavailable", "volume-in-use",
   * "daemon-failed". Requires: there is such a volume.
   */
  async export(wanted: WantedExport, isWriter = false): Promise<VolumeExport> {
    const { volumeId, attachmentId, transport, initiator, isReadOnly, isWriteThrough = false } = wanted;
    // What was left half ended listens elsewhere.
    if (!this.#served.has(volumeId)) await this.#endUnlessExported(volumeId);
    const before = this.#records.of(volumeId);
    const own = before?.attachments.find((one) => one.attachmentId === attachmentId);
    if (before !== undefined && before.attachments.length > 0) {
      refuseCompany(before, wanted, isWriter);
      refuseMixture(before, wanted);
    }
    if (own === undefined) {
      const folder = this.#options.paths.credentialFolder(attachmentId);
      if (transport === "tcp") ensureCredential(folder, attachmentId);
      if (transport === "iscsi") ensureChapSecret(folder);
      const added: AttachmentRecord = {
        attachmentId,
        isReadOnly,
        ...(isWriteThrough ? { isWriteThrough } : {}),
        ...(transport === "iscsi" ? { isIscsi: true } : {}),
        ...(isWriter ? { isWriter } : {}),
        ...(initiator === undefined ? {} : { initiator }),
      };
      const attachments = [...(before?.attachments ?? []), added];
      this.#records.set({
        ...(before ?? { role: `export:${volumeId}`, volumeId, pid: 0, startTime: 0 }),
        ...(transport === "tcp" ? { port: before?.port ?? this.#freePort() } : {}),
        attachments,
      });
    }
    try {
      await this.ensure(volumeId);
    } catch (error) {
      if (own === undefined) await this.unexport(volumeId, attachmentId);
      throw error;
    }
    return this.#describe(volumeId, attachmentId);
  }

  /** Cuts the attachment off, or all of them; the daemon ends with the last. */
  async unexport(volumeId: string, attachmentId: string | undefined): Promise<void> {
    const isChosen = (one: AttachmentRecord): boolean =>
      attachmentId === undefined || one.attachmentId === attachmentId;
    const isFound = await this.#unexport(volumeId, isChosen);
    // Who was not cut off the last time, because something failed, is now.
    if (!isFound && !this.isServed(volumeId)) await this.#ensureCutOff(volumeId);
  }

  /** Closes what a process before this one had open for itself: nobody comes back to it. */
  async endSessions(volumeId: string): Promise<void> {
    await this.#unexport(volumeId, ({ isWriter }) => isWriter === true);
  }

  /** Resolves with whether there were any. */
  async #unexport(volumeId: string, isChosen: (attachment: AttachmentRecord) => boolean): Promise<boolean> {
    const record = this.#records.of(volumeId);
    const chosen = record?.attachments.filter(isChosen) ?? [];
    if (record === undefined || chosen.length === 0) return false;
    const attachments = record.attachments.filter((one) => !isChosen(one));
    if (this.#iscsi.hasFront(volumeId) && !hasDisk({ ...record, attachments })) await this.#lastChance(volumeId);
    for (const { attachmentId } of chosen) removeCredential(this.#options.paths.credentialFolder(attachmentId));
    // Not all that it should until this has succeeded: `ensure` goes on with it.
    this.#served.delete(volumeId);
    if (attachments.length > 0) this.#records.set({ ...record, attachments });
    if (attachments.length > 0) await this.#ensureCutOff(volumeId);
    else await this.#endWithRecord(volumeId);
    return true;
  }

  /** As `ensure`. Where the others cannot be served, that is said where nobody gets at the volume who should not; the next look tries again. */
  async #ensureCutOff(volumeId: string): Promise<void> {
    try {
      await this.ensure(volumeId);
    } catch (error) {
      if (await this.#mayServeOthers(volumeId)) throw error;
      this.#options.log.warn("who stays attached is not served", { volumeId, error });
    }
  }

  async #mayServeOthers(volumeId: string): Promise<boolean> {
    if (this.#iscsi.hasFront(volumeId)) return true;
    const [record, daemon] = [this.#records.of(volumeId), this.#running(volumeId)];
    if (daemon === undefined) return false;
    return !(await daemon.servesOnly(record === undefined ? [] : servedOf(record)).catch(() => false));
  }

  /** What a disk's front was answered and has not flushed would go with it: a daemon takes it in before, where there can be one. */
  async #lastChance(volumeId: string): Promise<void> {
    const warn = (error: unknown): void =>
      this.#options.log.warn("a disk is detached without its volume's daemon", { volumeId, error });
    if (this.#running(volumeId) === undefined) await this.ensure(volumeId).catch(warn);
    if (this.#running(volumeId) !== undefined) await this.#iscsi.settled(volumeId).catch(warn);
  }

  /** Has the volume's daemon keep what limits it has now; clients go on. Errors: "daemon-refused", "daemon-lost". */
  async limit(volumeId: string): Promise<void> {
    if (this.isServed(volumeId)) await this.#running(volumeId)?.limit(this.#options.limitsOf(volumeId));
  }

  /** Begins to copy layers, upon a daemon that does nothing else where the volume is not exported. Errors: "daemon-refused". */
  async startCopy(volumeId: string, copy: LayerCopy): Promise<void> {
    if (this.#records.of(volumeId) === undefined)
      this.#records.set({ role: `export:${volumeId}`, volumeId, pid: 0, startTime: 0, attachments: [] });
    try {
      await this.#run(volumeId);
      await this.#running(volumeId)?.startCopy(copy);
    } catch (error) {
      await this.#endUnlessExported(volumeId);
      throw error;
    }
  }

  async copyProgress(volumeId: string): Promise<CopyProgress> {
    return (await this.#running(volumeId)?.copyProgress()) ?? { state: "none" };
  }

  /** Errors: "copy-failed", "daemon-lost". */
  async holdCopy(volumeId: string, copy: LayerCopy): Promise<void> {
    const daemon = this.#running(volumeId);
    if (daemon === undefined) throw new RingsteadError("copy-failed", "the daemon that copied is gone");
    await daemon.holdCopy(copy);
  }

  async stopCopy(volumeId: string): Promise<void> {
    await this.#running(volumeId)?.stopCopy();
    await this.#endUnlessExported(volumeId);
  }

  /** One that does not leave the layer is killed before it answers a client that waits: the next one never opens it. Errors: "daemon-refused", "daemon-lost". */
  async leave(volumeId: string, merge: Merge, isTop: boolean): Promise<void> {
    try {
      await this.#running(volumeId)?.leave(merge, isTop);
    } catch (error) {
      if (codeOf(error) === "daemon-refused") await this.#end(volumeId, 0);
      throw error;
    }
    await this.#endUnlessExported(volumeId);
  }

  /** As `leave`: one that keeps what is below open is killed, since somebody erases that. Errors: "daemon-refused", "daemon-lost". */
  async cut(volumeId: string, flatten: Flatten): Promise<void> {
    try {
      await this.#running(volumeId)?.cut(flatten);
    } catch (error) {
      if (codeOf(error) === "daemon-refused") await this.#end(volumeId, 0);
      throw error;
    }
    await this.#endUnlessExported(volumeId);
  }

  /** Clients go on, and all that they write goes to `layer`. Errors: "daemon-refused", with nothing written to it yet, "daemon-lost". */
  switchTo(volumeId: string, layer: LayerId): Promise<void> {
    return this.#refusedBefore(volumeId, layer, () => this.#switchTo(volumeId, layer));
  }

  /** Connections are closed for a moment; who comes back finds the size. Errors: "daemon-refused", with nothing written to `top` yet, "daemon-lost". */
  reopen(volumeId: string, top: LayerId, sizeBytes: number): Promise<void> {
    return this.#refusedBefore(volumeId, top, () => this.#reopen(volumeId, top, sizeBytes));
  }

  /**
   * Whoever is refused a change gives it up, and erases the layer that was to be written to. So what fails once the daemon has that open, now or when the change
   * was begun before, is no refusal: "daemon-lost", and the change stays pending.
   */
  async #refusedBefore(volumeId: string, layer: LayerId, change: () => Promise<void>): Promise<void> {
    if (this.#running(volumeId) === undefined) return change();
    const [old] = await this.#options.chainOf(volumeId);
    // It grows where it is: nothing is erased.
    if (old?.layer.id === layer) return change();
    const wasWritten = await this.#mayWriteTo(volumeId, layer);
    try {
      await change();
    } catch (error) {
      if (codeOf(error) !== "daemon-refused") throw error;
      throw wasWritten || (await this.#mayWriteTo(volumeId, layer)) ? unfinished(error) : error;
    }
  }

  async #mayWriteTo(volumeId: string, layer: LayerId): Promise<boolean> {
    try {
      return (await this.#running(volumeId)?.top()) === nodeOf(layer);
    } catch {
      return true;
    }
  }

  async #switchTo(volumeId: string, layer: LayerId): Promise<void> {
    await this.stopCopy(volumeId);
    const daemon = this.#running(volumeId);
    if (daemon === undefined) return;
    const [overlay, base] = await this.#options.chainOf(volumeId, layer);
    if (overlay === undefined || base === undefined) throw new Error(`layer ${layer} lies upon nothing`);
    await daemon.putOverlay(overlay, base.layer.id);
  }

  async #reopen(volumeId: string, top: LayerId, sizeBytes: number): Promise<void> {
    await this.stopCopy(volumeId);
    const daemon = this.#running(volumeId);
    const record = this.#records.of(volumeId);
    if (daemon === undefined || record === undefined) return;
    const chain = await this.#options.chainOf(volumeId, top, sizeBytes);
    const disk = this.#diskOf(record, chain, daemon);
    const [old] = await this.#options.chainOf(volumeId);
    const isOther = old?.layer.id !== top;
    const reopen = async (): Promise<void> => {
      try {
        await daemon.reopen(chain, servedOf(record));
      } catch (error) {
        if (codeOf(error) !== "daemon-refused") throw error;
        const isWritten = isOther && (await this.#mayWriteTo(volumeId, top));
        // Half of it may be closed: one that is started anew has all of it.
        await this.#end(volumeId);
        throw isWritten ? unfinished(error) : error;
      }
    };
    if (disk === undefined) return reopen();
    await this.#iscsi.held(volumeId, reopen);
    await this.#iscsi.grown(disk);
  }

  /** Lets go of all daemons: they go on. */
  release(): void {
    for (const [volumeId, daemon] of this.#daemons) {
      this.#daemons.delete(volumeId);
      daemon.release();
    }
    this.#iscsi.release();
  }

  #filesOf(volumeId: string): DaemonFiles {
    const { paths } = this.#options;
    return {
      pidFile: paths.pidFile(volumeId),
      qmpSocket: paths.qmpSocket(volumeId),
      nbdSocket: paths.nbdSocket(volumeId),
      log: paths.daemonLog(volumeId),
    };
  }

  async #start(volumeId: string): Promise<ExportDaemon> {
    const daemon = await ExportDaemon.started(this.#filesOf(volumeId));
    this.#keep(volumeId, daemon);
    return daemon;
  }

  #keep(volumeId: string, daemon: ExportDaemon): void {
    this.#daemons.set(volumeId, daemon);
    void daemon.closed.then(() => {
      if (this.#daemons.get(volumeId) !== daemon) return;
      this.#forget(volumeId, daemon);
      this.#options.log.warn("the daemon of an export is gone", { volumeId, ...daemon.identity });
      this.#options.onLost(volumeId);
    });
  }

  #forget(volumeId: string, daemon: ExportDaemon): void {
    if (this.#daemons.get(volumeId) === daemon) {
      this.#daemons.delete(volumeId);
      this.#served.delete(volumeId);
    }
    daemon.release();
  }

  #running(volumeId: string): ExportDaemon | undefined {
    const daemon = this.#daemons.get(volumeId);
    if (daemon === undefined || daemon.isRunning) return daemon;
    this.#forget(volumeId, daemon);
    return undefined;
  }

  async #endUnlessExported(volumeId: string): Promise<void> {
    if (this.#records.of(volumeId) !== undefined && !this.isExported(volumeId)) await this.#endWithRecord(volumeId);
  }

  async #endWithRecord(volumeId: string): Promise<void> {
    const record = this.#records.of(volumeId);
    this.#served.delete(volumeId);
    // First of all: where the rest fails, nobody serves the attachments again, and whoever comes next goes on with it.
    if (record !== undefined && record.attachments.length > 0) this.#records.set(withoutAttachments(record));
    await this.adopt(volumeId);
    // What has the volume open goes first: it would wait for a daemon that does not come back.
    await this.#iscsi.remove(volumeId);
    await this.#end(volumeId);
    // Not before: as long as a daemon runs, the record leads to it.
    this.#records.delete(volumeId);
    rmSync(this.#options.paths.daemonFolder(volumeId), { recursive: true, force: true });
  }

  async #end(volumeId: string, graceMs?: number): Promise<void> {
    const daemon = this.#daemons.get(volumeId);
    this.#daemons.delete(volumeId);
    this.#served.delete(volumeId);
    await daemon?.end(graceMs);
  }

  /** A port that somebody else has meanwhile is left for another. */
  async #listen(daemon: ExportDaemon, volumeId: string): Promise<void> {
    for (let attempt = 0; attempt < PORTS_LIMIT; attempt++) {
      const record = this.#records.of(volumeId);
      if (record?.port === undefined) return daemon.listen({ kind: "unix" });
      const { host, paths } = this.#options;
      const where: Listening = { kind: "tcp", host, port: record.port, keysFolder: paths.daemonFolder(volumeId) };
      try {
        return await daemon.listen(where);
      } catch (error) {
        if (codeOf(error) !== "port-unavailable") throw error;
        this.#records.set({ ...record, port: this.#freePort(record.port + 1) });
      }
    }
    throw new RingsteadError("port-unavailable", "every port of the host's exports is taken");
  }

  #freePort(from = this.#options.firstPort): number {
    const taken = new Set(this.#records.all.map(({ port }) => port));
    for (let port = from; port < this.#options.firstPort + PORTS_LIMIT; port++) if (!taken.has(port)) return port;
    throw new RingsteadError(
      "port-unavailable",
      `${PORTS_LIMIT} volumes are exported over TCP, and there are no more ports`,
    );
  }

  #writeKeys({ volumeId, attachments }: ExportRecord): void {
    const { paths } = this.#options;
    writeServerKeys(
      paths.daemonFolder(volumeId),
      attachments.map(({ attachmentId }) => paths.credentialFolder(attachmentId)),
    );
  }

  #diskOf(record: ExportRecord, chain: readonly PlacedLayer[], daemon: ExportDaemon): WantedDisk | undefined {
    const own = record.attachments.filter(({ isIscsi }) => isIscsi === true);
    const [first] = own;
    if (first === undefined) return undefined;
    const attachments = own.map(({ attachmentId, initiator }) => {
      const secret = ensureChapSecret(this.#options.paths.credentialFolder(attachmentId));
      return { attachmentId, secret, initiator };
    });
    return {
      volumeId: record.volumeId,
      exportName: DISK_EXPORT,
      isReadOnly: first.isReadOnly,
      sizeBytes: sizeOf(chain),
      discards: discardsAreZeros(chain),
      renew: () => daemon.renew(diskOf(record)),
      attachments,
    };
  }

  #describe(volumeId: string, attachmentId: string): VolumeExport {
    const { paths, publicHost: host, iscsiPort } = this.#options;
    const record = this.#records.of(volumeId);
    const credentialFolder = paths.credentialFolder(attachmentId);
    if (record?.attachments.find((one) => one.attachmentId === attachmentId)?.isIscsi === true) {
      const where = { host, port: iscsiPort, targetName: targetNameOf(volumeId), diskNumber: DISK_NUMBER };
      return { kind: "iscsi", ...where, username: attachmentId, secret: ensureChapSecret(credentialFolder) };
    }
    const port = record?.port;
    if (port === undefined)
      return { kind: "nbd-unix", socketPath: paths.nbdSocket(volumeId), exportName: attachmentId };
    return { kind: "nbd-tls", host, port, exportName: attachmentId, credentialFolder };
  }
}
