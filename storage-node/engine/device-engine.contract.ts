import { expect, test } from "vitest";
import type { DeviceEngine, LateMutation, Mutation } from "./device-engine.ts";
import { keyOf, namesIn, put, valueAt } from "./engine-fixture.ts";

/** A number that commits change late. */
export class LateNumber {
  value = 0;
  /** How often it was encoded. */
  encodings = 0;
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
  }

  plus(amount: number): LateMutation {
    return {
      kind: "late",
      key: keyOf(this.#name),
      maxBytes: 20,
      change: () => {
        this.value += amount;
      },
      value: () => {
        this.encodings++;
        return Buffer.from(`${this.value}`);
      },
    };
  }
}

/** A put of a value alone. */
export const putOf = (name: string, value = "1"): Mutation => ({
  kind: "put",
  key: keyOf(name),
  value: Buffer.from(value),
  body: { kind: "none" },
});

/** What every engine promises of late puts; `use` opens a fresh one. */
export const lateContract = (
  engine: string,
  use: (doing: (device: DeviceEngine) => Promise<void>) => Promise<void>,
) => {
  test(`${engine}: a late change is seen at once by get and scan, and is durable with its commit`, () =>
    use(async (device) => {
      const total = new LateNumber("total");
      const applied = device.apply([putOf("a"), total.plus(2)]);
      expect(total.value).toBe(2);
      expect(valueAt(device, "total")).toBe("2");
      expect(await namesIn(device)).toEqual(["a", "total"]);
      expect(device.durable(keyOf("other"))).toBeUndefined();
      await (device.durable(keyOf("total")) ?? Promise.reject(new Error("the late change is durable at once")));
      await applied;
      expect(device.durable(keyOf("total"))).toBeUndefined();
      expect(valueAt(device, "total")).toBe("2");
    }));

  test(`${engine}: late changes of many commits add up, from whoever makes them`, () =>
    use(async (device) => {
      const total = new LateNumber("total");
      await Promise.all(Array.from({ length: 50 }, (_, index) => device.apply([putOf(`k${index}`), total.plus(1)])));
      expect(valueAt(device, "total")).toBe("50");
      // Another owner goes on from what it reads, while changes of the first may still wait for their batch.
      const first = device.apply([total.plus(1)]);
      const other = new LateNumber("total");
      other.value = Number(valueAt(device, "total"));
      await Promise.all([first, device.apply([other.plus(1)])]);
      expect(valueAt(device, "total")).toBe("52");
      await put(device, "later", "1");
      expect(valueAt(device, "total")).toBe("52");
      expect((await namesIn(device)).length).toBe(52);
    }));
};
