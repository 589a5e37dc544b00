import { type ClusterConfig, rpcAddress } from "../common/config.ts";
import { RingsteadError } from "../common/errors.ts";
import { RpcClient } from "../common/rpc/client.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import type { ServiceContext } from "../common/service-process.ts";
import type { Worker } from "../common/worker.ts";
import {
  createIdentityClient,
  createRemoteIdentityClient,
  type IdentityClient,
  identityKeyFollower,
} from "../identity/client.ts";
import { StorageNodeConnections } from "../storage-node/client.ts";

type PeersContext = Pick<ServiceContext, "config" | "paths" | "clusterKey" | "deviceGroups">;

/** The processes that a proxy talks to: over Unix sockets on its own node, one for each of its disks, over TCP on others. Disposal closes the connections. */
export class NodePeers implements Disposable {
  readonly #config: ClusterConfig;
  readonly #paths: RuntimePaths;
  readonly #clusterKey: Buffer;
  readonly #storageNodes: StorageNodeConnections;
  #identityRpc: RpcClient | undefined;

  constructor(context: PeersContext) {
    this.#config = context.config;
    this.#paths = context.paths;
    this.#clusterKey = context.clusterKey;
    this.#storageNodes = new StorageNodeConnections(context);
  }

  /** The connections to storage nodes. */
  get storageNodes(): StorageNodeConnections {
    return this.#storageNodes;
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
    this.#storageNodes[Symbol.dispose]();
    this.#identityRpc?.[Symbol.dispose]();
  }
}
