import { expect, test } from "vitest";
import type { HybridTimestamp } from "../../common/hybrid-clock.ts";
import {
  type Configuration,
  decodeConfiguration,
  encodeConfiguration,
  type Register,
} from "../../storage-node/wire.ts";
import { finishConfiguration, type MoveAnswer, type MoveEffect, movePartition, nextJoint } from "./partition-move.ts";
import type { WriteOutcome } from "./register-write.ts";

const ZERO = "0".repeat(16) as HybridTimestamp;
const stable = (epoch: number, ...ids: readonly string[]): Configuration => ({
  epoch,
  old: ids.map((id) => ({ id, since: 0 })),
  next: undefined,
  floor: ZERO,
});
const idsOf = (configuration: Configuration | undefined): readonly string[] | undefined =>
  configuration?.next?.map(({ id }) => id);

test("members change one at a time, who leaves is replaced in place, until the target is reached [M6]", () => {
  const joint = nextJoint(stable(4, "a", "b", "c"), ["c", "d", "e"]);
  expect(idsOf(joint)).toEqual(["d", "b", "c"]);
  expect(joint?.epoch).toBe(5);
  expect(joint?.next?.[0]).toEqual({ id: "d", since: 5 });
  expect(idsOf(nextJoint(stable(6, "d", "b", "c"), ["c", "d", "e"]))).toEqual(["d", "e", "c"]);
  expect(nextJoint(stable(8, "d", "e", "c"), ["c", "d", "e"])).toBeUndefined();
});

test("a partition may gain a member, or lose one", () => {
  expect(idsOf(nextJoint(stable(0, "a", "b"), ["a", "b", "c"]))).toEqual(["a", "b", "c"]);
  expect(idsOf(nextJoint(stable(0, "a", "b", "c"), ["a", "c"]))).toEqual(["a", "c"]);
});

/** Answers a mover as a partition would in which everybody answers. */
class Partition {
  configuration: Configuration;
  isCopied = false;
  readonly effects: string[] = [];

  constructor(configuration: Configuration) {
    this.configuration = configuration;
  }

  answer(effect: MoveEffect<string>): MoveAnswer {
    this.effects.push(effect.kind);
    switch (effect.kind) {
      case "known":
        return this.configuration;
      case "configure":
        if (effect.configuration.epoch > this.configuration.epoch) this.configuration = effect.configuration;
        return { devices: effect.ids.map((id) => ({ id })) };
      case "caught-up":
        return { devices: this.isCopied ? effect.ids.map((id) => ({ id })) : [] };
      case "seal":
        return { devices: effect.ids.map((id, index) => ({ id, highest: String(index).padStart(16, "0") as never })) };
      case "confirm":
        return undefined;
      case "write": {
        if (effect.mode.kind !== "conditional") throw new Error("a configuration is written under a condition");
        const record = effect.mode.decide(undefined, "" as never, []);
        if (record === "stop") throw new Error("nothing was written before");
        this.configuration = decodeConfiguration(record.metadata);
        const version = "" as never;
        return { kind: "established", version, ballot: version, base: undefined, isConfirmed: false, liveRows: [] };
      }
    }
  }

  move(target: readonly string[]): string {
    const script = movePartition("epoch", target);
    let step = script.next();
    while (step.done !== true) step = script.next(this.answer(step.value));
    return step.value;
  }
}

test("a partition that is where it should be is told so, and nothing is decided", () => {
  const partition = new Partition(stable(0, "a", "b"));
  expect(partition.move(["b", "a"])).toBe("done");
  expect(partition.effects).toEqual(["known", "configure", "known"]);
});

test("a mover waits for the newcomer to copy, with everybody told and nobody sealed", () => {
  const partition = new Partition(stable(0, "a", "b", "c"));
  expect(partition.move(["d", "b", "c"])).toBe("copying");
  expect(idsOf(partition.configuration)).toEqual(["d", "b", "c"]);
  expect(partition.effects).not.toContain("seal");
});

const LEFT: Register = {
  version: "1".repeat(48) as never,
  ballot: "2".repeat(48) as never,
  state: "accepted",
  bodyVersion: "1".repeat(48) as never,
  isTombstone: false,
  bodyLength: 0,
  metadata: encodeConfiguration(stable(2, "d", "b", "c")),
};

/** What a settler does with a configuration that a mover left, and what it says. */
const finish = (outcome: WriteOutcome): readonly [boolean, ...string[]] => {
  const effects: string[] = [];
  const script = finishConfiguration("epoch", LEFT);
  let step = script.next();
  while (step.done !== true) {
    const effect = step.value;
    effects.push(effect.kind === "configure" ? `configure ${effect.ids.join(" ")}` : effect.kind);
    if (effect.kind === "write")
      expect(effect.mode).toMatchObject({ kind: "finish", version: LEFT.version, ballot: LEFT.ballot });
    step = script.next(effect.kind === "write" ? outcome : effect.kind === "configure" ? { devices: [] } : undefined);
  }
  return [step.value, ...effects];
};

test("a configuration that a dead mover left is finished, confirmed and told; one that was overtaken is left alone [B7]", () => {
  const { ballot, version } = LEFT;
  const established = {
    kind: "established",
    version,
    ballot,
    base: undefined,
    isConfirmed: false,
    liveRows: [],
  } as const;
  expect(finish(established)).toEqual([true, "write", "confirm", "configure d b c"]);
  expect(finish({ kind: "superseded" } as never)).toEqual([true, "write"]);
  expect(finish({ kind: "unknown" })).toEqual([false, "write"]);
});
