import { expect, test } from "vitest";
import { parseBlockConfig } from "./config.ts";

const GIB = 1024 ** 3;

test("an empty table has every default, and hosts decide about their pools", () => {
  expect(parseBlockConfig(undefined)).toMatchObject({
    availabilityZone: "nova",
    storageProtocol: "nbd",
    pools: { drivers: undefined, volumeGroup: undefined, lvmType: "auto", sizeLimitBytes: Number.POSITIVE_INFINITY },
  });
});

test("what is said of pools is taken as it is", () => {
  const table = { drivers: ["lvm", "file"], volume_group: "vg0.data", lvm_type: "thick", pool_size_gib: 7 };
  expect(parseBlockConfig(table).pools).toEqual({
    drivers: ["lvm", "file"],
    volumeGroup: "vg0.data",
    lvmType: "thick",
    sizeLimitBytes: 7 * GIB,
  });
});

test.each([
  { drivers: [] },
  { drivers: ["nfs"] },
  { drivers: ["lvm", "lvm"] },
  { volume_group: "-a" },
  { volume_group: "two words" },
  { volume_group: "a/b" },
  { volume_group: "x".repeat(65) },
  // These are names of pools already.
  { volume_group: "lvm" },
  { volume_group: "file" },
  { lvm_type: "fat" },
  { pool_size_gib: 0 },
  { pool_size_gib: 1.5 },
  { pool_size_gib: 1_048_577 },
  { volumegroup: "a" },
  { lazy_restore: "yes" },
])("%j is refused with the table's name", (table) => {
  expect(() => parseBlockConfig(table)).toThrow(/^cluster\.toml: \[block\]: /);
});
