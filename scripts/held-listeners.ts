import { lookup } from "node:dns/promises";
import { chmodSync, rmSync } from "node:fs";
import net, { isIP } from "node:net";
import { getSystemErrorName } from "node:util";
import { messageOf, RingsteadError } from "../common/errors.ts";
import { type BindAddress, HELD_LISTENERS, listenerName } from "../common/listeners.ts";

type Handle = { readonly fd: number; close(): void; getsockname?(into: { port?: number }): number };

/**
 * Node's cluster module makes its sockets by this: bound, and neither listening nor accepting, which a `Server` always does. Gives the number of the
 * system's error where it cannot. Not documented; `held-listeners.test.ts` notices when it goes.
 */
const bind = (
  net as unknown as {
    _createServerHandle(this: void, address: string, port: number, family: 4 | 6 | -1): Handle | number;
  }
)._createServerHandle;

const bound = async (address: BindAddress): Promise<Handle> => {
  if ("path" in address) {
    // Of a supervisor that was killed; this one has the lock.
    rmSync(address.path, { force: true });
    return opened(bind(address.path, -1, -1), address);
  }
  const host = isIP(address.host) === 0 ? (await lookup(address.host)).address : address.host;
  const handle = opened(bind(host, address.port, isIP(host) === 6 ? 6 : 4), address);
  const found: { port?: number } = {};
  handle.getsockname?.(found);
  if (found.port === address.port) return handle;
  // libuv keeps it to itself that somebody else has the port, and listening would then take any other one.
  handle.close();
  return refused("EADDRINUSE", address);
};

const opened = (handle: Handle | number, address: BindAddress): Handle =>
  typeof handle === "number" ? refused(getSystemErrorName(handle), address) : handle;

const refused = (reason: string, address: BindAddress): never => {
  throw new RingsteadError("port-refused", `cannot listen on ${listenerName(address)}: ${reason}`, { reason });
};

/**
 * Listening sockets of the public ports, kept by the supervisor while processes behind them come and go: two processes accept from the same
 * queue while one takes over from the other, and clients that come while there is none wait instead of being refused. (With a socket each on one
 * port, 90 of 1,000 requests were reset over six restarts, those in the queue of the one that closed.) Disposal closes them.
 */
export class HeldListeners implements Disposable {
  readonly #handles = new Map<string, Handle>();

  /** Binds what is not held yet. Throws RingsteadError `port-refused`. */
  async hold(addresses: readonly BindAddress[]): Promise<void> {
    for (const address of addresses) {
      const name = listenerName(address);
      if (this.#handles.has(name)) continue;
      try {
        this.#handles.set(name, await bound(address));
      } catch (thrown) {
        if (thrown instanceof RingsteadError) throw thrown;
        throw new RingsteadError("port-refused", `cannot listen on ${name}: ${messageOf(thrown)}`);
      }
      if ("path" in address) chmodSync(address.path, 0o600);
    }
  }

  /** What a child needs for these addresses: descriptors that it gets from number `first` on, and the environment that names them. */
  handOver(
    addresses: readonly BindAddress[],
    first: number,
  ): { readonly descriptors: readonly number[]; readonly environment: Readonly<Record<string, string>> } {
    const names = addresses.map(listenerName).filter((name) => this.#handles.has(name));
    const descriptors = names.map((name) => this.#handles.get(name)?.fd ?? -1);
    if (names.length === 0) return { descriptors: [], environment: {} };
    const numbers = Object.fromEntries(names.map((name, index) => [name, first + index]));
    return { descriptors, environment: { [HELD_LISTENERS]: JSON.stringify(numbers) } };
  }

  [Symbol.dispose](): void {
    for (const handle of this.#handles.values()) handle.close();
    this.#handles.clear();
  }
}
