import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { codeOf, RingsteadError } from "../../../common/errors.ts";
import type { Log } from "../../../common/log.ts";
import type { ProcessIdentity } from "../../../common/process-identity.ts";
import { sleep } from "../../../common/worker.ts";
import {
  cutRequests,
  deleteAccountRequest,
  diskRequests,
  NOBODY,
  requestsFor,
  type ShownTarget,
  stateRequest,
  type TargetRequest,
  type WantedTarget,
} from "../core/iscsi-target.ts";
import type { HostPaths } from "../paths.ts";
import { recordedTarget, writeIscsiProcesses } from "../store/iscsi-processes.ts";
import { Turns } from "../turns.ts";
import { newChapSecret } from "./chap-secret.ts";
import { DiskFront, type FrontFiles, unmountDisk } from "./disk-front.ts";
import { askTargetDaemon, shownTargets } from "./target-control.ts";
import { TargetDaemon, type TargetDaemonFiles, whyNoIscsi } from "./target-daemon.ts";

/** Cinder's prefix of targets: what goes by a volume's name elsewhere does here. */
export const targetNameOf = (volumeId: string): string => `iqn.2010-10.org.openstack:volume-${volumeId}`;
/** The only disk of a target; 0 is tgtd's own controller. */
export const DISK_NUMBER = 1;

/** Commands under way end before a disk is taken out; they do no more than a request to the volume's daemon each. */
const IDLE_LIMIT_MS = 10_000;
const POLL_MS = 1;

/** A volume that is to be a disk of the host's target daemon. */
export type WantedDisk = {
  readonly volumeId: string;
  /** The name under which its daemon serves it on its NBD socket. */
  readonly exportName: string;
  readonly isReadOnly: boolean;
  readonly sizeBytes: number;
  readonly attachments: readonly {
    readonly attachmentId: string;
    readonly secret: string;
    readonly initiator: string | undefined;
  }[];
};

export type IscsiExportsOptions = {
  readonly paths: HostPaths;
  readonly host: string;
  readonly port: number;
  readonly log: Log;
  /** Called when a process is gone that nobody ended: these volumes are not served any more. */
  onLost(this: void, volumeIds: readonly string[]): void;
};

/**
 * Volumes over iSCSI: one tgtd for the host, and for each volume a front that makes a file of it. The caller sees to it that two calls for one
 * volume are not under way at once, and that the volume's daemon serves it before `ensure` and `grown`.
 */
export class IscsiExports {
  readonly #options: IscsiExportsOptions;
  readonly #fronts = new Map<string, DiskFront>();
  readonly #served = new Set<string>();
  readonly #turns = new Turns();
  #target: TargetDaemon | undefined;
  /** Of a process before this one, until it is looked at. */
  #knownTarget: ProcessIdentity | undefined;

  constructor(options: IscsiExportsOptions) {
    this.#options = options;
    this.#knownTarget = recordedTarget(options.paths.iscsiProcesses);
  }

  isServed(volumeId: string): boolean {
    return (
      this.#served.has(volumeId) && this.#target?.isRunning === true && this.#fronts.get(volumeId)?.isRunning === true
    );
  }

  /** Sees to it that the volume is served so. Errors: "iscsi-unavailable", "port-unavailable", "daemon-failed", "target-refused", "target-lost". */
  async ensure(wanted: WantedDisk): Promise<void> {
    const { volumeId } = wanted;
    const obstacle = whyNoIscsi();
    if (obstacle !== undefined) throw new RingsteadError("iscsi-unavailable", obstacle);
    const isNew = await this.#show(wanted);
    await this.#alone(async () => {
      const { socketPath } = await this.#running();
      const target = this.#wantedTarget(wanted);
      const shown = await shownTargets(socketPath);
      await this.#ask(requestsFor(shown, target));
      const there = shown.find(({ name }) => name === target.name);
      // tgtd has the file of a front that died open.
      if (isNew && there !== undefined) await this.#changeDisk(there, target);
    });
    this.#served.add(volumeId);
  }

  /** Ends what serves the volume, also what a process before this one left; tgtd ends with the last volume. */
  async remove(volumeId: string): Promise<void> {
    if (!existsSync(this.#folderOf(volumeId))) return;
    this.#served.delete(volumeId);
    await this.#alone(async () => {
      await this.#adoptTarget();
      const target = this.#target;
      if (target === undefined) return;
      const shown = await shownTargets(target.socketPath);
      const there = shown.find(({ name }) => name === targetNameOf(volumeId));
      if (there !== undefined) await this.#removeTarget(there);
      if (shown.some(({ name }) => name !== targetNameOf(volumeId))) return;
      this.#target = undefined;
      await target.end();
      this.#knownTarget = undefined;
      this.#write();
    });
    const front = this.#fronts.get(volumeId) ?? (await DiskFront.adopted(this.#filesOf(volumeId)));
    this.#fronts.delete(volumeId);
    await front?.end();
    await unmountDisk(this.#filesOf(volumeId).disk);
    rmSync(this.#folderOf(volumeId), { recursive: true, force: true });
    this.#write();
  }

  /** Runs the action while nothing of the volume goes to its daemon: what is asked meanwhile waits. */
  async held(volumeId: string, action: () => Promise<void>): Promise<void> {
    const front = this.#fronts.get(volumeId);
    await front?.hold();
    try {
      await action();
    } finally {
      // One that died meanwhile holds nothing.
      if (front?.isRunning === true) await front.letGo();
    }
  }

  /** Initiators see the size once they ask for it; their connections are closed for a moment. */
  async grown(wanted: WantedDisk): Promise<void> {
    await this.#fronts.get(wanted.volumeId)?.grow(wanted.sizeBytes);
    await this.#alone(async () => {
      const target = this.#wantedTarget(wanted);
      if (this.#target === undefined) return;
      const shown = await shownTargets(this.#target.socketPath);
      const there = shown.find(({ name }) => name === target.name);
      if (there !== undefined) await this.#changeDisk(there, target);
    });
  }

  /** Lets go of all processes: they go on. */
  release(): void {
    this.#target?.release();
    this.#target = undefined;
    for (const front of this.#fronts.values()) front.release();
    this.#fronts.clear();
  }

  /** Resolves with whether tgtd may have another file open, or the file of another length. */
  async #show(wanted: WantedDisk): Promise<boolean> {
    const { volumeId, exportName, isReadOnly, sizeBytes } = wanted;
    const known = this.#fronts.get(volumeId);
    if (known?.isRunning === true) return this.#hasGrown(known, sizeBytes);
    this.#fronts.delete(volumeId);
    known?.release();
    const files = this.#filesOf(volumeId);
    const adopted = await DiskFront.adopted(files);
    const front = adopted ?? (await DiskFront.started(files));
    this.#fronts.set(volumeId, front);
    void front.closed.then(() => {
      if (this.#fronts.get(volumeId) !== front) return;
      this.#options.log.warn("the front of an iSCSI disk is gone", { volumeId, ...front.identity });
      this.#served.delete(volumeId);
      this.#options.onLost([volumeId]);
    });
    await front.show(exportName, isReadOnly);
    this.#write();
    return (await this.#hasGrown(front, sizeBytes)) || adopted === undefined;
  }

  async #hasGrown(front: DiskFront, sizeBytes: number): Promise<boolean> {
    if (front.sizeBytes === sizeBytes) return false;
    await front.grow(sizeBytes);
    return true;
  }

  async #running(): Promise<TargetDaemon> {
    await this.#adoptTarget();
    if (this.#target !== undefined) return this.#target;
    const { host, port } = this.#options;
    this.#keep(await TargetDaemon.started(this.#targetFiles(), host, port));
    const parameters = [
      ["user", NOBODY],
      ["password", newChapSecret()],
    ] as const;
    await this.#ask([
      { mode: "account", operation: "new", parameters },
      { mode: "account", operation: "bind", parameters: [["user", NOBODY]] },
    ]);
    return this.#running();
  }

  async #adoptTarget(): Promise<void> {
    if (this.#target?.isRunning === true) return;
    this.#target?.release();
    this.#target = undefined;
    const adopted = await TargetDaemon.adopted(this.#targetFiles(), this.#knownTarget);
    if (adopted !== undefined) this.#keep(adopted);
  }

  #keep(target: TargetDaemon): void {
    this.#target = target;
    this.#knownTarget = target.identity;
    target.boundLog();
    this.#write();
    void target.closed.then(() => {
      if (this.#target !== target) return;
      this.#options.log.warn("the iSCSI daemon is gone", { ...target.identity });
      this.#target = undefined;
      const lost = [...this.#served];
      this.#served.clear();
      this.#options.onLost(lost);
    });
  }

  async #ask(requests: readonly TargetRequest[]): Promise<void> {
    for (const request of requests) {
      if (this.#target === undefined) throw new RingsteadError("target-lost", "the iSCSI daemon is gone");
      await askTargetDaemon(this.#target.socketPath, request);
    }
  }

  /**
   * Has tgtd open the disk's file anew. It would do so under commands that are being done, which then go to whatever has the number of the file
   * that was closed: so the target is taken offline, until the disk is idle. Commands that come meanwhile it drops without an answer: at the end
   * connections are closed, and initiators come back and repeat them.
   */
  async #changeDisk(there: ShownTarget, wanted: WantedTarget): Promise<void> {
    await this.#ask([stateRequest(there.tid, "offline")]);
    await this.#removeDisk(there.tid);
    await this.#ask([...diskRequests(there.tid, wanted), stateRequest(there.tid, "ready"), ...cutRequests(there)]);
  }

  async #removeDisk(tid: number): Promise<void> {
    const deadline = performance.now() + IDLE_LIMIT_MS;
    for (;;) {
      try {
        return await this.#ask([{ mode: "disk", operation: "delete", tid, isDoneAlready: ["no-disk"] }]);
      } catch (error) {
        if (codeOf(error) !== "target-refused" || performance.now() > deadline) throw error;
        await sleep(POLL_MS);
      }
    }
  }

  async #removeTarget(there: ShownTarget): Promise<void> {
    const { tid, accounts } = there;
    await this.#ask([stateRequest(tid, "offline"), ...cutRequests(there)]);
    await this.#removeDisk(tid);
    await this.#ask([
      { mode: "target", operation: "delete", tid, isForced: true, isDoneAlready: ["no-target"] },
      ...accounts.filter((user) => user !== NOBODY).map(deleteAccountRequest),
    ]);
  }

  /** Requests to tgtd are of one plan at a time: numbers of targets are given out by what it shows. */
  #alone<Result>(action: () => Promise<Result>): Promise<Result> {
    return this.#turns.run(["tgtd"], action);
  }

  #wantedTarget({ volumeId, isReadOnly, attachments }: WantedDisk): WantedTarget {
    return {
      name: targetNameOf(volumeId),
      path: join(volumeId, "disk"),
      isReadOnly,
      serial: volumeId.replaceAll("-", "").slice(0, 24),
      accounts: attachments.map(({ attachmentId, secret, initiator }) => ({ user: attachmentId, secret, initiator })),
    };
  }

  #folderOf(volumeId: string): string {
    return join(this.#options.paths.disksFolder, volumeId);
  }

  #filesOf(volumeId: string): FrontFiles {
    const { paths } = this.#options;
    const folder = this.#folderOf(volumeId);
    return {
      pidFile: join(folder, "pid"),
      log: join(folder, "log"),
      disk: join(folder, "disk"),
      control: paths.frontSocket(volumeId),
      nbdSocket: paths.nbdSocket(volumeId),
    };
  }

  #targetFiles(): TargetDaemonFiles {
    const { disksFolder, targetLog, targetSocketBase } = this.#options.paths;
    return { socketBase: targetSocketBase, folder: disksFolder, log: targetLog };
  }

  /** For the next process, and for whoever lists and stops these: they outlive this one. */
  #write(): void {
    const fronts = new Map([...this.#fronts].map(([volumeId, { identity }]) => [volumeId, identity]));
    writeIscsiProcesses(this.#options.paths.iscsiProcesses, this.#knownTarget, fronts);
  }
}
