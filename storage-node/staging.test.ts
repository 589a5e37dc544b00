import { expect, test } from "vitest";
import type { DeviceEngine } from "./engine/device-engine.ts";
import { Staging } from "./staging.ts";

/** An engine of which only staging is used; a write takes some turns, as on a disk, and refuses to be interrupted by another. */
const slowEngine = (written: number[]): DeviceEngine => {
  let isWriting = false;
  const body = {
    file: "b1",
    write: async (bytes: Uint8Array): Promise<void> => {
      expect(isWriting).toBe(false);
      isWriting = true;
      for (let turn = 0; turn < 5 - (bytes[0] ?? 0); turn++) await Promise.resolve();
      written.push(bytes[0] ?? -1);
      isWriting = false;
      if (bytes[0] === 9) throw new Error("the disk is full");
    },
    seal: async () => written.length,
    abandon: async () => {},
  };
  return { stage: async () => body } as unknown as DeviceEngine;
};

test("blocks of one body that arrive together are written one after the other, in order", async () => {
  const written: number[] = [];
  const staging = new Staging(slowEngine(written));
  const id = await staging.open();
  const blocks = [0, 1, 2, 3, 4].map((block) => staging.write(id, Uint8Array.of(block)));
  expect(await staging.seal(id)).toEqual({ file: "b1", length: 5 });
  await Promise.all(blocks);
  expect(written).toEqual([0, 1, 2, 3, 4]);
});

test("after a block that could not be written none is, and the body cannot be sealed", async () => {
  const written: number[] = [];
  const staging = new Staging(slowEngine(written));
  const id = await staging.open();
  const bad = staging.write(id, Uint8Array.of(9));
  const behind = staging.write(id, Uint8Array.of(1));
  await expect(bad).rejects.toThrow("full");
  await expect(behind).rejects.toThrow("full");
  await expect(staging.seal(id)).rejects.toThrow("full");
  expect(written).toEqual([9]);
});
