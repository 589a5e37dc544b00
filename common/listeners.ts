import type { Server } from "node:net";

/**
 * Listening sockets that the supervisor holds for its processes, as JSON: address → file descriptor here. A process that takes over listens
 * on the same socket as the one that it takes over from, so no connection that waits to be accepted is lost; with a socket of its own on the port
 * (SO_REUSEPORT) those in the old one's queue are reset when it closes.
 */
export const HELD_LISTENERS = "RINGSTEAD_LISTENERS";

/** A TCP address, or the path of a Unix socket. */
export type BindAddress = { readonly host: string; readonly port: number } | { readonly path: string };

/** The name of an address among the held ones. */
export const listenerName = (address: BindAddress): string =>
  "path" in address ? `unix ${address.path}` : `tcp ${address.host} ${address.port}`;

const readHeld = (): ReadonlyMap<string, number> => {
  const text = process.env[HELD_LISTENERS];
  // Processes that this one starts do not have these descriptors.
  delete process.env[HELD_LISTENERS];
  if (text === undefined) return new Map();
  const value: unknown = JSON.parse(text);
  const entries = typeof value === "object" && value !== null ? Object.entries(value) : [];
  return new Map(entries.flatMap(([name, fd]) => (typeof fd === "number" ? [[name, fd] as const] : [])));
};

const held = readHeld();

/** Whether the supervisor holds the socket of this address for us. */
export const isHeld = (address: BindAddress): boolean => held.has(listenerName(address));

/** Listens on the socket that the supervisor holds for this address, or else binds one. Rejects with the system's error. */
export const bindServer = (server: Server, address: BindAddress, backlog?: number): Promise<void> =>
  new Promise((resolve, reject) => {
    const failed = (error: Error): void => {
      server.off("listening", listening);
      reject(error);
    };
    const listening = (): void => {
      server.off("error", failed);
      resolve();
    };
    server.once("error", failed);
    server.once("listening", listening);
    const fd = held.get(listenerName(address));
    if (fd !== undefined) server.listen({ fd }, backlog);
    else server.listen({ ...address, ...(backlog === undefined ? {} : { backlog }) });
  });
