import { expect, it } from "vitest";
import { runtimePaths } from "./runtime-paths.ts";

it("sockets lie in DIR while their paths are short enough", () => {
  expect(runtimePaths("/srv/ringstead").socket("control")).toBe("/srv/ringstead/run/control.sock");
});

it("sockets of a long DIR lie in a short folder that only depends on DIR", () => {
  const dataDir = `/srv/${"long-name/".repeat(20)}`;
  const paths = runtimePaths(dataDir);
  const { socketDir } = paths;
  expect(socketDir).toMatch(/^\/tmp\/ringstead-\d+-[0-9a-f]{16}$/);
  expect(Buffer.byteLength(paths.socket("metrics-storage-node"))).toBeLessThan(108);
  expect(runtimePaths(dataDir).socketDir).toBe(socketDir);
  expect(runtimePaths(`${dataDir}x`).socketDir).not.toBe(socketDir);
});

it("a relative DIR is taken from the working folder", () => {
  expect(runtimePaths("x").readyJson).toBe(`${process.cwd()}/x/ready.json`);
});
