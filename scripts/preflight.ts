import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { type ClusterConfig, portOf } from "../common/config.ts";
import { codeOf, messageOf, RingsteadError } from "../common/errors.ts";

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

/** Public ports that the chosen services of this version listen on, with what each is for. */
export const portsOf = (config: ClusterConfig): { host: string; port: number; purpose: string }[] => [
  { host: config.bind, port: portOf(config, "identity"), purpose: "identity" },
  ...(config.services.includes("object")
    ? [{ host: config.bind, port: portOf(config, "object"), purpose: "object" }]
    : []),
  { ...splitAddress(config.metricsBind), purpose: "metrics" },
];

/** Throws RingsteadError `port-in-use` or `port-refused`, naming the first port that cannot be had. */
export const checkPorts = async (config: ClusterConfig): Promise<void> => {
  for (const { host, port, purpose } of portsOf(config)) {
    try {
      await tryPort(host, port);
    } catch (thrown) {
      if (codeOf(thrown) !== "EADDRINUSE") {
        throw new RingsteadError("port-refused", `cannot listen on ${host}:${port} (${purpose}): ${messageOf(thrown)}`);
      }
      throw new RingsteadError(
        "port-in-use",
        `port ${port} (${purpose}) on ${host} is in use by another program: stop it, or choose others with --port-offset N`,
        { host, port, purpose },
      );
    }
  }
};
