import { createServer, type ListenOptions, type Server } from "node:net";
import { METRICS_PORT, PUBLIC_PORTS } from "./config.ts";

const HOST = "127.0.0.1";
/** Below it the defaults of this and other programs lie; from `EPHEMERAL_FIRST` on Linux takes ports of outgoing connections. */
const FIRST = 10_000;
const EPHEMERAL_FIRST = 32_768;
/** TCP ports that move with `port_offset` beside the public ones: iSCSI, and NBD's first ones. */
const BLOCK_PORTS = [3260, ...Array.from({ length: 16 }, (_, index) => 10_809 + index)];
const ATTEMPTS = 1000;

const listening = (address: ListenOptions): Promise<Server | undefined> =>
  new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(undefined));
    server.listen(address, () => resolve(server));
  });

const closed = (server: Server | undefined): Promise<void> =>
  new Promise((resolve) => (server === undefined ? resolve() : server.close(() => resolve())));

const isFree = async (port: number): Promise<boolean> => {
  const server = await listening({ host: HOST, port });
  await closed(server);
  return server !== undefined;
};

/**
 * Reserves all of `ports` on 127.0.0.1 or none, and says whether it did. Nobody else who asks here gets one of them until this process ends, also while
 * what listens there is stopped and started: each is stood for by an abstract socket, which the kernel takes back from whoever dies.
 */
const reserve = async (ports: readonly number[]): Promise<boolean> => {
  const marks = await Promise.all(ports.map((port) => listening({ path: `\0ringstead-reserved-port-${port}` })));
  if (marks.every((mark) => mark !== undefined) && (await Promise.all(ports.map(isFree))).every(Boolean)) {
    for (const mark of marks) mark?.unref();
    return true;
  }
  await Promise.all(marks.map(closed));
  return false;
};

/** A number from `first` to before `end` for which all of `portsOf` could be reserved. */
const reserveAny = async (first: number, end: number, portsOf: (number: number) => number[]): Promise<number> => {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const chosen = first + Math.floor(Math.random() * (end - first));
    if (await reserve(portsOf(chosen))) return chosen;
  }
  throw new Error(`no free ports on ${HOST}`);
};

/** The first of `count` TCP ports in a row of 127.0.0.1 where nobody listens, for tests and benches; they are this process's until it ends. */
export const freePorts = (count: number): Promise<number> =>
  reserveAny(FIRST, EPHEMERAL_FIRST - count, (first) => Array.from({ length: count }, (_, index) => first + index));

/** A `port_offset` at which nobody listens, for tests and benches; its ports are this process's until it ends. */
export const freePortOffset = (): Promise<number> => {
  const all = [...Object.values(PUBLIC_PORTS), METRICS_PORT, ...BLOCK_PORTS];
  return reserveAny(FIRST - Math.min(...all), EPHEMERAL_FIRST - Math.max(...all), (offset) =>
    all.map((port) => port + offset),
  );
};
