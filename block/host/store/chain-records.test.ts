import { expect, test } from "vitest";
import type { Chains } from "../core/chains.ts";
import { decodeChains, encodeChains } from "./chain-records.ts";

const [base, top, next, remote] = ["0".repeat(20), "1".repeat(20), "2".repeat(20), "3".repeat(20)];
const volumeId = "6f1d1f0a-0000-4000-8000-000000000001";
const snapshotId = "6f1d1f0a-0000-4000-8000-000000000002";

const backup = { projectId: "works", backupId: snapshotId };

const chains: Chains = {
  layers: new Map([
    [base, { id: base, pool: "lvm", format: "raw", virtualBytes: 1024 }],
    [top, { id: top, pool: "lvm", format: "qcow2", virtualBytes: 1024, base }],
    [next, { id: next, pool: "lvm", format: "qcow2", virtualBytes: 2048, base: top }],
    [remote, { id: remote, pool: "lvm", format: "backup", virtualBytes: 512, backup }],
  ]),
  volumes: new Map([
    [
      volumeId,
      {
        id: volumeId,
        pool: "lvm",
        sizeBytes: 1024,
        top,
        snapshots: [{ id: snapshotId, layer: base, sizeBytes: 1024 }],
        leaving: base,
        restorationId: snapshotId,
      },
    ],
  ]),
  pending: [
    { kind: "extend", volumeId, sizeBytes: 2048, overlay: next, stage: "made" },
    { kind: "merge", stage: "made", volumeId, upper: next, lower: top },
    { kind: "flatten", stage: "made", volumeId, layer: top, base },
    { kind: "restore", volumeId, restorationId: snapshotId, remote, overlay: next, stage: "making" },
  ],
};

/** Byte for byte what FORMAT.md describes: hosts of later versions have to read it. */
const WRITTEN =
  '{"version":1,"layers":[{"id":"00000000000000000000","pool":"lvm","format":"raw","virtualBytes":1024},' +
  '{"id":"11111111111111111111","pool":"lvm","format":"qcow2","virtualBytes":1024,"base":"00000000000000000000"},' +
  '{"id":"22222222222222222222","pool":"lvm","format":"qcow2","virtualBytes":2048,"base":"11111111111111111111"},' +
  '{"id":"33333333333333333333","pool":"lvm","format":"backup","virtualBytes":512,' +
  '"backup":{"projectId":"works","backupId":"6f1d1f0a-0000-4000-8000-000000000002"}}],' +
  '"volumes":[{"id":"6f1d1f0a-0000-4000-8000-000000000001","pool":"lvm","sizeBytes":1024,"top":"11111111111111111111",' +
  '"snapshots":[{"id":"6f1d1f0a-0000-4000-8000-000000000002","layer":"00000000000000000000","sizeBytes":1024}],' +
  '"leaving":"00000000000000000000","restorationId":"6f1d1f0a-0000-4000-8000-000000000002"}],' +
  '"pending":[{"kind":"extend","volumeId":"6f1d1f0a-0000-4000-8000-000000000001","sizeBytes":2048,' +
  '"overlay":"22222222222222222222","stage":"made"},' +
  '{"kind":"merge","stage":"made","volumeId":"6f1d1f0a-0000-4000-8000-000000000001","upper":"22222222222222222222",' +
  '"lower":"11111111111111111111"},{"kind":"flatten","stage":"made","volumeId":"6f1d1f0a-0000-4000-8000-000000000001",' +
  '"layer":"11111111111111111111","base":"00000000000000000000"},' +
  '{"kind":"restore","volumeId":"6f1d1f0a-0000-4000-8000-000000000001","restorationId":"6f1d1f0a-0000-4000-8000-000000000002",' +
  '"remote":"33333333333333333333","overlay":"22222222222222222222","stage":"making"}]}\n';

test("chains are written as the format says, and read as they were", () => {
  expect(encodeChains(chains)).toBe(WRITTEN);
  expect(decodeChains(WRITTEN, "volumes.json")).toEqual(chains);
});

test.each([
  ["half of it", WRITTEN.slice(0, 100)],
  ["another version", WRITTEN.replace('"version":1', '"version":2')],
  ["a layer that is not there", WRITTEN.replace('"base":"00000000000000000000"', '"base":"44444444444444444444"')],
  ["a name that is no id", WRITTEN.replaceAll("11111111111111111111", "../../../../etc/fstab")],
  ["a size below zero", WRITTEN.replace('"virtualBytes":1024', '"virtualBytes":-1')],
])("a record file with %s is refused by its name", (_, text) => {
  expect(() => decodeChains(text, "volumes.json")).toThrow("volumes.json");
});
