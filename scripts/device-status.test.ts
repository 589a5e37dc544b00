import { expect, it } from "vitest";
import { createMetrics } from "../common/metrics.ts";
import { deviceFailures, deviceFigures, deviceState } from "./device-status.ts";

const PAGE = [
  "# TYPE ringstead_device_is_full gauge",
  'ringstead_device_is_full{device="d1",role="storage-node"} 1',
  'ringstead_device_is_failed{device="d1",role="storage-node"} 0',
  'ringstead_device_damaged_reads{role="storage-node",device="d2"} 7',
  'ringstead_device_used_bytes{device="d2"} 1.5e9',
  'ringstead_other{device="d3"} 1',
].join("\n");

it("reads a device's figures in any order of labels, and takes what is not there as not known", () => {
  const figures = deviceFigures(PAGE);
  expect([...figures.keys()]).toEqual(["d1", "d2"]);
  expect(figures.get("d1")).toEqual({ is_full: 1, is_failed: 0 });
  expect(figures.get("d2")).toEqual({ damaged_reads: 7, used_bytes: 1.5e9 });
});

it("reads why and since when a device has failed, whatever signs the reason has", () => {
  const metrics = createMetrics({ role: "storage-node" });
  const reason = 'a write to "d1" failed:\nEIO, {back\\slash}';
  metrics.gauge("ringstead_device_failed_seconds", "When.", () => 1_700_000_000, { device: "d1", reason });
  const page = `${PAGE}\n${metrics.render()}`;
  expect([...deviceFailures(page)]).toEqual([["d1", { reason, at: "2023-11-14T22:13:20.000Z" }]]);
  expect(deviceFailures(PAGE).size).toBe(0);
  // It has no figures: what has is served.
  expect(deviceFigures(metrics.render()).size).toBe(0);
});

it.each([
  [true, true, { is_failed: 1, is_full: 1 }, "failed"],
  [true, true, { is_failed: 1, is_read_only: 1, is_full: 1 }, "read-only"],
  [true, true, { is_full: 1 }, "full"],
  [true, true, { is_full: 1, joining_partitions: 2 }, "full"],
  [true, true, { joining_partitions: 2 }, "catching-up"],
  [true, true, { joining_partitions: 0 }, "served"],
  [true, true, { damaged_reads: 3 }, "served"],
  [true, true, {}, "served"],
  [true, true, undefined, "not-served"],
  [false, true, { is_full: 1 }, "stopped"],
  [true, false, undefined, "missing"],
] as const)(
  "with the storage node up %s, the folder there %s and figures %j a device is %s",
  (isUp, isThere, figures, state) => {
    expect(deviceState(isUp, isThere, figures)).toBe(state);
  },
);
