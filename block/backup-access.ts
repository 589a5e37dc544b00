import { readFile } from "node:fs/promises";
import { type ClusterConfig, publicEndpoint, rpcAddress } from "../common/config.ts";
import { RingsteadError } from "../common/errors.ts";
import { RpcClient } from "../common/rpc/client.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import { createIdentityClient, createRemoteIdentityClient, type IdentityClient } from "../identity/client.ts";
import { BackupStore } from "./backup/backup-store.ts";
import { projectKeys } from "./backup/keys.ts";
import type { ObjectStore } from "./backup/object-store.ts";
import { SwiftObjectStore } from "./backup/swift-object-store.ts";
import type { BackupConfig } from "./config.ts";

/** The identity service of this installation, on this node or another one. Errors: "invalid-config". */
export const identityOf = (
  {
    config,
    paths,
    clusterKey,
  }: { readonly config: ClusterConfig; readonly paths: RuntimePaths; readonly clusterKey: Buffer },
  held: AsyncDisposableStack,
): { readonly client: IdentityClient; readonly isHere: boolean } => {
  const { cluster, node } = config;
  const isHere = cluster === undefined || cluster.identityNode === node;
  if (isHere) return { client: createIdentityClient(paths.socket("control")), isHere };
  const address = rpcAddress(config, cluster.identityNode, "control");
  if (address === undefined) throw new RingsteadError("invalid-config", `there is no node ${cluster.identityNode}`);
  return { client: createRemoteIdentityClient(held.use(new RpcClient(address, clusterKey))), isHere };
};

/** The object service of this installation, as the block service may use it; undefined where it has none. */
export const objectStoreOf = async (
  config: ClusterConfig,
  identity: IdentityClient,
): Promise<SwiftObjectStore | undefined> => {
  if (!config.services.includes("object")) return undefined;
  // The certificate that the public ports show may be nobody's but the installation's own.
  const ca = config.tlsCert === undefined ? undefined : await readFile(config.tlsCert);
  const access = () => identity.serviceToken("block");
  return new SwiftObjectStore({ endpoint: publicEndpoint(config, "object"), ca, access });
};

export type BackupAccess = {
  readonly objects: ObjectStore;
  readonly secret: Buffer;
  readonly config: Pick<BackupConfig, "compression" | "isEncrypted">;
};

/** Where one project's backups are. */
export const backupStoreOf = ({ objects, secret, config }: BackupAccess, projectId: string): BackupStore =>
  new BackupStore({
    objects,
    projectId,
    keys: projectKeys(secret, projectId),
    compression: config.compression,
    isEncrypted: config.isEncrypted,
  });
