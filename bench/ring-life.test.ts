import { describe, expect, it } from "vitest";
import { seededRandom } from "../common/random.ts";
import { rebalance } from "../ring/rebalance.ts";
import { balanceOf, EMPTY, fewestMoves, type LifeTable, movedBetween, outOfBoundsOf } from "./ring-life-figures.ts";
import { applyToBuilder, LifeIndex, newBuilder, tableOf } from "./ring-life-ringstead.ts";
import { type LifeDevice, ringLife } from "./ring-life-script.ts";

const START_MS = 1_700_000_000_000;
const HOUR_MS = 3_600_000;
const ROUNDS_MAX = 6;

describe("the scripted life of a ring, in short", () => {
  it("is dispersed and even after each step, moves at most 1.05 times the fewest, and one replica of a partition at a time", () => {
    const life = ringLife({ partitionPower: 12, nodesPerZone: 3, devicesPerNode: 4 });
    const builder = newBuilder(life);
    const index = new LifeIndex();
    let nowMs = START_MS;
    for (const { title, change } of life.steps) {
      const before = tableOf(builder, index);
      applyToBuilder(builder, change);
      let moved = 0;
      for (let round = 1; ; round += 1) {
        expect(round, title).toBeLessThan(ROUNDS_MAX);
        const start = tableOf(builder, index);
        nowMs += HOUR_MS;
        rebalance(builder, { random: seededRandom(3n), nowMs });
        const end = tableOf(builder, index);
        const movedNow = movedBetween(start, end);
        moved += movedNow;
        for (let partition = 0; partition < end.partitionCount; partition += 1) {
          const slots = [partition * end.width, (partition + 1) * end.width] as const;
          const old = start.cells.subarray(...slots);
          const kept = end.cells.subarray(...slots).filter((cell) => cell !== EMPTY && old.includes(cell)).length;
          const had = old.filter((cell) => cell !== EMPTY).length;
          const holes = end.cells.subarray(...slots).filter((cell) => cell !== EMPTY).length - had;
          expect(kept).toBeGreaterThanOrEqual(holes > 0 ? had : had - 1);
        }
        if (movedNow === 0) break;
      }
      const after = tableOf(builder, index);
      expect(outOfBoundsOf(after), title).toBe(0);
      // Even: within one partition replica of each share.
      const shares = after.devices.map((device) => device?.weight ?? 0);
      const total = shares.reduce((sum, weight) => sum + weight, 0);
      for (const [device, weight] of shares.entries()) {
        const held = after.cells.filter((cell) => cell === device).length;
        const share = (weight / total) * after.replicas * after.partitionCount;
        expect(Math.abs(held - share), `${title}: ${device}`).toBeLessThan(1);
      }
      expect(moved, title).toBeLessThanOrEqual(Math.max(1.05 * fewestMoves(before, after), 8));
    }
    expect(builder.replicas).toBe(2);
  });
});

const device = (zone: number, node: string, weight: number): LifeDevice => ({ key: `${node}`, zone, node, weight });
const DEVICES = [device(1, "a", 1), device(1, "b", 1), device(2, "c", 1), device(2, "d", 1)];
const tableWith = (rows: readonly (readonly number[])[], devices: LifeTable["devices"] = DEVICES): LifeTable => {
  const width = Math.max(...rows.map((row) => row.length));
  const cells = Uint16Array.from(rows.flatMap((row) => Array.from({ length: width }, (_, at) => row[at] ?? EMPTY)));
  return { partitionCount: rows.length, replicas: rows.flat().length / rows.length, width, cells, devices };
};

describe("the figures of a life", () => {
  it("count what came to a device anew, whatever its place in the row", () => {
    expect(
      movedBetween(
        tableWith([
          [0, 2],
          [1, 3],
        ]),
        tableWith([
          [2, 0],
          [1, 2],
        ]),
      ),
    ).toBe(1);
    expect(movedBetween(tableWith([[0], [1]]), tableWith([[0, 2], [1]]))).toBe(1);
    expect(
      movedBetween(
        tableWith([
          [0, 2],
          [1, 3],
        ]),
        tableWith([[0], [1]]),
      ),
    ).toBe(0);
  });

  it("measure balance against the share by weight", () => {
    expect(
      balanceOf(
        tableWith([
          [0, 2],
          [1, 3],
        ]),
      ),
    ).toBe(0);
    expect(
      balanceOf(
        tableWith([
          [0, 2],
          [0, 3],
        ]),
      ),
    ).toBe(100);
    expect(balanceOf(tableWith([[0], [0]], [device(1, "a", 3), device(1, "b", 1)]))).toBe(100);
  });

  it("find partitions with too many or too few replicas in a zone or node", () => {
    expect(
      outOfBoundsOf(
        tableWith([
          [0, 2],
          [1, 3],
        ]),
      ),
    ).toBe(0);
    expect(
      outOfBoundsOf(
        tableWith([
          [0, 1],
          [2, 3],
        ]),
      ),
    ).toBe(100);
    expect(
      outOfBoundsOf(
        tableWith([
          [0, 2],
          [1, 3],
          [0, 1],
          [2, 3],
        ]),
      ),
    ).toBe(50);
  });

  it("bound the moves from below by what devices cannot keep, and by what zones may not keep", () => {
    const even = tableWith([
      [0, 2],
      [1, 3],
    ]);
    expect(fewestMoves(even, even)).toBe(0);
    expect(
      fewestMoves(
        tableWith([
          [0, 2],
          [0, 3],
        ]),
        even,
      ),
    ).toBe(1);
    // Every device holds its share, but both replicas of a partition are in one zone.
    expect(
      fewestMoves(
        tableWith([
          [0, 1],
          [2, 3],
        ]),
        even,
      ),
    ).toBe(2);
    // What a removed device held has to come to others.
    const without = tableWith(
      [
        [0, 2],
        [0, 3],
      ],
      [DEVICES[0], undefined, DEVICES[2], DEVICES[3]],
    );
    expect(
      fewestMoves(
        tableWith([
          [1, 2],
          [1, 3],
        ]),
        without,
      ),
    ).toBe(2);
    // A third replica is one more for each partition.
    expect(
      fewestMoves(
        even,
        tableWith([
          [0, 2, 1],
          [1, 3, 2],
        ]),
      ),
    ).toBe(2);
  });
});
