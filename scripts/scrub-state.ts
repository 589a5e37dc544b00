import type { DeviceStatus } from "./device-status.ts";

/** When a device was last read from end to end, for its line of `ringstead status`. */
export const scrubState = (figures: DeviceStatus["figures"]): string => {
  const seconds = figures["scrub_last_seconds"];
  if (seconds === undefined) return "";
  const now = figures["scrub_running"] === 1 ? ", scrubbing" : "";
  return seconds === 0 ? now : `, scrubbed ${new Date(seconds * 1000).toISOString().slice(0, 10)}${now}`;
};
