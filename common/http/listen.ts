import { rmSync, statSync } from "node:fs";
import { chmod, rename, rm, stat } from "node:fs/promises";
import type { Server } from "node:http";
import { connect } from "node:net";
import { codeOf, RingsteadError } from "../errors.ts";
import { type BindAddress, bindServer, isHeld } from "../listeners.ts";
import { hasPredecessor } from "../succession.ts";

/** A TCP address, port 0 for any free one; or the path of a Unix socket, made with mode 0600. */
export type ListenAddress = BindAddress;

/** Whether a process accepts connections on the socket; a file that a killed process left behind does not. */
const answers = (path: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect({ path });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });

/**
 * Binds a name of our own and gives it the path: a stale file is replaced in one step, and so is the socket of the process that this one takes over
 * from, which goes on with what it accepted. (A server that closes removes the name that it was bound to, which by then is gone.)
 */
const listenOnPath = async (server: Server, path: string): Promise<void> => {
  if (!hasPredecessor() && (await answers(path)))
    throw new RingsteadError("address-in-use", `${path} is in use by another process`, { address: path });
  const own = `${path}.${process.pid}`;
  await rm(own, { force: true });
  await bindServer(server, { path: own });
  await chmod(own, 0o600);
  const { ino } = await stat(own);
  await rename(own, path);
  server.once("close", () => {
    if (statSync(path, { throwIfNoEntry: false })?.ino === ino) rmSync(path, { force: true });
  });
};

/**
 * Binds `server` and resolves with its port, 0 for a Unix socket. A stale socket file is replaced, a served one only by a process that takes over
 * from the one that serves it. Throws RingsteadError `address-in-use` with the address in its message.
 */
export const listen = async (server: Server, address: ListenAddress): Promise<number> => {
  if ("path" in address) {
    if (isHeld(address)) await bindServer(server, address);
    else await listenOnPath(server, address.path);
    return 0;
  }
  try {
    await bindServer(server, address);
  } catch (thrown) {
    if (codeOf(thrown) !== "EADDRINUSE") throw thrown;
    const name = `${address.host}:${address.port}`;
    throw new RingsteadError("address-in-use", `${name} is in use by another process`, { address: name });
  }
  const bound = server.address();
  return typeof bound === "object" && bound !== null ? bound.port : 0;
};
