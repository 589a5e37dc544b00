import { sleep, type Worker } from "../../common/worker.ts";
import type { ServedDevice } from "../dispatch.ts";

/** How often waiting confirmations and idle uploads are looked at. */
const ROUND_MS = 100;
/** Requests per round below which the node counts as idle. */
const IDLE_REQUEST_LIMIT = 20;

/** Writes confirmations that waited for an idle moment, and removes uploads that nobody goes on with. */
export const housekeeper = (devices: ReadonlyMap<string, ServedDevice>, takeRequestCount: () => number): Worker => {
  let rounds = 0;
  return {
    name: "housekeeper",
    status: () => ({ rounds }),
    async work() {
      const isIdle = takeRequestCount() < IDLE_REQUEST_LIMIT;
      for (const { replica, staging } of devices.values()) {
        replica.flushConfirmations(isIdle);
        await staging.expire();
      }
      rounds += 1;
      return "idle";
    },
    waitForWork: (signal) => sleep(ROUND_MS, signal),
  };
};
