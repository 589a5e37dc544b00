import { randomUUID } from "node:crypto";
import { rmSync } from "node:fs";
import { chmod } from "node:fs/promises";
import { codeOf, messageOf, RingsteadError } from "../../../common/errors.ts";
import type { ProcessIdentity } from "../../../common/process-identity.ts";
import { sleep } from "../../../common/worker.ts";
import type { VolumeLimits } from "../../core/qos-limits.ts";
import type { Flatten, LayerCopy, LayerId, Merge } from "../core/chains.ts";
import { incarnationText } from "../disk-front/incarnation.ts";
import {
  CACHE_MODES,
  type CacheMode,
  nodeOf,
  overlayNode,
  type PlacedLayer,
  sameNode,
  THROTTLE_GROUP,
  throttleLimits,
  topNode,
  VOLUME_NODE,
  volumeNode,
} from "./block-graph.ts";
import { UNDER_WAY_LIMIT_MS } from "../filling/patience.ts";
import { boundLog, isRefused, StorageDaemon, type StorageDaemonFiles } from "./storage-daemon.ts";

export type DaemonFiles = StorageDaemonFiles & { readonly nbdSocket: string };

/** Where a daemon listens. `keysFolder` has the file `keys.psk`, which it reads anew at every handshake. */
export type Listening =
  | { readonly kind: "unix" }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number; readonly keysFolder: string };

export type ServedAttachment = {
  readonly attachmentId: string;
  readonly isReadOnly: boolean;
  /** Flushes after each write, before it is answered. */
  readonly isWriteThrough?: boolean;
  /** Says of itself which export of which process it is: the front of an iSCSI disk goes by that. */
  readonly isForFront?: true;
};

/** Connections of one volume, also those that have not shown a key yet: clients open several each. */
const CONNECTIONS_LIMIT = 128;
const TLS_OBJECT = "keys";
/** A daemon copies for one thing at a time. The filter that sees a top's writes meanwhile has a name, so that it may be taken away by it. */
const COPY_JOB = "merge";
const COPY_FILTER = "merging";
/** What clients wrote meanwhile is copied before they are held: the last of it comes at once. */
const HOLD_LIMIT_MS = 10_000;

/** How far a daemon is with a copy: it copies, it has all, it failed or was never asked to. */
export type CopyProgress = {
  readonly state: "none" | "copying" | "copied" | "failed";
  /** Of what is to be looked at, from 0 to 1. */
  readonly share?: number;
  readonly why?: string;
};

type NodeInfo = { readonly "node-name": string; readonly image?: { readonly "virtual-size": number } };
type GraphInfo = {
  readonly nodes: readonly { readonly id: number; readonly name: string }[];
  readonly edges: readonly { readonly parent: number; readonly child: number; readonly name: string }[];
};
type JobInfo = {
  readonly id: string;
  readonly status: string;
  readonly "current-progress": number;
  readonly "total-progress": number;
  readonly error?: string;
};
type ExportInfo = { readonly id: string; readonly "shutting-down": boolean };

const exportIdOf = (attachmentId: string): string => `export-${attachmentId}`;

/** One `qemu-storage-daemon`: it has the nodes of one volume and serves them over NBD. There are never two of one volume. */
export class ExportDaemon {
  readonly #daemon: StorageDaemon;
  readonly #files: DaemonFiles;
  /** A copy upwards was begun and neither finished nor stopped: where its job is gone, it failed. */
  #isStreaming = false;

  private constructor(files: DaemonFiles, daemon: StorageDaemon) {
    this.#files = files;
    this.#daemon = daemon;
  }

  /** The daemon that runs already; undefined where none does. One that does not answer is ended. */
  static async adopted(files: DaemonFiles): Promise<ExportDaemon | undefined> {
    const daemon = await StorageDaemon.adopted(files);
    return daemon === undefined ? undefined : new ExportDaemon(files, daemon);
  }

  /** Starts one that serves nothing yet. Requires: none runs. Errors: "daemon-failed". */
  static async started(files: DaemonFiles): Promise<ExportDaemon> {
    rmSync(files.nbdSocket, { force: true });
    return new ExportDaemon(files, await StorageDaemon.started(files));
  }

  get identity(): ProcessIdentity {
    return this.#daemon.identity;
  }

  /** Resolves once its monitor is gone. */
  get closed(): Promise<void> {
    return this.#daemon.closed;
  }

  get isRunning(): boolean {
    return this.#daemon.isRunning;
  }

  /** Opens the chain where it is not open yet. */
  async open(chain: readonly PlacedLayer[]): Promise<void> {
    if ((await this.#nodes()).some((node) => node["node-name"] === VOLUME_NODE)) return;
    const [top] = chain;
    if (top === undefined) throw new Error("a volume has at least one layer");
    await this.#daemon.unlessDone("object-add", { "qom-type": "throttle-group", id: THROTTLE_GROUP }, /duplicate/);
    await this.#closeNodes();
    await this.#addTop(chain);
    const name = nodeOf(top.layer.id);
    const node = (await this.#nodes()).find((one) => one["node-name"] === name);
    // An image that was extended while it was closed has its old size in its header.
    if (top.layer.format === "qcow2" && (node?.image?.["virtual-size"] ?? 0) < top.layer.virtualBytes)
      await this.#daemon.ask("block_resize", { "node-name": name, size: top.layer.virtualBytes });
    await this.#daemon.ask("blockdev-add", volumeNode(top.layer.id));
  }

  /**
   * Listens where it does not yet. Errors: "port-unavailable" where somebody else has the port.
   */
  async listen(where: Listening): Promise<void> {
    const limit = { "max-connections": CONNECTIONS_LIMIT };
    if (where.kind === "unix") {
      const addr = { type: "unix", data: { path: this.#files.nbdSocket } };
      await this.#daemon.unlessDone("nbd-server-start", { addr, ...limit }, /already running/);
      await chmod(this.#files.nbdSocket, 0o600);
      return;
    }
    const { host, port, keysFolder } = where;
    const keys = { "qom-type": "tls-creds-psk", id: TLS_OBJECT, dir: keysFolder, endpoint: "server" };
    await this.#daemon.unlessDone("object-add", keys, /duplicate/);
    const addr = { type: "inet", data: { host, port: String(port) } };
    try {
      await this.#daemon.unlessDone("nbd-server-start", { addr, "tls-creds": TLS_OBJECT, ...limit }, /already running/);
    } catch (error) {
      if (!isRefused(error, /in use|assign requested|Permission denied/)) throw error;
      throw new RingsteadError("port-unavailable", messageOf(error));
    }
  }

  /** Serves exactly these attachments: others are cut off. */
  async serve(attachments: readonly ServedAttachment[]): Promise<void> {
    const there = new Set((await this.#exports()).map(({ id }) => id));
    const wanted = new Set(attachments.map(({ attachmentId }) => exportIdOf(attachmentId)));
    await this.#cutOff([...there].filter((id) => !wanted.has(id)));
    for (const attachment of attachments)
      if (!there.has(exportIdOf(attachment.attachmentId))) await this.#add(attachment);
  }

  /** Whether nobody else is served. */
  async servesOnly(attachments: readonly ServedAttachment[]): Promise<boolean> {
    const wanted = new Set(attachments.map(({ attachmentId }) => exportIdOf(attachmentId)));
    return (await this.#exports()).every(({ id }) => wanted.has(id));
  }

  /** Serves this one attachment anew: what was asked for over its connections is done by then, or never will be. */
  async renew(attachment: ServedAttachment): Promise<void> {
    await this.#cutOff([exportIdOf(attachment.attachmentId)]);
    await this.#add(attachment);
  }

  async #add({ attachmentId, isReadOnly, isWriteThrough = false, isForFront }: ServedAttachment): Promise<void> {
    const what = { type: "nbd", id: exportIdOf(attachmentId), "node-name": VOLUME_NODE, name: attachmentId };
    const description = isForFront === true ? { description: incarnationText(this.identity, randomUUID()) } : {};
    const how = { writable: !isReadOnly, writethrough: isWriteThrough };
    await this.#daemon.ask("block-export-add", { ...what, ...description, ...how });
  }

  /** What all clients may do together from now on. Requires: the chain is open. */
  async limit(limits: VolumeLimits): Promise<void> {
    await this.#daemon.ask("qom-set", { path: THROTTLE_GROUP, property: "limits", value: throttleLimits(limits) });
  }

  /** Everything is written to `overlay` from now on, while clients go on. */
  async putOverlay(overlay: PlacedLayer, base: LayerId): Promise<void> {
    const top = await this.top();
    const name = nodeOf(overlay.layer.id);
    if (top === name) return;
    if (top !== nodeOf(base)) throw new RingsteadError("daemon-lost", `the daemon writes to ${top ?? "nothing"}`);
    if (!(await this.#nodes()).some((node) => node["node-name"] === name))
      await this.#inSomeCacheMode((mode) => this.#daemon.ask("blockdev-add", overlayNode(overlay, mode)));
    try {
      await this.#daemon.ask("blockdev-snapshot", { node: nodeOf(base), overlay: name });
    } catch (error) {
      // Whoever gives the layer up erases it: nobody may have it open.
      if (codeOf(error) === "daemon-refused") await this.#daemon.ask("blockdev-del", { "node-name": name });
      throw error;
    }
  }

  /** Closes all connections, opens the chain anew, as long as it is now, and serves again. */
  async reopen(chain: readonly PlacedLayer[], attachments: readonly ServedAttachment[]): Promise<void> {
    await this.serve([]);
    await this.#closeNodes();
    await this.open(chain);
    await this.serve(attachments);
  }

  /**
   * Begins to copy layers, while clients go on: down for a merge, up to make the volume independent. Until `leave` or `cut` it is all one to them
   * whether that was done. Requires: the layers are in the open chain, and nobody else reads the one that is copied to.
   */
  async startCopy(copy: LayerCopy): Promise<void> {
    if (copy.kind === "merge") return this.#startMerge(copy);
    await this.#daemon.ask("block-stream", {
      "job-id": COPY_JOB,
      device: nodeOf(copy.layer),
      "filter-node-name": COPY_FILTER,
      "auto-finalize": false,
      // QEMU 7.2 crashes when it is asked for its nodes while such a job that has failed is still listed.
      "auto-dismiss": true,
    });
    this.#isStreaming = true;
  }

  async #startMerge({ upper, lower }: Merge): Promise<void> {
    await this.#daemon.ask("block-commit", {
      "job-id": COPY_JOB,
      device: VOLUME_NODE,
      "top-node": nodeOf(upper),
      "base-node": nodeOf(lower),
      "filter-node-name": COPY_FILTER,
      // What the image above shall say that it lies upon: nothing, or QEMU takes its word for it when the chain is opened again.
      ...((await this.#isTop(upper)) ? {} : { "backing-file": "" }),
      "auto-finalize": false,
      "auto-dismiss": false,
    });
  }

  async copyProgress(): Promise<CopyProgress> {
    const job = await this.#copyJob();
    if (job === undefined && this.#isStreaming) return { state: "failed", why: "a layer could not be read or written" };
    if (job === undefined) return { state: "none" };
    if (job.status === "ready" || job.status === "pending") return { state: "copied" };
    if (job.status !== "concluded" && job.status !== "aborting")
      return { state: "copying", share: job["current-progress"] / Math.max(1, job["total-progress"]) };
    return { state: "failed", why: job.error ?? "it was ended" };
  }

  /**
   * Resolves with the copy complete and flushed; where the upper layer of a merge is the top, clients wait from now on until `leave` or `stopCopy`.
   * Errors: "copy-failed": then it is stopped.
   */
  async holdCopy(copy: LayerCopy): Promise<void> {
    const deadline = performance.now() + HOLD_LIMIT_MS;
    try {
      for (let isAsked = false; ; await sleep(1)) {
        const job = await this.#copyJob();
        if (job?.status === "pending") break;
        const isGoing = job !== undefined && job.status !== "concluded" && job.status !== "aborting";
        if (!isGoing || performance.now() > deadline)
          throw new RingsteadError("copy-failed", `layers are not copied: ${job?.error ?? job?.status ?? "no job"}`);
        if (job.status === "ready" && !isAsked) {
          await this.#daemon.ask("job-complete", { id: COPY_JOB });
          isAsked = true;
        }
      }
      if (copy.kind === "flatten") await this.#flush(copy.layer);
    } catch (error) {
      if (codeOf(error) !== "daemon-lost") await this.stopCopy();
      throw error;
    }
  }

  /** Ends the copy, where one is under way; the chain is what it was. */
  async stopCopy(): Promise<void> {
    this.#isStreaming = false;
    if ((await this.#copyJob()) === undefined) return;
    await this.#daemon.unlessDone("job-cancel", { id: COPY_JOB }, /cannot accept|not found/);
    await this.#copyEnded();
  }

  /**
   * Closes `upper`, with `lower` in its place; clients go on. Done before: nothing. QEMU 7.2 fails an assertion when a commit that is finalized
   * takes a top away under a throttle node with writes on their way: so the throttle node is moved by hand while clients wait, and the job,
   * which has nothing to do any more, is cancelled.
   */
  async leave({ upper, lower }: Merge, isTop: boolean): Promise<void> {
    if (isTop && (await this.top()) !== nodeOf(lower))
      await this.#daemon.ask("blockdev-reopen", { options: [volumeNode(lower)] });
    const job = await this.#copyJob();
    if (job !== undefined) {
      if (!isTop && job.status === "pending") await this.#daemon.ask("job-finalize", { id: COPY_JOB });
      else await this.#daemon.unlessDone("job-cancel", { id: COPY_JOB }, /cannot accept|not found/);
      await this.#copyEnded();
    }
    const name = nodeOf(upper);
    await this.#daemon.unlessDone("blockdev-del", { "node-name": name }, /not owned|Cannot find|Failed to find/);
    if ((await this.#nodes()).some((node) => node["node-name"] === name))
      throw new RingsteadError("daemon-refused", `the daemon does not close ${name}`);
  }

  /**
   * Leaves `layer` as the last of the chain, and closes what was below; clients go on. Done before: nothing. A layer that was put upon another while
   * that was open is not closed with what reads through it, and what its image is upon is closed by hand.
   */
  async cut({ layer, base }: Flatten): Promise<void> {
    this.#isStreaming = false;
    const job = await this.#copyJob();
    if (job !== undefined) {
      if (job.status === "pending") await this.#daemon.ask("job-finalize", { id: COPY_JOB });
      else await this.#daemon.unlessDone("job-cancel", { id: COPY_JOB }, /cannot accept|not found/);
      await this.#copyEnded();
    }
    const below = await this.#childOf(nodeOf(layer), "backing");
    if (below !== undefined) throw new RingsteadError("daemon-refused", `the daemon reads ${below} through the layer`);
    await this.#closeNodes(VOLUME_NODE);
    if ((await this.#nodes()).some((node) => node["node-name"] === nodeOf(base)))
      throw new RingsteadError("daemon-refused", `the daemon does not close ${nodeOf(base)}`);
  }

  /** The name of the node that is written to. */
  top(): Promise<string | undefined> {
    return this.#childOf(VOLUME_NODE, "file");
  }

  async #childOf(node: string, child: "file" | "backing"): Promise<string | undefined> {
    const { nodes, edges } = (await this.#daemon.ask("x-debug-query-block-graph")) as GraphInfo;
    const parent = nodes.find(({ name }) => name === node);
    const edge = edges.find((one) => one.parent === parent?.id && one.name === child);
    return nodes.find(({ id }) => id === edge?.child)?.name;
  }

  /** Resolves once all that the daemon has of the layer is on the disk: QEMU flushes what is opened anew, also where nothing of it changes. */
  async #flush(layer: LayerId): Promise<void> {
    const name = nodeOf(layer);
    const [file, backing] = [await this.#childOf(name, "file"), await this.#childOf(name, "backing")];
    if (file === undefined || backing === undefined)
      throw new RingsteadError("daemon-refused", `the daemon has no overlay ${name}`);
    await this.#daemon.ask("blockdev-reopen", { options: [sameNode(layer, file, backing)] });
  }

  /** Keeps what it said within its limit. */
  boundLog(): void {
    boundLog(this.#files.log);
  }

  /** Lets go of it: it goes on. */
  release(): void {
    this.#daemon.release();
  }

  /** Ends it, what it has in flight written out, or at once. */
  async end(graceMs?: number): Promise<void> {
    await this.#daemon.end(graceMs);
    rmSync(this.#files.nbdSocket, { force: true });
  }

  async #isTop(layer: LayerId): Promise<boolean> {
    return (await this.top()) === nodeOf(layer);
  }

  async #copyJob(): Promise<JobInfo | undefined> {
    return ((await this.#daemon.ask("query-jobs")) as readonly JobInfo[]).find(({ id }) => id === COPY_JOB);
  }

  /** Waits for the end of the job and forgets it. */
  async #copyEnded(): Promise<void> {
    const deadline = performance.now() + UNDER_WAY_LIMIT_MS;
    for (;;) {
      const job = await this.#copyJob();
      if (job === undefined) return;
      if (job.status === "concluded") break;
      if (performance.now() > deadline) throw new RingsteadError("daemon-lost", `a merge stays ${job.status}`);
      await sleep(1);
    }
    await this.#daemon.unlessDone("job-dismiss", { id: COPY_JOB }, /not found/);
  }

  async #nodes(): Promise<readonly NodeInfo[]> {
    return (await this.#daemon.ask("query-named-block-nodes", { flat: true })) as readonly NodeInfo[];
  }

  async #exports(): Promise<readonly ExportInfo[]> {
    return (await this.#daemon.ask("query-block-exports")) as readonly ExportInfo[];
  }

  /** Resolves once they are gone: only then may there be others of their names. */
  async #cutOff(ids: readonly string[]): Promise<void> {
    for (const id of ids)
      await this.#daemon.unlessDone("block-export-del", { id, mode: "hard" }, /not found|shutting down/);
    const deadline = performance.now() + UNDER_WAY_LIMIT_MS;
    while (ids.length > 0 && (await this.#exports()).some(({ id }) => ids.includes(id))) {
      if (performance.now() > deadline) throw new RingsteadError("daemon-lost", "connections do not close");
      await sleep(1);
    }
  }

  /** Whatever was opened goes, from above: what others read through cannot go before them. `kept` stays, with what it reads through. */
  async #closeNodes(kept?: string): Promise<void> {
    for (let before = -1; ; ) {
      const names = (await this.#nodes()).map((node) => node["node-name"]).filter((name) => name !== kept);
      if (names.length === 0) return;
      if (names.length === before && kept !== undefined) return;
      if (names.length === before) throw new RingsteadError("daemon-lost", `${names.join(", ")} do not close`);
      before = names.length;
      for (const name of names)
        await this.#daemon.unlessDone(
          "blockdev-del",
          { "node-name": name },
          /in use|is busy|not owned|Cannot find|Failed to find/,
        );
    }
  }

  #addTop(chain: readonly PlacedLayer[]): Promise<void> {
    return this.#inSomeCacheMode((mode) => this.#daemon.ask("blockdev-add", topNode(chain, mode)));
  }

  /** Not every kernel lets one use io_uring, not every file system passes its page cache by. */
  async #inSomeCacheMode(add: (mode: CacheMode) => Promise<unknown>): Promise<void> {
    for (const mode of CACHE_MODES) {
      try {
        await add(mode);
        return;
      } catch (error) {
        if (mode === CACHE_MODES.at(-1) || !isRefused(error, /io_uring|O_DIRECT/)) throw error;
      }
    }
  }
}
