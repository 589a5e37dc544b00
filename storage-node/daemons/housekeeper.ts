import { setImmediate as nextTurn } from "node:timers/promises";
import { sleep, type Worker } from "../../common/worker.ts";
import type { ServedDevice } from "../dispatch.ts";

/** How often waiting confirmations and idle uploads are looked at. */
const ROUND_MS = 100;
/** Requests per round below which the node counts as idle. */
const IDLE_REQUEST_LIMIT = 20;
/** Portions of confirmations that a device writes in a round while more wait than may. */
const BUSY_PORTIONS = 16;
/** Those that a device writes at the end, enough for all that may wait. */
const LAST_PORTIONS = 320;

/**
 * Writes confirmations that waited for an idle moment, or that are too many, and removes uploads that nobody goes on with. After each
 * portion requests have their turn: 256 for each of four devices in one go kept a listing waiting for 50 ms.
 *
 * At the end all are written. Else each of those versions, up to 5,000 a device, is found by the proxies' settler after the next start and
 * finished like one whose writer died: at 600 a second, and repair gave way to that as to clients.
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
    async waitForWork(signal) {
      await sleep(ROUND_MS, signal);
      if (!signal.aborted) return;
      for (const { replica } of devices.values()) {
        for (let portion = 0; portion < LAST_PORTIONS; portion++) {
          replica.flushConfirmations();
          await nextTurn();
        }
      }
    },
  };
};
