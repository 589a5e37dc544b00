import { existsSync, readdirSync, rmSync, symlinkSync } from "node:fs";
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
import { UNDER_WAY_LIMIT_MS } from "../filling/patience.ts";
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
const IDLE_LIMIT_MS = UNDER_WAY_LIMIT_MS;
/** Where nobody is to have the disk any more, they are given up after a while. */
const DETACH_LIMIT_MS = 5000;
const POLL_MS = 1;
/** Beside the front's file itself: a name of it for each front and each length that it has had. */
const DISK_FILE = "disk";

/** A volume that is to be a disk of the host's target daemon. */
export type WantedDisk = {
  readonly volumeId: string;
  /** The name under which its daemon serves it on its NBD socket. */
  readonly exportName: string;
  readonly isReadOnly: boolean;
  readonly sizeBytes: number;
  /** What is discarded reads as zeros. */
  readonly discards: boolean;
  /** Has the daemon serve it anew: what a front before was not answered is done, or never will be. */
  renew(this: void): Promise<void>;
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
      this.#served.has(volumeId) && this.#target?.isRunning === true && this.#fronts.get(volumeId)?.isOpen === true
    );
  }

  /** Whether it was served so, and `remove` was not done yet. */
  hasFront(volumeId: string): boolean {
    return existsSync(this.#folderOf(volumeId));
  }

  /** Sees to it that the volume is served so. Errors: "iscsi-unavailable", "port-unavailable", "daemon-failed", "target-refused", "target-lost". */
  async ensure(wanted: WantedDisk): Promise<void> {
    const { volumeId } = wanted;
    const obstacle = whyNoIscsi();
    if (obstacle !== undefined) throw new RingsteadError("iscsi-unavailable", obstacle);
    const front = await this.#show(wanted);
    await this.#present(() => this.#running(), wanted, front);
    this.#served.add(volumeId);
  }

  /**
   * Ends what serves the volume, also what a process before this one left; tgtd ends with the last volume. What is under way and does not end within
   * seconds, because it waits for a daemon that is away, say, is given up.
   */
  async remove(volumeId: string): Promise<void> {
    if (!this.hasFront(volumeId)) return;
    this.#served.delete(volumeId);
    const front = await this.#found(volumeId);
    const target = await this.#alone(async () => {
      await this.#adoptTarget();
      return this.#target;
    });
    if (target !== undefined) await this.#removeTarget(target, targetNameOf(volumeId), front);
    this.#fronts.delete(volumeId);
    await front?.end();
    await unmountDisk(this.#filesOf(volumeId).disk);
    rmSync(this.#folderOf(volumeId), { recursive: true, force: true });
    this.#write();
  }

  /**
   * Runs the action while nothing of the volume goes to its daemon: what is asked meanwhile waits. Errors: those of the action, and "daemon-refused" before it, where what
   * is under way does not end.
   */
  async held(volumeId: string, action: () => Promise<void>): Promise<void> {
    const front = await this.#found(volumeId);
    await front?.hold();
    try {
      await action();
    } finally {
      // One that died meanwhile holds nothing, and one that cannot be asked has let go.
      if (front?.isOpen === true) await front.letGo();
    }
  }

  /** Initiators see the size once they ask for it; their connections are closed for a moment. */
  async grown(wanted: WantedDisk): Promise<void> {
    const front = await this.#found(wanted.volumeId);
    // Where one of them is gone, the next one shows the size.
    const target = this.#target;
    if (front === undefined || target === undefined) return;
    await front.grow(wanted.sizeBytes);
    await this.#present(async () => target, wanted, front);
  }

  /** Resolves once the volume's daemon has what the front keeps for it, where there is a front. Errors: "daemon-lost", "daemon-refused". */
  async settled(volumeId: string): Promise<void> {
    await (await this.#found(volumeId))?.settled();
  }

  /** Lets go of all processes: they go on. */
  release(): void {
    this.#target?.release();
    this.#target = undefined;
    for (const front of this.#fronts.values()) front.release();
    this.#fronts.clear();
  }

  /** The front of the volume, with its file of the length that is wanted. */
  async #show(wanted: WantedDisk): Promise<DiskFront> {
    const { volumeId, exportName, isReadOnly, discards, sizeBytes } = wanted;
    let front = await this.#found(volumeId);
    if (front === undefined) {
      // Its predecessor's writes would otherwise be done under its own: those that had failed, and were repeated.
      await wanted.renew();
      front = this.#keepFront(volumeId, await DiskFront.started(this.#filesOf(volumeId)));
    }
    await front.show({ exportName, isReadOnly, discards });
    this.#write();
    if (front.sizeBytes !== sizeBytes) await front.grow(sizeBytes);
    return front;
  }

  /** The front that runs and can be asked, also one of a process before this one. */
  async #found(volumeId: string): Promise<DiskFront | undefined> {
    const known = this.#fronts.get(volumeId);
    if (known?.isOpen === true) return known;
    this.#fronts.delete(volumeId);
    known?.release();
    const adopted = await DiskFront.adopted(this.#filesOf(volumeId));
    return adopted && this.#keepFront(volumeId, adopted);
  }

  #keepFront(volumeId: string, front: DiskFront): DiskFront {
    this.#fronts.set(volumeId, front);
    void front.closed.then(() => {
      if (this.#fronts.get(volumeId) !== front) return;
      this.#options.log.warn("the front of an iSCSI disk is gone", { volumeId, ...front.identity });
      this.#served.delete(volumeId);
      this.#options.onLost([volumeId]);
    });
    return front;
  }

  /** Has tgtd show what the front shows now. What it shows it is asked itself: whoever died in the middle leaves nothing else that is true. */
  async #present(targetOf: () => Promise<TargetDaemon>, wanted: WantedDisk, front: DiskFront): Promise<void> {
    const folder = this.#folderOf(wanted.volumeId);
    const name = nameOfDisk(front, wanted.sizeBytes);
    if (!readdirSync(folder).includes(name)) symlinkSync(DISK_FILE, join(folder, name));
    const goal = this.#wantedTarget(wanted, name);
    // In one turn: with the last volume of somebody else it would end before it has this one.
    const { target, there } = await this.#alone(async () => {
      const target = await targetOf();
      const shown = await shownTargets(target.socketPath);
      await this.#ask(target, requestsFor(shown, goal));
      return { target, there: shown.find((one) => one.name === goal.name) };
    });
    if (there?.path !== undefined && there.path !== goal.path) await this.#changeDisk(target, there, goal);
    for (const other of readdirSync(folder))
      if (other.startsWith(`${DISK_FILE}.`) && other !== name) rmSync(join(folder, other), { force: true });
  }

  async #running(): Promise<TargetDaemon> {
    await this.#adoptTarget();
    if (this.#target !== undefined) return this.#target;
    const { host, port } = this.#options;
    const target = await TargetDaemon.started(this.#targetFiles(), host, port);
    this.#keep(target);
    const parameters = [
      ["user", NOBODY],
      ["password", newChapSecret()],
    ] as const;
    await this.#ask(target, [
      { mode: "account", operation: "new", parameters },
      { mode: "account", operation: "bind", parameters: [["user", NOBODY]] },
    ]);
    return target;
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

  /** To that daemon and no later one, in which a number may be another's target. */
  async #ask(target: TargetDaemon, requests: readonly TargetRequest[]): Promise<void> {
    for (const request of requests) {
      if (this.#target !== target || !target.isRunning)
        throw new RingsteadError("target-lost", "the iSCSI daemon is gone");
      await askTargetDaemon(target.socketPath, request);
    }
  }

  /**
   * Has tgtd open the disk's file anew. It would do so under commands that are being done, which then go to whatever has the number of the file
   * that was closed: so the target is taken offline, until the disk is idle. Commands that come meanwhile it drops without an answer: at the end
   * connections are closed, and initiators come back and repeat them. Where the disk does not get idle, they find what was there.
   */
  async #changeDisk(target: TargetDaemon, there: ShownTarget, wanted: WantedTarget): Promise<void> {
    const back = [stateRequest(there.tid, "ready"), ...cutRequests(there)];
    await this.#ask(target, [stateRequest(there.tid, "offline")]);
    try {
      await this.#removeDisk(target, there.tid, IDLE_LIMIT_MS);
    } catch (error) {
      if (codeOf(error) === "target-refused") await this.#ask(target, back);
      throw error;
    }
    await this.#ask(target, [...diskRequests(there.tid, wanted), ...back]);
  }

  async #removeDisk(target: TargetDaemon, tid: number, limitMs: number): Promise<void> {
    const deadline = performance.now() + limitMs;
    for (;;) {
      try {
        return await this.#ask(target, [{ mode: "disk", operation: "delete", tid, isDoneAlready: ["no-disk"] }]);
      } catch (error) {
        if (codeOf(error) !== "target-refused" || performance.now() > deadline) throw error;
        await sleep(POLL_MS);
      }
    }
  }

  async #removeTarget(target: TargetDaemon, name: string, front: DiskFront | undefined): Promise<void> {
    const there = (await shownTargets(target.socketPath)).find((one) => one.name === name);
    if (there !== undefined) {
      const { tid, accounts } = there;
      await this.#ask(target, [stateRequest(tid, "offline"), ...cutRequests(there)]);
      await this.#giveUpDisk(target, tid, front);
      await this.#ask(target, [
        { mode: "target", operation: "delete", tid, isForced: true, isDoneAlready: ["no-target"] },
        ...accounts.filter((user) => user !== NOBODY).map(deleteAccountRequest),
      ]);
    }
    await this.#alone(async () => {
      if (this.#target !== target || (await shownTargets(target.socketPath)).length > 0) return;
      this.#target = undefined;
      await target.end();
      this.#knownTarget = undefined;
      this.#write();
    });
  }

  /** Takes the disk out. Commands that do not end are answered with errors, once the file is gone that they are about. */
  async #giveUpDisk(target: TargetDaemon, tid: number, front: DiskFront | undefined): Promise<void> {
    try {
      await this.#removeDisk(target, tid, DETACH_LIMIT_MS);
    } catch (error) {
      if (codeOf(error) !== "target-refused") throw error;
      await front?.end();
      await this.#removeDisk(target, tid, IDLE_LIMIT_MS);
    }
  }

  /** Requests to tgtd are of one plan at a time: numbers of targets are given out by what it shows. */
  #alone<Result>(action: () => Promise<Result>): Promise<Result> {
    return this.#turns.run(["tgtd"], action);
  }

  #wantedTarget({ volumeId, isReadOnly, attachments }: WantedDisk, fileName: string): WantedTarget {
    return {
      name: targetNameOf(volumeId),
      path: join(volumeId, fileName),
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
      disk: join(folder, DISK_FILE),
      mark: join(folder, "unflushed"),
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

/** tgtd tells under which name it opened the file: by that it is known whether it has this front's, and of this length. */
const nameOfDisk = ({ identity: { pid, startTime } }: DiskFront, sizeBytes: number): string =>
  `${DISK_FILE}.${pid}-${startTime}-${sizeBytes}`;
