import type { RpcClient } from "../../common/rpc/client.ts";
import type { RingDevice } from "../../ring/device.ts";
import type { Ring } from "../../ring/ring.ts";
import { DeviceClient } from "../../storage-node/client.ts";
import type { Name, Space } from "../../storage-node/wire.ts";

/** Errors in a row after which a device is only asked again after a while. */
const ERROR_LIMIT = 3;
const SUSPECT_MS = 5000;

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

/** The replicas of one name, primaries in ring order. */
export type ReplicaSet = { readonly name: Name; readonly replicas: readonly Replica[] };

export type Rings = { readonly account: Ring; readonly container: Ring; readonly object: Ring };

/** Finds the replicas of names. */
export class Replicas {
  readonly #rings: Rings;
  readonly #byDevice = new Map<string, Replica>();
  readonly #rpcOf: (node: string) => RpcClient;

  constructor(rings: Rings, rpcOf: (node: string) => RpcClient) {
    this.#rings = rings;
    this.#rpcOf = rpcOf;
  }

  account(account: string): ReplicaSet {
    return this.#find("account", this.#rings.account, account);
  }

  container(account: string, container: string): ReplicaSet {
    return this.#find("container", this.#rings.container, account, container);
  }

  object(account: string, container: string, object: string): ReplicaSet {
    return this.#find("object", this.#rings.object, account, container, object);
  }

  #find(space: Space, ring: Ring, account: string, container?: string, object?: string): ReplicaSet {
    const { hash32, partition } = ring.placementOf(account, container, object);
    let path = `/${account}`;
    if (container !== undefined) path += `/${container}`;
    if (object !== undefined) path += `/${object}`;
    return {
      name: { space, hash32, path },
      replicas: ring.primaries(partition).map((device) => this.#replica(device)),
    };
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
