import { existsSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { ReadyFile } from "../ready-file.ts";
import { TestInstallation } from "./installation.ts";
import { ObjectClient } from "./object-client.ts";

/** A file where the log's folder was. */
const spoil = (device: string): void => {
  renameSync(join(device, "log"), join(device, "log.away"));
  writeFileSync(join(device, "log"), "");
};

const restore = (device: string): void => {
  rmSync(join(device, "log"));
  renameSync(join(device, "log.away"), join(device, "log"));
};

test("three devices in one process: without any it does not start and names each, with one it refuses writes, with two it takes them", async () => {
  await using installation = new TestInstallation(["--only", "object", "--devices", "3"]);
  const devices = ["d1", "d2", "d3"].map((name) => join(installation.folder, "devices", name));
  const refused = (): string | undefined => {
    const { endpoints, unavailable } = installation.ready() as unknown as ReadyFile;
    expect(endpoints.object).toBeDefined();
    return unavailable.find(({ service }) => service === "object")?.reason;
  };
  await installation.up();
  expect(refused()).toBeUndefined();
  await installation.command("down");
  devices.forEach(spoil);

  const failure: unknown = await installation.up().then(
    () => undefined,
    (error: unknown) => error,
  );
  const { code, stderr } = failure as { code: number; stderr: string };
  expect(code).toBe(1);
  const lastLine = stderr.trimEnd().split("\n").at(-1);
  for (const [index, device] of devices.entries())
    expect(lastLine).toContain(`device d${index + 1}: ${device} cannot be opened: ENOTDIR`);
  expect(lastLine).toMatch(/then start again$/);
  expect(existsSync(join(installation.folder, "ready.json"))).toBe(false);

  restore(devices[0]!);
  await installation.up();
  expect(refused()).toMatch(/^writes are refused in every partition: of 3 devices only d1 can be written/);
  const { code: degraded, output } = await installation.command("status");
  expect(degraded).toBe(1);
  expect(output).toMatch(/PROBLEM +writes are refused in every partition: /);
  expect(output).toMatch(/PROBLEM +device d2 .* could not be opened since .*ENOTDIR/);
  const client = await ObjectClient.login(installation.ready().swiftAuthV1);
  expect((await client.request("PUT", "/kept")).status).toBe(503);
  await installation.command("down");

  restore(devices[1]!);
  const again = await ObjectClient.login((await installation.up()).swiftAuthV1);
  expect(refused()).toBeUndefined();
  expect((await again.request("PUT", "/kept")).status).toBeOneOf([201, 202]);
  expect((await installation.command("status")).output).not.toContain("writes are refused");
});
