import type { RingsteadError } from "../../common/errors.ts";
import type { RpcClient } from "../../common/rpc/client.ts";
import { type DeviceClient, DevicesClient } from "../../storage-node/client.ts";
import type { Name } from "../../storage-node/wire.ts";

/** Errors in a row after which a device is asked only where no quorum is possible without it. */
const ERROR_LIMIT = 3;
/** A suspect is asked beside the others so often, until it answers. */
const PROBE_INTERVAL_MS = 200;
const PROBE_TIMEOUT_MS = 2000;
/** A node that let a message run out of time and answered nothing else for so long has stopped, with all its devices. */
const SILENT_NODE_MS = 1500;
/** What may wait for one suspect in this process's memory: messages to a peer that does not read stay there after their time is over. */
const BACKLOG_LIMIT_BYTES = 16 * 1024 * 1024;
/** What a message has beside its body, roughly. */
const MESSAGE_BYTES = 1024;

/** A node whose process went is waited for so long where no quorum is possible without it: the supervisor starts it again at once. */
const RETURN_MS = 10_000;

/** The devices of one storage node, as far as they share its fate. */
export class NodeReplicas {
  /** Since when no connection to it was had; undefined after an answer. */
  unreachableSinceMs: number | undefined;
  answeredAtMs = performance.now();
  readonly replicas: Replica[] = [];
}

/** Twice what a replica's ceiling is ahead of its clock at most. */
const FRESH_MS = 2000;
/** A device that had no space is asked before it is written to, for so long. */
const SPACE_DOUBT_MS = 30_000;

/**
 * A device as this proxy sees it: its client, and whether it lately failed to answer. A suspect stays one until it answers anything:
 * the first time-out is the only one that a request pays for, however long the device is away.
 */
export class Replica {
  readonly client: DeviceClient;
  readonly #node: NodeReplicas;
  #errors = 0;
  #isSuspect = false;
  #isProbing = false;
  #probeAtMs = 0;
  #lackedSpaceAtMs = Number.NEGATIVE_INFINITY;
  #backlogBytes = 0;

  constructor(client: DeviceClient, node: NodeReplicas) {
    this.client = client;
    this.#node = node;
    node.replicas.push(this);
  }

  /** True while asking it would only cost a time-out. */
  get isSuspect(): boolean {
    return this.#isSuspect;
  }

  /** True where it said lately that it takes nothing that grows, or soon will not. */
  get mayLackSpace(): boolean {
    return performance.now() - this.#lackedSpaceAtMs < SPACE_DOUBT_MS;
  }

  /** Whether its node has answered nothing at all for `forMs`. */
  isSilent(forMs: number): boolean {
    return performance.now() - this.#node.answeredAtMs >= forMs;
  }

  /** Whether it may refuse ballots of this moment, as replicas do after a restart ([D2]), and could not tell what became of their versions ([A3]). */
  get mayBeFresh(): boolean {
    const isAway = this.#node.unreachableSinceMs !== undefined && !this.mayReturn;
    return !isAway && this.client.rpc.hasReturnedWithin(FRESH_MS);
  }

  /** Whether its node could be reached until a moment ago: it may just be restarting. */
  get mayReturn(): boolean {
    const { unreachableSinceMs } = this.#node;
    return unreachableSinceMs !== undefined && performance.now() - unreachableSinceMs < RETURN_MS;
  }

  /** What came of one message. An error that the device itself gave is an answer too, unless it says that the device is out of service. */
  heard(error: RingsteadError | undefined): void {
    if (error === undefined) return this.#answered();
    switch (error.code) {
      case "rpc-timeout":
        this.#failed(ERROR_LIMIT);
        if (this.isSilent(SILENT_NODE_MS)) for (const replica of this.#node.replicas) replica.#isSuspect = true;
        return;
      case "rpc-unsent":
      case "rpc-unreachable":
        this.#backlogBytes = 0;
        this.#node.unreachableSinceMs ??= performance.now();
        this.#failed(1);
        return;
      case "rpc-overloaded":
      case "device-failed":
      case "no-such-device":
        this.#failed(1);
        return;
      case "device-full":
      case "device-read-only":
        this.#lackedSpaceAtMs = performance.now();
        this.#answered();
        return;
      default:
        this.#answered();
    }
  }

  /** It took what it was sent, and has little room for more. */
  heardOfFilling(): void {
    this.#lackedSpaceAtMs = performance.now();
  }

  /** Whether a message with a body of `bodyBytes` may be sent to it: always, but to a suspect only while little waits for it already. */
  mayTake(bodyBytes: number): boolean {
    if (!this.#isSuspect) return true;
    if (this.#backlogBytes >= BACKLOG_LIMIT_BYTES) return false;
    this.#backlogBytes += bodyBytes + MESSAGE_BYTES;
    return true;
  }

  /** Asks a suspect again, nobody waiting for it; any answer ends the suspicion. */
  probe(name: Name): void {
    const nowMs = performance.now();
    if (!this.#isSuspect || this.#isProbing || nowMs < this.#probeAtMs) return;
    this.#isProbing = true;
    this.#probeAtMs = nowMs + PROBE_INTERVAL_MS;
    new DevicesClient(this.client.rpc, [this.client.device]).read(name, 0, PROBE_TIMEOUT_MS, (error) => {
      this.#isProbing = false;
      this.heard(error);
    });
  }

  #answered(): void {
    this.#errors = 0;
    this.#isSuspect = false;
    this.#backlogBytes = 0;
    this.#node.answeredAtMs = performance.now();
    this.#node.unreachableSinceMs = undefined;
  }

  #failed(weight: number): void {
    this.#errors += weight;
    if (this.#errors >= ERROR_LIMIT) this.#isSuspect = true;
  }
}

/** Those that answer first, then the suspects, which are asked again beside the others. */
export const healthyFirst = (name: Name, replicas: readonly Replica[]): readonly Replica[] => {
  if (!replicas.some(({ isSuspect }) => isSuspect)) return replicas;
  for (const replica of replicas) replica.probe(name);
  return [...replicas.filter(({ isSuspect }) => !isSuspect), ...replicas.filter(({ isSuspect }) => isSuspect)];
};

/** Replicas whose devices one node serves: they are sent one message. */
export type ReplicaGroup = { readonly client: DevicesClient; readonly members: readonly Replica[] };

/** `first`: the fewest that can settle a read, by node. */
export type ReadOrder = { readonly replicas: readonly Replica[]; readonly first: readonly ReplicaGroup[] };

/** Replicas by the node that serves them, in the order given. */
export const groupByNode = (replicas: readonly Replica[]): readonly ReplicaGroup[] => {
  const byNode = new Map<RpcClient, Replica[]>();
  for (const replica of replicas) {
    const members = byNode.get(replica.client.rpc);
    if (members === undefined) byNode.set(replica.client.rpc, [replica]);
    else members.push(replica);
  }
  return [...byNode].map(([rpc, members]) => ({
    client: new DevicesClient(
      rpc,
      members.map(({ client }) => client.device),
    ),
    members,
  }));
};

/** Fewest answers that meet every write quorum. */
const readQuorumOf = (replicaCount: number): number => replicaCount - Math.floor(replicaCount / 2);

export const readOrderOf = (replicas: readonly Replica[]): ReadOrder => ({
  replicas,
  first: groupByNode(replicas.slice(0, readQuorumOf(replicas.length))),
});
