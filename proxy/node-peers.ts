import { type ClusterConfig, rpcAddress } from "../common/config.ts";
import { type DeviceGroups, storageNodeName } from "../common/device-groups.ts";
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
import type { RingDevice } from "../ring/device.ts";

type PeersContext = Pick<ServiceContext, "config" | "paths" | "clusterKey" | "deviceGroups">;

/** The processes that a proxy talks to: over Unix sockets on its own node, one for each of its disks, over TCP on others. Disposal closes the connections. */
export class NodePeers implements Disposable {
  readonly #config: ClusterConfig;
  readonly #paths: RuntimePaths;
  readonly #clusterKey: Buffer;
  readonly #deviceGroups: DeviceGroups;
  /** By the name of the process on this node, else by node. */
  readonly #storageNodes = new Map<string, RpcClient>();
  #identityRpc: RpcClient | undefined;

  constructor({ config, paths, clusterKey, deviceGroups }: PeersContext) {
    this.#config = config;
    this.#paths = paths;
    this.#clusterKey = clusterKey;
    this.#deviceGroups = deviceGroups;
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

  /** The connection to the process that serves a device. Requires: `checkKnown` has seen the ring that names it. */
  storageNode({ node, device }: RingDevice): RpcClient {
    const isOwn = node === this.#config.node;
    const name = isOwn ? storageNodeName(this.#deviceGroups, device) : `node ${node}`;
    let client = this.#storageNodes.get(name);
    if (client === undefined) {
      const address = isOwn ? this.#paths.socket(name) : rpcAddress(this.#config, node, "storage-node");
      if (address === undefined) throw new RingsteadError("ring-names-unknown-node", `there is no node ${node}`);
      client = new RpcClient(address, this.#clusterKey);
      this.#storageNodes.set(name, client);
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
