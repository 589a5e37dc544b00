import { chmod, rm } from "node:fs/promises";
import type { Server } from "node:http";
import { connect } from "node:net";
import { codeOf, RingsteadError } from "../errors.ts";

/** A TCP address, port 0 for any free one; or the path of a Unix socket, made with mode 0600. */
export type ListenAddress = { readonly host: string; readonly port: number } | { readonly path: string };

const listenOnce = (server: Server, address: ListenAddress): Promise<void> =>
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
    server.listen(address);
  });

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
 * Binds `server` and resolves with its port, 0 for a Unix socket. A stale socket file is replaced, a served one is not.
 * Throws RingsteadError `address-in-use` with the address in its message.
 */
export const listen = async (server: Server, address: ListenAddress): Promise<number> => {
  const name = "path" in address ? address.path : `${address.host}:${address.port}`;
  try {
    await listenOnce(server, address);
  } catch (thrown) {
    if (codeOf(thrown) !== "EADDRINUSE") throw thrown;
    if (!("path" in address) || (await answers(address.path))) {
      throw new RingsteadError("address-in-use", `${name} is in use by another process`, { address: name });
    }
    await rm(address.path, { force: true });
    await listenOnce(server, address);
  }
  if ("path" in address) {
    await chmod(address.path, 0o600);
    return 0;
  }
  const bound = server.address();
  return typeof bound === "object" && bound !== null ? bound.port : 0;
};
