import { expect, test } from "vitest";
import type { Ring } from "../ring/ring.ts";
import { requireBaseRings } from "./base-rings.ts";
import { MemoryDevice } from "./engine/memory-device.ts";

const ringsOf = (version: number, partitionPower: number) => {
  const ring = { version, partitionPower } as Ring;
  return { account: ring, container: ring, object: ring };
};

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
