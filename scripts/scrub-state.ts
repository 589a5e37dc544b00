import type { DeviceStatus } from "./device-status.ts";

/** When a device was last read from end to end, for its line of `ringstead status`. */
export const scrubState = (figures: DeviceStatus["figures"]): string => {
  const seconds = figures["scrub_last_seconds"];
  if (seconds === undefined) return "";
  const now = figures["scrub_running"] === 1 ? ", scrubbing" : "";
  return seconds === 0 ? now : `, scrubbed ${new Date(seconds * 1000).toISOString().slice(0, 10)}${now}`;
};

/** What was found damaged on devices and could not be healed. */
export const unhealedProblems = (devices: readonly DeviceStatus[]): string[] =>
  devices.flatMap(({ device, figures }) => {
    const unhealed = figures["unhealed_entries"] ?? 0;
    if (unhealed === 0) return [];
    return [
      `device ${device} has ${unhealed} damaged record${unhealed === 1 ? "" : "s"} for which no other replica gave what is missing; it is tried ` +
        "again from time to time. Start what is down; DIR/logs/storage-node*.log names them, ./scripts/ringstead explain NAME tells more",
    ];
  });
