import { setImmediate as nextTurn } from "node:timers/promises";
import { sleep, type Worker } from "../../common/worker.ts";
import type { ServedDevice } from "../dispatch.ts";

/** How often waiting confirmations and idle uploads are looked at. */
const ROUND_MS = 100;
/** Portions of confirmations that a device writes in a round, more than any load brings. */
const PORTIONS = 64;

/**
 * Writes the confirmations of the last moments, and removes uploads that nobody goes on with. After each portion requests have their turn: 256
 * for each of four devices in one go kept a listing waiting for 50 ms.
 *
 * So early that what they confirm is not in the index yet (`IndexFeed`), which then takes the confirmed version alone: with confirmations that
 * waited for an idle moment each version was written to LevelDB twice, and read from there in between, a fifth of the CPU of a load of writes.
 *
 * At the end all are written. Else each of those versions is found by the proxies' settler after the next start and finished like one whose
 * writer died: at 600 a second, and repair gave way to that as to clients.
 */
export const housekeeper = (devices: ReadonlyMap<string, ServedDevice>): Worker => {
  let rounds = 0;
  const confirm = async (): Promise<void> => {
    for (const { replica } of devices.values()) {
      for (let portion = 0; portion < PORTIONS && replica.waitingConfirmations > 0; portion++) {
        replica.flushConfirmations();
        await nextTurn();
      }
    }
  };
  return {
    name: "housekeeper",
    status: () => ({ rounds }),
    async work() {
      await confirm();
      for (const { staging } of devices.values()) await staging.expire();
      rounds += 1;
      return "idle";
    },
    async waitForWork(signal) {
      await sleep(ROUND_MS, signal);
      if (signal.aborted) await confirm();
    },
  };
};
