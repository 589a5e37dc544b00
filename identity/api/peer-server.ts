import { RingsteadError } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import { RpcServer } from "../../common/rpc/server.ts";
import { askSocket } from "../client.ts";

/** Answers of the internal operations to other nodes: `[method, path]` with a JSON body → `[status]` with the answer's text. */
const INTERNAL_PATH = /^\/internal\/[A-Za-z0-9%._~/-]{1,1024}$/;

/**
 * Serves the internal operations to processes of other nodes, which prove the cluster key first. They are the same operations as on the
 * Unix socket at `socketPath`, and asked there, so that there is one server of them.
 */
export const createPeerServer = (socketPath: string, clusterKey: Buffer, log: Log): RpcServer =>
  new RpcServer(
    clusterKey,
    ([method, path], body, reply) => {
      if (
        (method !== "GET" && method !== "POST") ||
        typeof path !== "string" ||
        !INTERNAL_PATH.test(path) ||
        path.includes("..")
      ) {
        throw new RingsteadError("bad-message", "other nodes may only ask for internal operations");
      }
      const given = Buffer.from(body);
      askSocket(socketPath, method, path, given.length === 0 ? undefined : given).then(
        ({ status, text }) => reply.ok([status], Buffer.from(text)),
        (error: unknown) => reply.error(error),
      );
    },
    log,
  );
