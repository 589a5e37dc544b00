import { spawn } from "node:child_process";
import { accessSync, closeSync, constants, existsSync, mkdirSync, rmSync } from "node:fs";
import { createConnection, createServer, type Socket } from "node:net";
import { dirname } from "node:path";
import { codeOf, messageOf, RingsteadError } from "../../../common/errors.ts";
import { endProcesses, isRunning, type ProcessIdentity } from "../../../common/process-identity.ts";
import { sleep } from "../../../common/worker.ts";
import { boundLog, identityOf, lastWordsIn, openLog } from "../exports/storage-daemon.ts";
import { listenerOf } from "./socket-listener.ts";
import { askTargetDaemon } from "./target-control.ts";

export type TargetDaemonFiles = {
  /** Where it is asked; it adds `.0`. Whoever listens there is the daemon: the folder is closed to others. */
  readonly socketBase: string;
  /** Its working directory: paths of disks are relative to it, and so have no commas. */
  readonly folder: string;
  readonly log: string;
};

const START_LIMIT_MS = 15_000;
const POLL_MS = 10;

const socketOf = ({ socketBase }: TargetDaemonFiles): string => `${socketBase}.0`;

/** Why volumes cannot be served over iSCSI here; undefined where they can. */
export const whyNoIscsi = (): string | undefined => {
  if (process.getuid?.() !== 0) return "iSCSI needs root: tgtd takes requests from nobody else";
  try {
    accessSync("/dev/fuse", constants.R_OK | constants.W_OK);
  } catch {
    return "iSCSI needs /dev/fuse, through which volumes reach tgtd (modprobe fuse; in a container, pass the device in)";
  }
  const folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
  if (!folders.some((folder) => existsSync(`${folder}/tgtd`))) return "iSCSI needs tgtd (Debian: apt-get install tgt)";
  return undefined;
};

/** Rejects where somebody listens there: the daemon itself would go on without that port. Errors: "port-unavailable". */
const tryPort = (host: string, port: number): Promise<void> =>
  new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", (error) =>
      reject(new RingsteadError("port-unavailable", `iSCSI needs port ${port} of ${host}: ${messageOf(error)}`)),
    );
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve()));
  });

const portalOf = (host: string, port: number): string => `portal=${host.includes(":") ? `[${host}]` : host}:${port}`;

/** The one `tgtd` of this host: a session of its own that outlives whoever started it. */
export class TargetDaemon {
  readonly identity: ProcessIdentity;
  /** Resolves once it is gone, or does not listen to us any more. */
  readonly closed: Promise<void>;
  readonly socketPath: string;
  readonly #files: TargetDaemonFiles;
  /** A connection on which nothing is asked: it closes when the daemon ends. */
  readonly #watch: Socket;

  private constructor(files: TargetDaemonFiles, identity: ProcessIdentity, watch: Socket) {
    this.#files = files;
    this.identity = identity;
    this.socketPath = socketOf(files);
    this.#watch = watch;
    this.closed = new Promise((resolve) => watch.once("close", () => resolve()));
    watch.on("error", () => watch.destroy()).unref();
    watch.resume();
  }

  static async #watched(files: TargetDaemonFiles, identity: ProcessIdentity): Promise<TargetDaemon> {
    await askTargetDaemon(socketOf(files), { mode: "target", operation: "show" });
    const watch = await new Promise<Socket>((resolve, reject) => {
      const socket = createConnection({ path: socketOf(files) }, () => resolve(socket));
      socket.once("error", () => reject(new RingsteadError("target-lost", "the iSCSI daemon is gone")));
    });
    return new TargetDaemon(files, identity, watch);
  }

  /**
   * The daemon that runs already: the one that was written down, or, where whoever started it died before he had, the one that listens on the
   * control socket. Undefined where none does. One that does not answer is ended.
   */
  static async adopted(
    files: TargetDaemonFiles,
    known: ProcessIdentity | undefined,
  ): Promise<TargetDaemon | undefined> {
    const identity = known !== undefined && isRunning(known) ? known : listenerOf(socketOf(files));
    if (identity === undefined) return undefined;
    try {
      return await TargetDaemon.#watched(files, identity);
    } catch (error) {
      if (codeOf(error) !== "target-lost") throw error;
      await endProcesses([identity], 0);
      return undefined;
    }
  }

  /** Starts one without targets. Requires: none runs. Errors: "port-unavailable", "daemon-failed". */
  static async started(files: TargetDaemonFiles, host: string, port: number): Promise<TargetDaemon> {
    await tryPort(host, port);
    mkdirSync(files.folder, { recursive: true, mode: 0o700 });
    mkdirSync(dirname(files.log), { recursive: true, mode: 0o700 });
    for (const path of [socketOf(files), `${socketOf(files)}.lock`]) rmSync(path, { force: true });
    const log = openLog(files.log);
    const words = ["-f", "-C", "0", "--iscsi", portalOf(host, port)];
    const env = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C", TGT_IPC_SOCKET: files.socketBase };
    const child = spawn("tgtd", words, { detached: true, stdio: ["ignore", log, log], cwd: files.folder, env });
    closeSync(log);
    let failure: string | undefined;
    child.once("error", (error) => (failure = messageOf(error)));
    child.once("exit", (code, signal) => (failure = `it ended with ${code ?? signal}: ${lastWordsIn(files.log)}`));
    child.unref();
    const deadline = performance.now() + START_LIMIT_MS;
    for (;;) {
      if (failure !== undefined) throw new RingsteadError("daemon-failed", `tgtd does not start: ${failure}`);
      const identity = child.pid === undefined ? undefined : identityOf(child.pid);
      try {
        if (identity !== undefined) return await TargetDaemon.#watched(files, identity);
      } catch (error) {
        if (codeOf(error) !== "target-lost") throw error;
      }
      if (performance.now() >= deadline) {
        if (identity !== undefined) await endProcesses([identity], 0);
        throw new RingsteadError("daemon-failed", "tgtd does not answer");
      }
      await sleep(POLL_MS);
    }
  }

  get isRunning(): boolean {
    return isRunning(this.identity);
  }

  /** Keeps what it said within its limit. */
  boundLog(): void {
    boundLog(this.#files.log);
  }

  /** Lets go of it: it goes on. */
  release(): void {
    this.#watch.destroy();
  }

  /** Ends it at once: it keeps nothing back, ignores SIGTERM, and what it has not answered is asked again. */
  async end(): Promise<void> {
    await endProcesses([this.identity], 0);
    this.release();
    for (const path of [this.socketPath, `${this.socketPath}.lock`]) rmSync(path, { force: true });
  }
}
