import { expect, test } from "vitest";
import { devicesOfStorageNode, formatDeviceGroups, parseDeviceGroups, storageNodeName } from "./device-groups.ts";

test("devices on one file system are served by one process, which has no device in its name", () => {
  for (const groups of [[], [["d1", "d2"]]]) {
    expect(storageNodeName(groups, "d2")).toBe("storage-node");
    expect(devicesOfStorageNode(groups, "storage-node")).toBeUndefined();
  }
});

test("each file system has a process named after its first device, which serves its devices alone", () => {
  const groups = [["d1", "d3"], ["d2"]];
  expect(["d1", "d2", "d3"].map((device) => storageNodeName(groups, device))).toEqual([
    "storage-node-d1",
    "storage-node-d2",
    "storage-node-d1",
  ]);
  expect(devicesOfStorageNode(groups, "storage-node-d1")).toEqual(["d1", "d3"]);
  expect(devicesOfStorageNode(groups, "storage-node-d2")).toEqual(["d2"]);
});

test("groups survive being an argument", () => {
  for (const groups of [[], [["d1"]], [["d1", "d3"], ["d2"], ["d4", "d5"]]])
    expect(parseDeviceGroups(formatDeviceGroups(groups))).toEqual(groups);
});
