import { readClusterKey } from "../common/cluster-key.ts";
import { type ClusterConfig, LOCAL_NODE, loadConfig } from "../common/config.ts";
import { RingsteadError } from "../common/errors.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import type { RingDevice } from "../ring/device.ts";
import { loadBaseRing } from "../ring/base-ring.ts";
import { loadRing } from "../ring/ring-file.ts";
import type { Ring } from "../ring/ring.ts";
import { DeviceClient, StorageNodeConnections } from "../storage-node/client.ts";
import { OperatorPeer } from "../storage-node/daemons/scrubber-peer.ts";
import type { Space } from "../storage-node/wire.ts";
import { deviceGroupsOf } from "./installation.ts";
import { readSupervisorState } from "./supervisor.ts";

/** A device named as `node/device`. */
export const placeOfId = (id: string): Pick<RingDevice, "device" | "node"> => {
  const slash = id.indexOf("/");
  return { node: id.slice(0, slash), device: id.slice(slash + 1) };
};

/** The devices of an installation, as commands ask them. Disposal closes the connections. */
export class InstallationDevices implements Disposable {
  readonly config: ClusterConfig;
  readonly rings: Readonly<Record<Space, Ring>>;
  /** Those by which partitions that were never moved are kept. */
  readonly bases: Readonly<Record<Space, Ring>>;
  readonly #connections: StorageNodeConnections;

  /** Errors: "invalid-config", those of ring files and of the cluster key. */
  constructor(
    paths: RuntimePaths,
    config = loadConfig(paths.dataDir, readSupervisorState(paths)?.config.node ?? LOCAL_NODE),
  ) {
    this.config = config;
    this.rings = {
      account: loadRing(paths.ringFile("account")),
      container: loadRing(paths.ringFile("container")),
      object: loadRing(paths.ringFile("object-0")),
    };
    this.bases = {
      account: loadBaseRing(paths.ringFile("account")),
      container: loadBaseRing(paths.ringFile("container")),
      object: loadBaseRing(paths.ringFile("object-0")),
    };
    const deviceGroups = deviceGroupsOf(config);
    this.#connections = new StorageNodeConnections({ config, paths, clusterKey: readClusterKey(paths), deviceGroups });
    for (const ring of Object.values(this.rings)) this.#connections.checkKnown(ring.devices);
  }

  /** Every device that a ring names, once. */
  all(): RingDevice[] {
    const found = new Map<string, RingDevice>();
    for (const ring of Object.values(this.rings))
      for (const device of ring.devices) if (device !== undefined) found.set(`${device.node}/${device.device}`, device);
    return [...found.values()].toSorted((one, other) => {
      const [left, right] = [this.nameOf(one), this.nameOf(other)];
      return left.length - right.length || (left < right ? -1 : 1);
    });
  }

  /** `d1`, or `node2/d1` on another node. Errors: "usage" for a name that no ring has. */
  named(name: string): RingDevice {
    const found = this.all().find(
      (device) => this.nameOf(device) === name || `${device.node}/${device.device}` === name,
    );
    if (found !== undefined) return found;
    const known = this.all().map((device) => this.nameOf(device));
    throw new RingsteadError("usage", `there is no device "${name}"; there are ${known.join(", ")}`);
  }

  /** Takes `node/device`. */
  nameOfId(id: string): string {
    return this.nameOf(placeOfId(id));
  }

  nameOf({ node, device }: Pick<RingDevice, "node" | "device">): string {
    return node === this.config.node ? device : `${node}/${device}`;
  }

  /** Those that rings name, and those that they named at the beginning: who may know who keeps a partition. */
  everybody(): DeviceClient[] {
    const rings = [...Object.values(this.rings), ...Object.values(this.bases)];
    const devices = rings.flatMap((ring) => ring.devices.filter((one) => one !== undefined));
    const byId = new Map(devices.map((one) => [`${one.node}/${one.device}`, one]));
    return [...byId.values()].map((one) => new DeviceClient(this.#connections.of(one), one.device));
  }

  peer(device: Pick<RingDevice, "device" | "node">): OperatorPeer {
    return new OperatorPeer(this.#connections.of(device), device.device);
  }

  [Symbol.dispose](): void {
    this.#connections[Symbol.dispose]();
  }
}
