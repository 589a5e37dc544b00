import { expect, test } from "vitest";
import { seededRandom } from "../../common/random.ts";
import { SimulatedDisk } from "../../common/simulation/disk.ts";
import type { DeviceEngine } from "./device-engine.ts";
import { digests, identity, put, valueAt } from "./engine-fixture.ts";
import { emptyIndexPlatter, type IndexPlatter, openMemoryIndex, platterAfterPowerLoss } from "./memory-index.ts";
import { openDevice } from "./open-device.ts";

type World = { readonly disk: SimulatedDisk; readonly platter: IndexPlatter };

const open = ({ disk, platter }: World): Promise<DeviceEngine> =>
  openDevice(
    { path: "/device", identity, digests },
    {
      disk,
      openIndex: openMemoryIndex(platter),
      lock: async () => ({ [Symbol.asyncDispose]: async () => {} }),
      segmentBytes: 32 * 1024,
      checkpointBytes: 24 * 1024,
      indexPace: { keys: 1, delayMs: 0 },
      reservedBytes: 0,
    },
  );

const holesOf = (device: DeviceEngine): number => device.figures()["quarantinedRanges"] ?? 0;

/** A log of three batches without a checkpoint behind them, in which a byte of the second one is wrong. */
const holed = async (): Promise<World> => {
  const platter = emptyIndexPlatter();
  const disk = new SimulatedDisk();
  const device = await open({ disk, platter });
  for (const name of ["a", "b", "c"]) await put(device, name, `value of ${name}`);
  const [first = ""] = (await disk.list("/device/log")).filter((name) => name.endsWith(".log"));
  const path = `/device/log/${first}`;
  const bytes = Buffer.alloc(32 * 1024);
  (await disk.open(path, "existing")).readSync(bytes, 0);
  const at = bytes.indexOf("value of b");
  disk.flipBit(path, at);
  return { disk, platter: emptyIndexPlatter() };
};

const afterPowerLoss = ({ disk, platter }: World, seed: bigint, kept: number): World => ({
  disk: disk.afterPowerLoss(seededRandom(seed)),
  platter: platterAfterPowerLoss(platter, Math.min(kept, platter.since.length)),
});

test("a hole in the log is found again after every power cut before its owner has written that there is one [M4]", async () => {
  let forgotten = 0;
  let cuts = 0;
  for (let cutAt = 1; cutAt < 60; cutAt++) {
    const world = afterPowerLoss(await holed(), BigInt(cutAt), 0);
    const before = world.disk.steps;
    world.disk.powerLossAt = before + cutAt;
    let isWritten = false;
    try {
      const device = await open(world);
      expect(holesOf(device)).toBe(1);
      // Its owner takes a while.
      for (let turn = 0; turn < 40; turn++) await new Promise(setImmediate);
      await put(device, "marker", "there was a hole");
      isWritten = true;
    } catch (error) {
      if (world.disk.hasPower) throw error;
    }
    if (world.disk.hasPower) world.disk.powerLossAt = world.disk.steps;
    else cuts += 1;
    const device = await open(afterPowerLoss(world, BigInt(cutAt), Number.POSITIVE_INFINITY));
    if (isWritten) expect(valueAt(device, "marker")).toBe("there was a hole");
    if (valueAt(device, "marker") === undefined && holesOf(device) === 0) forgotten += 1;
  }
  expect(cuts).toBeGreaterThan(10);
  expect(forgotten).toBe(0);
});
