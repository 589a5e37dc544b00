import type { Clock } from "../../common/clock.ts";
import type { Log } from "../../common/log.ts";
import type { Metrics } from "../../common/metrics.ts";
import { sleep, type Worker } from "../../common/worker.ts";
import type { DeviceEngine, DeviceState } from "../engine/device-engine.ts";

const ROUND_MS = 500;

/** Shows on the metrics page that a device has failed just now, and why: where `status` reads it. Once for each device. */
export const showFailure = (metrics: Metrics, clock: Clock, device: string, reason: string): void => {
  const atSeconds = Math.floor(clock.nowMs() / 1000);
  const help = "When the device failed, in seconds since 1970.";
  metrics.gauge("ringstead_device_failed_seconds", help, () => atSeconds, { device, reason });
};

/** Says in the log when a device fills up, has space again or fails, and on the metrics page since when and why one has failed. */
export const deviceWatch = (
  devices: ReadonlyMap<string, DeviceEngine>,
  log: Log,
  metrics: Metrics,
  clock: Clock,
): Worker => {
  const known = new Map<string, DeviceState["kind"]>();
  const tell = (device: string, state: DeviceState): void => {
    switch (state.kind) {
      case "serving":
        log.info("a device has space again", { device });
        return;
      case "full":
        log.warn("a device is full", { device });
        return;
      case "failed": {
        const { code, message } = state.reason;
        log.error("a device failed and takes no more until it was recovered", { device, code, error: message });
        showFailure(metrics, clock, device, message);
      }
    }
  };
  return {
    name: "device-watch",
    status: () => Object.fromEntries(known),
    async work() {
      for (const [device, engine] of devices) {
        const state = engine.state();
        if (state.kind !== (known.get(device) ?? "serving")) tell(device, state);
        known.set(device, state.kind);
      }
      return "idle";
    },
    waitForWork: (signal) => sleep(ROUND_MS, signal),
  };
};
