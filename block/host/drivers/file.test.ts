import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { driverContract } from "./driver.contract.ts";
import { FileDriver } from "./file.ts";

const makeFolder = (): string => {
  const folder = mkdtempSync(join(tmpdir(), "ringstead-file-pool-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  return join(folder, "pool");
};

describe("files", () => {
  driverContract(async () => {
    const folder = makeFolder();
    return { driver: await FileDriver.opened(folder), reopened: () => FileDriver.opened(folder) };
  });

  test("nobody else may look into the pool", async () => {
    const folder = makeFolder();
    const driver = await FileDriver.opened(folder);
    await driver.create("0123456789abcdef0123", 4096);
    expect(statSync(folder).mode & 0o777).toBe(0o700);
    expect(statSync((await driver.place("0123456789abcdef0123"))!.path).mode & 0o777).toBe(0o600);
  });
});
