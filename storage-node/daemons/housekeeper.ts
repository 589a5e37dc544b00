import { setImmediate as nextTurn } from "node:timers/promises";
import { sleep, type Worker } from "../../common/worker.ts";
import type { ServedDevice } from "../dispatch.ts";

/** How often waiting confirmations and idle uploads are looked at. */
const ROUND_MS = 100;
/** Requests per round below which the node counts as idle. */
const IDLE_REQUEST_LIMIT = 20;
/** Portions of confirmations that a device writes in a round while more wait than may. */
const BUSY_PORTIONS = 16;

/**
 * Writes confirmations that waited for an idle moment, or that are too many, and removes uploads that nobody goes on with. After each
 * portion requests have their turn: 256 for each of four devices in one go kept a listing waiting for 50 ms.
 */
export const housekeeper = (devices: ReadonlyMap<string, ServedDevice>, takeRequestCount: () => number): Worker => {
  let rounds = 0;
  return {
    name: "housekeeper",
    status: () => ({ rounds }),
    async work() {
      const isIdle = takeRequestCount() < IDLE_REQUEST_LIMIT;
      for (const { replica, staging } of devices.values()) {
        for (let portion = 0; portion < BUSY_PORTIONS; portion++) {
          if (!replica.hasTooManyConfirmations && (!isIdle || portion > 0)) break;
          replica.flushConfirmations();
          await nextTurn();
        }
        await staging.expire();
      }
      rounds += 1;
      return "idle";
    },
    waitForWork: (signal) => sleep(ROUND_MS, signal),
  };
};
