import { type ClusterConfig, rpcAddress } from "../common/config.ts";
import { RingsteadError } from "../common/errors.ts";
import { RpcClient } from "../common/rpc/client.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import type { Worker } from "../common/worker.ts";
import {
  createIdentityClient,
  createRemoteIdentityClient,
  type IdentityClient,
  identityKeyFollower,
} from "../identity/client.ts";
import type { RingDevice } from "../ring/device.ts";

/** The processes that a proxy talks to: over Unix sockets on its own node, over TCP on others. Disposal closes the connections. */
export class NodePeers implements Disposable {
  readonly #config: ClusterConfig;
  readonly #paths: RuntimePaths;
  readonly #clusterKey: Buffer;
  readonly #storageNodes = new Map<string, RpcClient>();
  #identityRpc: RpcClient | undefined;

  constructor(config: ClusterConfig, paths: RuntimePaths, clusterKey: Buffer) {
    this.#config = config;
    this.#paths = paths;
    this.#clusterKey = clusterKey;
  }

  /** Throws RingsteadError `ring-names-unknown-node` where a ring places data on a node that cluster.toml does not have. */
  checkKnown(devices: readonly (RingDevice | undefined)[]): void {
    for (const device of devices) {
      if (device === undefined || device.node === this.#config.node) continue;
      if (rpcAddress(this.#config, device.node, "storage-node") !== undefined) continue;
      throw new RingsteadError(
        "ring-names-unknown-node",
        `a ring places data on ${device.node}/${device.device}, and cluster.toml has no table [node.${device.node}]`,
        { node: device.node },
      );
    }
  }

  /** The connection to the storage node of `node`. Requires: `checkKnown` has seen the ring that names it. */
  storageNode(node: string): RpcClient {
    let client = this.#storageNodes.get(node);
    if (client === undefined) {
      const isOwn = node === this.#config.node;
      const address = isOwn ? this.#paths.socket("storage-node") : rpcAddress(this.#config, node, "storage-node");
      if (address === undefined) throw new RingsteadError("ring-names-unknown-node", `there is no node ${node}`);
      client = new RpcClient(address, this.#clusterKey);
      this.#storageNodes.set(node, client);
    }
    return client;
  }

  /** How the identity process is asked, and the work that keeps its public keys here where it is on another node. Called once. */
  identity(): { readonly client: IdentityClient; readonly workers: readonly Worker[] } {
    const { cluster, node } = this.#config;
    if (cluster === undefined || cluster.identityNode === node) {
      return { client: createIdentityClient(this.#paths.socket("control")), workers: [] };
    }
    const address = rpcAddress(this.#config, cluster.identityNode, "control");
    if (address === undefined) throw new RingsteadError("invalid-config", `there is no node ${cluster.identityNode}`);
    this.#identityRpc = new RpcClient(address, this.#clusterKey);
    const client = createRemoteIdentityClient(this.#identityRpc);
    return { client, workers: [identityKeyFollower(client, this.#paths.identityDir)] };
  }

  [Symbol.dispose](): void {
    for (const client of this.#storageNodes.values()) client[Symbol.dispose]();
    this.#identityRpc?.[Symbol.dispose]();
  }
}
