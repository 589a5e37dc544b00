import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { requireMountedDisk } from "./mounted-disk.ts";

/** Mounted wherever there is a Linux. */
const MOUNTED = "/proc";

test("the folder beneath a disk that is not mounted any more is no device; one that never had a disk is", () => {
  const folder = mkdtempSync(join(tmpdir(), "ringstead-mount-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const marker = join(folder, "d1.mounted");
  const path = join(folder, "d1");
  requireMountedDisk("d1", path, marker);
  mkdirSync(path);
  requireMountedDisk("d1", path, marker);
  expect(existsSync(marker)).toBe(false);

  requireMountedDisk("d1", MOUNTED, marker);
  expect(existsSync(marker)).toBe(true);
  requireMountedDisk("d1", MOUNTED, marker);
  for (const beneath of [path, join(folder, "gone")])
    expect(() => requireMountedDisk("d1", beneath, marker)).toThrow(
      `no disk is mounted at ${beneath}, where device d1 had one: mount it, or remove ${marker}`,
    );
  rmSync(marker);
  requireMountedDisk("d1", path, marker);
});
