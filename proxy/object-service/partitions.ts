import type { RpcClient } from "../../common/rpc/client.ts";
import { type HybridTimestamp, TIMESTAMP_ZERO } from "../../common/hybrid-clock.ts";
import type { Ring } from "../../ring/ring.ts";
import { DeviceClient } from "../../storage-node/client.ts";
import type { Configuration, Space } from "../../storage-node/wire.ts";
import { handOffLimit } from "../core/hand-off-keep.ts";
import { type Members, Partition, type ReplicaOf, type ReplicaSet } from "./partition.ts";
import { NodeReplicas, Replica } from "./replicas.ts";

/** Containers and accounts whose replicas are remembered. */
const LATELY_LIMIT = 10_000;

/** One for each space. */
export type Rings = Readonly<Record<Space, Ring>>;

/** A device by its node and its name there. */
export type DevicePlace = { readonly node: string; readonly device: string };

/** Finds the partitions of names, and the replicas on devices. One array read for each name. */
export class Partitions {
  readonly #rings: Rings;
  /** Of each space by their numbers; those that were asked for. */
  readonly #known: Readonly<Record<Space, (Partition | undefined)[]>>;
  readonly #byDevice = new Map<string, Replica>();
  readonly #byPeer = new Map<RpcClient, NodeReplicas>();
  readonly #lately = new Map<string, ReplicaSet>();
  readonly #rpcOf: (device: DevicePlace) => RpcClient;
  readonly #replicaOf: ReplicaOf = (id) => this.replica(id);
  readonly #onLearn: (configuration: Configuration) => void;
  readonly #newestRing: (space: Space) => Ring;
  /** By the members of a partition, which others stand in for. */
  readonly #handOffs = new WeakMap<Members, { readonly ring: Ring; readonly replicas: readonly Replica[] }>();

  /**
   * @param rings those at which partitions that were never moved are of epoch 0
   * @param rpcOf errors (thrown): "ring-names-unknown-node"
   * @param onFloor ballots at or below it are refused from now on
   * @param newestRing that of a space which says who stands in for absent members; that of `rings` where it is not given
   */
  constructor(
    rings: Rings,
    rpcOf: (device: DevicePlace) => RpcClient,
    onFloor: (floor: HybridTimestamp) => void = () => {},
    newestRing: (space: Space) => Ring = (space) => rings[space],
  ) {
    this.#rings = rings;
    this.#newestRing = newestRing;
    this.#rpcOf = rpcOf;
    this.#onLearn = ({ floor }) => onFloor(floor);
    const noneOf = ({ partitionCount }: Ring): undefined[] => Array.from({ length: partitionCount });
    this.#known = {
      account: noneOf(rings.account),
      container: noneOf(rings.container),
      object: noneOf(rings.object),
    };
    for (const ring of Object.values(rings))
      for (const device of ring.devices) if (device !== undefined) this.replica(`${device.node}/${device.device}`);
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

  /** The same replicas with those that stand in for them under policy `available` ([H1]). */
  available(set: ReplicaSet): ReplicaSet {
    return { ...set, handOffs: this.#handOffsOf(set.partition) };
  }

  #handOffsOf({ members, place }: Partition): readonly Replica[] {
    const ring = this.#newestRing(place.space);
    const known = this.#handOffs.get(members);
    if (known?.ring === ring) return known.replicas;
    const replicas = this.#findHandOffs(ring, place.partition, members);
    this.#handOffs.set(members, { ring, replicas });
    return replicas;
  }

  #findHandOffs(ring: Ring, partition: number, { configuration, replicas: keepers }: Members): readonly Replica[] {
    const nodeOf = (id: string): string => id.slice(0, id.indexOf("/"));
    const ids = [...configuration.old, ...(configuration.next ?? [])].map(({ id }) => id);
    const nodes = new Set(ids.map(nodeOf));
    const near: Replica[] = [];
    const far: Replica[] = [];
    // A partition that was moved may have left devices that the ring names for it.
    for (const { device, node } of [...ring.handoffs(partition), ...ring.primaries(partition)]) {
      const id = `${node}/${device}`;
      if (!ids.includes(id)) (nodes.has(node) ? near : far).push(this.replica(id));
    }
    return [...far, ...near].slice(0, handOffLimit(keepers.length));
  }

  /** That at which partitions that were never moved are of epoch 0. */
  ringOf(space: Space): Ring {
    return this.#rings[space];
  }

  /** Requires: the space's ring has it. */
  partition(space: Space, partition: number): Partition {
    return this.#known[space][partition] ?? this.#begin(space, partition);
  }

  /** Those that this process has heard of, by their devices: the rings' and those that came later. */
  replicas(): ReadonlyMap<string, Replica> {
    return this.#byDevice;
  }

  /** The replica on a device, named as `node/device`. Errors (thrown): "ring-names-unknown-node". */
  replica(id: string): Replica {
    let replica = this.#byDevice.get(id);
    if (replica === undefined) {
      const slash = id.indexOf("/");
      const place = { node: id.slice(0, slash), device: id.slice(slash + 1) };
      const rpc = this.#rpcOf(place);
      let peer = this.#byPeer.get(rpc);
      if (peer === undefined) {
        peer = new NodeReplicas();
        this.#byPeer.set(rpc, peer);
      }
      replica = new Replica(new DeviceClient(rpc, place.device), peer);
      this.#byDevice.set(id, replica);
    }
    return replica;
  }

  #begin(space: Space, partition: number): Partition {
    const { partitionPower } = this.#rings[space];
    const old = this.#rings[space]
      .primaries(partition)
      .map(({ device, node }) => ({ id: `${node}/${device}`, since: 0 }));
    const first: Configuration = { epoch: 0, old, next: undefined, floor: TIMESTAMP_ZERO };
    const place = { space, partition, partitionPower };
    const begun = new Partition(place, first, this.#replicaOf, this.#onLearn);
    this.#known[space][partition] = begun;
    return begun;
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
    return { name: { space, hash32, path }, partition: this.partition(space, partition) };
  }
}
