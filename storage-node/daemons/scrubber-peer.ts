import { RingsteadError } from "../../common/errors.ts";
import type { RpcClient } from "../../common/rpc/client.ts";
import { METHOD_EXPLAIN, METHOD_SCRUB, type Name, spaceCode } from "../wire.ts";
import { type DeviceScrubReport, type ReplicaReport, SCRUB_ACTIONS, type ScrubAction } from "./scrubber-operations.ts";

const TIMEOUT_MS = 5_000;
/** A body of many GiB is read to its end. */
const READ_TIMEOUT_MS = 600_000;

/** A device as an operator's command asks it. Errors of each call: the RPC's, "no-such-device", "bad-message". */
export class OperatorPeer {
  readonly #rpc: RpcClient;
  readonly #device: string;

  constructor(rpc: RpcClient, device: string) {
    this.#rpc = rpc;
    this.#device = device;
  }

  scrub(action: ScrubAction): Promise<DeviceScrubReport> {
    return this.#ask([METHOD_SCRUB, this.#device, SCRUB_ACTIONS.indexOf(action)], TIMEOUT_MS);
  }

  /** @param readsBody whether its body is read to its end */
  explain({ space, hash32, path }: Name, readsBody: boolean): Promise<ReplicaReport> {
    const header = [METHOD_EXPLAIN, this.#device, spaceCode(space), hash32, path, readsBody ? 1 : 0];
    return this.#ask(header, readsBody ? READ_TIMEOUT_MS : TIMEOUT_MS);
  }

  #ask<T>(header: readonly unknown[], timeoutMs: number): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#rpc.call(header, undefined, timeoutMs, (error, _fields, body) => {
        if (error !== undefined) return reject(error);
        try {
          resolve(JSON.parse(body.toString()));
        } catch {
          reject(new RingsteadError("bad-message", "malformed message: a report"));
        }
      });
    });
  }
}
