import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { freeKernelDisk } from "./kernel-disk.ts";

const machine = (disks: Readonly<Record<string, boolean>>, hasProgram: boolean): [string, string[]] => {
  const folder = mkdtempSync(join(tmpdir(), "rs-kernel-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, "block"));
  for (const [name, isTaken] of Object.entries(disks)) {
    mkdirSync(join(folder, "block", name));
    if (isTaken) writeFileSync(join(folder, "block", name, "pid"), "1");
  }
  if (hasProgram) writeFileSync(join(folder, "nbd-client"), "");
  return [folder, [folder]];
};

test.runIf(process.getuid?.() === 0)("the first disk that nobody uses is taken, and what is missing is said", () => {
  expect(freeKernelDisk(...machine({ sda: false, nbd0: true, nbd1: false }, true))).toBe("/dev/nbd1");
  expect(() => freeKernelDisk(...machine({ sda: false }, true))).toThrow("no NBD client");
  expect(() => freeKernelDisk(...machine({ nbd0: false }, false))).toThrow("nbd-client is not installed");
  expect(() => freeKernelDisk(...machine({ nbd0: true }, true))).toThrow("taken");
});
