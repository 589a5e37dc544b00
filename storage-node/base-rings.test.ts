import { encode } from "msgpackr";
import { expect, test } from "vitest";
import type { Ring } from "../ring/ring.ts";
import { requireBaseRings } from "./base-rings.ts";
import type { Mutation } from "./engine/device-engine.ts";
import { MemoryDevice } from "./engine/memory-device.ts";
import { BASE_RINGS_KEY } from "./store/keys.ts";

const ringsOf = (version: number, partitionPower: number, assignments = Uint16Array.of(0, 1)) => {
  const devices = ["d1", "d2"].map((device) => ({ node: "n", device }));
  const ring = { version, partitionPower, hashSeed: 5n, replicas: 2, devices, assignments } as unknown as Ring;
  return { account: ring, container: ring, object: ring };
};

test("a ring of the same version that places partitions elsewhere is another base", async () => {
  const device = new MemoryDevice((done) => void setImmediate(done));
  // As an older version kept it.
  const old: Mutation = {
    kind: "put",
    key: BASE_RINGS_KEY,
    value: encode([1, 3, 8, 3, 8, 3, 8]),
    body: { kind: "none" },
  };
  await device.apply([old]);
  await requireBaseRings(device, ringsOf(3, 8));
  await requireBaseRings(device, ringsOf(3, 8));
  await expect(requireBaseRings(device, ringsOf(3, 8, Uint16Array.of(1, 0)))).rejects.toMatchObject({
    code: "base-ring-other",
    message: expect.stringContaining("another one of that version"),
  });
});

test("a device is refused under other base rings than those that it began with, but for finer ones of a later version", async () => {
  let device = new MemoryDevice((done) => void setImmediate(done));
  await requireBaseRings(device, ringsOf(3, 8));
  device = device.afterCrash();
  await requireBaseRings(device, ringsOf(3, 8));
  await expect(requireBaseRings(device, ringsOf(5, 8))).rejects.toMatchObject({
    code: "base-ring-other",
    message: expect.stringContaining("began with version 3 of the ring of objects, and DIR/rings has version 5"),
  });
  await requireBaseRings(device, ringsOf(4, 9));
  await expect(requireBaseRings(device.afterCrash(), ringsOf(3, 8))).rejects.toMatchObject({ code: "base-ring-other" });
});
