import { sleep, type Worker } from "../../common/worker.ts";
import type { Containers } from "../object-service/containers.ts";

/** Accounts' statistics follow their containers' within about this. */
const REPORT_MS = 500;

/** Brings the statistics of containers that this proxy changed into their accounts' listings. */
export const accountReporter = (containers: Containers): Worker => {
  let reported = 0;
  return {
    name: "account-reporter",
    status: () => ({ reported }),
    async work() {
      for (const container of containers.takeChanged()) {
        await containers.report(container);
        reported += 1;
      }
      return "idle";
    },
    waitForWork: (signal) => sleep(REPORT_MS, signal),
  };
};
