import type { RpcClient } from "../../common/rpc/client.ts";
import type { RingDevice } from "../../ring/device.ts";
import type { Ring } from "../../ring/ring.ts";
import { DeviceClient, DevicesClient } from "../../storage-node/client.ts";
import type { Name, Space } from "../../storage-node/wire.ts";

/** Errors in a row after which a device is only asked again after a while. */
const ERROR_LIMIT = 3;
const SUSPECT_MS = 5000;
/** Containers and accounts whose replicas are remembered. */
const LATELY_LIMIT = 10_000;

/** A device as this proxy sees it: its client, and whether it lately failed to answer. */
export class Replica {
  readonly client: DeviceClient;
  #errors = 0;
  #suspectUntilMs = 0;

  constructor(client: DeviceClient) {
    this.client = client;
  }

  /** True while asking it would only cost a time-out. */
  get isSuspect(): boolean {
    return this.#suspectUntilMs > 0 && performance.now() < this.#suspectUntilMs;
  }

  answered(): void {
    this.#errors = 0;
    this.#suspectUntilMs = 0;
  }

  /** One unanswered message; a time-out counts as all that are allowed. */
  failed(isTimeout: boolean): void {
    this.#errors = isTimeout ? ERROR_LIMIT : this.#errors + 1;
    if (this.#errors >= ERROR_LIMIT) this.#suspectUntilMs = performance.now() + SUSPECT_MS;
  }
}

/** Replicas whose devices one node serves: they are sent one message. */
export type ReplicaGroup = { readonly client: DevicesClient; readonly members: readonly Replica[] };

/** The replicas of a partition, primaries in ring order; made once for each partition. */
type PartitionReplicas = {
  readonly replicas: readonly Replica[];
  readonly groups: readonly ReplicaGroup[];
  /** The same replicas, each of them first once: whom a read asks, and in what order. */
  readonly orders: readonly ReadOrder[];
};

/** `first`: the fewest that can settle a read, by node. */
export type ReadOrder = { readonly replicas: readonly Replica[]; readonly first: readonly ReplicaGroup[] };

/** The replicas of one name. */
export type ReplicaSet = PartitionReplicas & { readonly name: Name };

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
export const readQuorumOf = (replicaCount: number): number => replicaCount - Math.floor(replicaCount / 2);

export const readOrderOf = (replicas: readonly Replica[]): ReadOrder => ({
  replicas,
  first: groupByNode(replicas.slice(0, readQuorumOf(replicas.length))),
});

export type Rings = { readonly account: Ring; readonly container: Ring; readonly object: Ring };

/** Finds the replicas of names. */
export class Replicas {
  readonly #rings: Rings;
  readonly #byDevice = new Map<string, Replica>();
  /** By the ring's own array of devices, which is the same object for a partition each time. */
  readonly #byPrimaries = new Map<readonly RingDevice[], PartitionReplicas>();
  readonly #lately = new Map<string, ReplicaSet>();
  readonly #rpcOf: (node: string) => RpcClient;

  constructor(rings: Rings, rpcOf: (node: string) => RpcClient) {
    this.#rings = rings;
    this.#rpcOf = rpcOf;
  }

  account(account: string): ReplicaSet {
    return this.#lately.get(account) ?? this.#remember(account, this.#find("account", this.#rings.account, account));
  }

  container(account: string, container: string): ReplicaSet {
    const id = `${account}/${container}`;
    return (
      this.#lately.get(id) ?? this.#remember(id, this.#find("container", this.#rings.container, account, container))
    );
  }

  object(account: string, container: string, object: string): ReplicaSet {
    return this.#find("object", this.#rings.object, account, container, object);
  }

  /** Containers and accounts are looked up again and again: with each row. */
  #remember(id: string, set: ReplicaSet): ReplicaSet {
    if (this.#lately.size >= LATELY_LIMIT) this.#lately.clear();
    this.#lately.set(id, set);
    return set;
  }

  #find(space: Space, ring: Ring, account: string, container?: string, object?: string): ReplicaSet {
    const { hash32, partition } = ring.placementOf(account, container, object);
    let path = `/${account}`;
    if (container !== undefined) path += `/${container}`;
    if (object !== undefined) path += `/${object}`;
    const { replicas, groups, orders } = this.#replicasOf(ring.primaries(partition));
    return { name: { space, hash32, path }, replicas, groups, orders };
  }

  #replicasOf(primaries: readonly RingDevice[]): PartitionReplicas {
    let found = this.#byPrimaries.get(primaries);
    if (found === undefined) {
      const replicas = primaries.map((device) => this.#replica(device));
      const orders = replicas.map((_, turn) => readOrderOf([...replicas.slice(turn), ...replicas.slice(0, turn)]));
      found = { replicas, groups: groupByNode(replicas), orders };
      this.#byPrimaries.set(primaries, found);
    }
    return found;
  }

  #replica(device: RingDevice): Replica {
    const id = `${device.node}/${device.device}`;
    let replica = this.#byDevice.get(id);
    if (replica === undefined) {
      replica = new Replica(new DeviceClient(this.#rpcOf(device.node), device.device));
      this.#byDevice.set(id, replica);
    }
    return replica;
  }
}
