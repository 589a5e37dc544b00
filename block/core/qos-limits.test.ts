import { expect, test } from "vitest";
import { limitsOf } from "./qos-limits.ts";

test("limits are those of the specs, of operations and bytes, with their bursts", () => {
  const specs = {
    total_iops_sec: "500",
    total_iops_sec_max: "900",
    read_bytes_sec: "1048576",
    write_bytes_sec: "2048",
  };
  expect(limitsOf(specs, 7)).toEqual({
    "iops-total": 500,
    "iops-total-max": 900,
    "bytes-read": 1_048_576,
    "bytes-write": 2048,
  });
});

test("limits for each GiB grow with the volume, have a least one, and give way to a plain one", () => {
  const specs = { read_iops_sec_per_gib: "30", read_iops_sec_per_gib_min: "100", write_iops_sec_per_gib: "5" };
  expect(limitsOf(specs, 2)).toEqual({ "iops-read": 100, "iops-write": 10 });
  expect(limitsOf(specs, 20)).toEqual({ "iops-read": 600, "iops-write": 100 });
  expect(limitsOf({ ...specs, write_iops_sec: "7" }, 20)).toEqual({ "iops-read": 600, "iops-write": 7 });
});

test("a limit of all wins over one of reads or writes, and what is no number limits nothing", () => {
  expect(limitsOf({ total_iops_sec: "10", read_iops_sec: "5", write_bytes_sec: "9" }, 1)).toEqual({
    "iops-total": 10,
    "bytes-write": 9,
  });
  expect(limitsOf({ total_iops_sec: "many", read_iops_sec: "-5", write_iops_sec: "0", colour: "red" }, 1)).toEqual({});
  expect(limitsOf({ total_iops_sec: "10", total_iops_sec_max: "10" }, 1)).toEqual({ "iops-total": 10 });
  expect(limitsOf({ total_iops_sec_max: "10" }, 1)).toEqual({});
});
