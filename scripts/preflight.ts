import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { type ClusterConfig, portOf, rpcListenAddress } from "../common/config.ts";
import { codeOf, messageOf, RingsteadError } from "../common/errors.ts";
import { chosenKinds } from "./installation.ts";

/** Clients, sockets between processes, logs. */
const FILES_BASE = 1024;
/** Tables of the index that LevelDB keeps open, segments, large files being read. */
const FILES_PER_DEVICE = 512;

/** Node raises its soft limit to the hard one when it starts, so the soft limit is what children will have. */
const openFileLimit = (): number => {
  const line = readFileSync("/proc/self/limits", "utf8").match(/^Max open files\s+(\S+)/m);
  return line?.[1] === undefined || line[1] === "unlimited" ? Number.POSITIVE_INFINITY : Number(line[1]);
};

/** Throws RingsteadError `open-file-limit`. */
export const checkOpenFileLimit = (deviceCount: number, limit = openFileLimit()): void => {
  const needed = FILES_BASE + FILES_PER_DEVICE * deviceCount;
  if (limit >= needed) return;
  throw new RingsteadError(
    "open-file-limit",
    `the limit of open files is ${limit}, ${deviceCount} devices need ${needed}: run "ulimit -n ${needed}" first, or raise LimitNOFILE`,
    { limit, needed },
  );
};

const tryPort = (host: string, port: number): Promise<void> =>
  new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve()));
  });

/** Host and port of a `metrics_bind`. */
export const splitAddress = (address: string): { host: string; port: number } => {
  const colon = address.lastIndexOf(":");
  return { host: address.slice(0, colon).replace(/^\[|\]$/g, ""), port: Number(address.slice(colon + 1)) };
};

type Port = {
  readonly host: string;
  readonly port: number;
  readonly purpose: string;
  /** What moves it elsewhere. */
  readonly remedy: string;
};

/** Ports that the processes of these roles listen on, with what each is for. */
export const portsOf = (config: ClusterConfig, roles: readonly string[]): Port[] => {
  const offset = "choose others with --port-offset N";
  const kinds = chosenKinds(config, roles);
  return [
    ...kinds
      .flatMap(({ ports }) => ports)
      .map((purpose) => ({ host: config.bind, port: portOf(config, purpose), purpose, remedy: offset })),
    ...kinds.flatMap(({ rpc, role }) => {
      const address = rpc === undefined ? undefined : rpcListenAddress(config, rpc);
      const remedy = `choose another with rpc_port in the table [node.${config.node}] of every node's cluster.toml`;
      return address === undefined ? [] : [{ ...address, purpose: `RPC of ${role}`, remedy }];
    }),
    {
      ...splitAddress(config.metricsBind),
      purpose: "metrics",
      remedy: "choose others with --port-offset N, or another with metrics_bind in cluster.toml",
    },
  ];
};

/** Throws RingsteadError `port-in-use` or `port-refused`, naming the first port that cannot be had and what to change. */
export const checkPorts = async (config: ClusterConfig, roles: readonly string[]): Promise<void> => {
  for (const { host, port, purpose, remedy } of portsOf(config, roles)) {
    try {
      await tryPort(host, port);
    } catch (thrown) {
      if (codeOf(thrown) !== "EADDRINUSE") {
        throw new RingsteadError("port-refused", `cannot listen on ${host}:${port} (${purpose}): ${messageOf(thrown)}`);
      }
      throw new RingsteadError(
        "port-in-use",
        `port ${port} (${purpose}) on ${host} is in use by another program: stop it, or ${remedy}`,
        { host, port, purpose },
      );
    }
  }
};
