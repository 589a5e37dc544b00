import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { type ClusterConfig, deviceName, LOCAL_NODE, resolveConfig } from "../common/config.ts";
import { silentLog } from "../common/log.ts";
import { type RuntimePaths, runtimePaths } from "../common/runtime-paths.ts";
import { baseRingPath, loadBaseRing } from "../ring/base-ring.ts";
import { loadBuilder, saveBuilder } from "../ring/builder-file.ts";
import { setWeight } from "../ring/builder.ts";
import { ringCommand } from "../ring/command.ts";
import { ringDifference } from "../ring/ring-difference.ts";
import { loadRing, saveRing } from "../ring/ring-file.ts";
import type { Ring } from "../ring/ring.ts";
import { setReplicas } from "../ring/set-replicas.ts";
import { checkRings, prepareRings, RING_NAMES } from "./rings.ts";

const ALL = ["storage-node", "proxy", "identity"];

let folder = "";
let paths: RuntimePaths;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ringstead-rings-"));
  paths = runtimePaths(folder);
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const configOf = (devices: number): ClusterConfig =>
  resolveConfig({ devices, partition_power: 5 }, folder, LOCAL_NODE, "host");

const ring = (name = "object-0"): Ring => loadRing(paths.ringFile(name));
const base = (name = "object-0"): Ring => loadBaseRing(paths.ringFile(name));
const quiet = { out: () => {}, error: (text: string) => expect.fail(text) };

/** A start with so many devices: how many rings gained. */
const grow = async (devices: number): Promise<number> => {
  const config = configOf(devices);
  checkRings(paths, config, ALL);
  return await prepareRings(paths, config, silentLog);
};

it("devices that are added change the ring, and never what partitions stand on that did not move", async () => {
  expect(await grow(4)).toBe(0);
  const first = ring();
  expect(base().version).toBe(first.version);
  expect(await grow(7)).toBe(3);
  expect(await grow(9)).toBe(2);
  for (const name of RING_NAMES) {
    expect(ringDifference(base(name), ring(name)).moves.length).toBeGreaterThan(10);
    expect(base(name).devices).toHaveLength(4);
  }
  expect(base().assignments).toEqual(first.assignments);
  for (const slots of Object.values(Object.groupBy(ring().assignments, (id) => id)))
    expect(slots!.length).toBeGreaterThan((32 * 3) / 9 - 2);
});

it("a device that is to go has nothing in the ring after a change of its weight, and is refused before", async () => {
  await grow(5);
  for (const name of RING_NAMES) {
    const file = paths.builderFile(name);
    const builder = loadBuilder(file);
    setWeight(builder, 4, 0);
    saveBuilder(file, builder);
    expect(await ringCommand(["rebalance", file, "--force", "--plan"], quiet)).toBe(0);
  }
  expect(() => checkRings(paths, configOf(4), ALL)).toThrow(
    "has 5 devices, 4 are asked for: take the last one out first",
  );
  await grow(5);
  expect(ring().assignments.includes(4)).toBe(false);
  expect(base().assignments.includes(4)).toBe(true);
});

it("a start takes over a higher partition power, for the base too, as long as nothing was to move", async () => {
  await grow(4);
  for (const name of RING_NAMES)
    expect(await ringCommand(["increase-part-power", paths.builderFile(name), "--plan"], quiet)).toBe(0);
  expect(ring().partitionPower).toBe(5);
  await grow(4);
  expect([ring(), base()]).toMatchObject([{ partitionPower: 6 }, { partitionPower: 6 }]);
  await grow(6);
  expect(await ringCommand(["increase-part-power", paths.builderFile("account"), "--plan"], quiet)).toBe(0);
  await expect(grow(6)).rejects.toMatchObject({ code: "ring-other-shape" });
  expect(base("account").partitionPower).toBe(6);
});

it("a start refuses a planned replica count, which it cannot bring about, and says how to take it back", async () => {
  await grow(4);
  const file = paths.builderFile("container");
  const builder = loadBuilder(file);
  setReplicas(builder, 2.5);
  saveBuilder(file, builder);
  expect(() => checkRings(paths, configOf(4), ALL)).toThrowError(
    expect.objectContaining({
      code: "replicas-refused",
      message: expect.stringContaining(`${file} plans 2.5 replicas, ${paths.dataDir} keeps 3`),
    }),
  );
  expect(ring("container").replicas).toBe(3);
});

it("rings that were handed out to a node are their own base, and later ones are not", async () => {
  await grow(4);
  const handedOut = ring();
  for (const name of RING_NAMES) {
    rmSync(paths.builderFile(name));
    rmSync(baseRingPath(paths.ringFile(name)));
  }
  await grow(4);
  const kept = readFileSync(baseRingPath(paths.ringFile("object-0")));
  saveRing(paths.ringFile("object-0"), { ...handedOut, version: handedOut.version + 5 });
  await grow(4);
  expect(readFileSync(baseRingPath(paths.ringFile("object-0"))).equals(kept)).toBe(true);
  saveRing(paths.ringFile("object-0"), { ...handedOut, hashSeed: handedOut.hashSeed + 1n });
  await expect(grow(4)).rejects.toMatchObject({ code: "ring-foreign" });
});

it("two starts of one installation make its rings once", async () => {
  await grow(4);
  const versions = RING_NAMES.map((name) => ring(name).version);
  expect(await grow(4)).toBe(0);
  expect(RING_NAMES.map((name) => ring(name).version)).toEqual(versions);
  expect(ring().devices.map((device) => device?.device)).toEqual([0, 1, 2, 3].map(deviceName));
});
