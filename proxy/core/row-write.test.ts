import { describe, expect, it } from "vitest";
import type { RowReply } from "../../storage-node/wire.ts";
import { Quorum } from "./quorum.ts";
import { RowWrite } from "./row-write.ts";

const reply = (kind: RowReply["kind"]): RowReply => ({ kind });
const STORED = reply("stored");

describe("one row at three replicas", () => {
  it("is stored once two have it, whatever comes later", () => {
    const machine = new RowWrite(Quorum.stable(3));
    expect(machine.start()).toEqual({ kind: "row", round: 1 });
    expect(machine.onReply(1, undefined, 0)).toBeUndefined();
    expect(machine.onReply(1, STORED, 0)).toBeUndefined();
    expect(machine.onReply(1, STORED, 0)).toEqual({ kind: "done", outcome: "stored" });
    expect(machine.onReply(1, STORED, 0)).toBeUndefined();
    expect(machine.onTimer(1)).toBeUndefined();
  });

  it("is sent again, after waits that double, where too few answered in time", () => {
    const machine = new RowWrite(Quorum.stable(3));
    machine.start();
    machine.onReply(1, STORED, 0);
    machine.onReply(1, undefined, 0);
    expect(machine.onReply(1, undefined, 0)).toEqual({ kind: "wait", round: 1, atMostMs: 8 });
    expect(machine.onTimer(1)).toEqual({ kind: "row", round: 2 });
    // What was stored in the first round is told again.
    expect(machine.onReply(2, STORED, 0)).toBeUndefined();
    expect(machine.onReply(1, STORED, 0)).toBeUndefined();
    machine.onReply(2, undefined, 0);
    expect(machine.onReply(2, undefined, 0)).toEqual({ kind: "wait", round: 2, atMostMs: 16 });
    machine.onTimer(2);
    machine.onReply(3, STORED, 0);
    expect(machine.onReply(3, STORED, 0)).toEqual({ kind: "done", outcome: "stored" });
  });

  it("is unavailable after twelve rounds", () => {
    const machine = new RowWrite(Quorum.stable(3));
    let effect = machine.start();
    let rounds = 0;
    while (effect.kind === "row") {
      rounds += 1;
      machine.onReply(effect.round, undefined, 0);
      const next = machine.onReply(effect.round, undefined, 0);
      if (next === undefined) throw new Error("two of three failed, and nothing follows");
      effect = next.kind === "wait" ? (machine.onTimer(next.round) ?? next) : next;
    }
    expect(effect).toEqual({ kind: "done", outcome: "unavailable" });
    expect(rounds).toBe(12);
  });

  it("waits for no space", () => {
    const machine = new RowWrite(Quorum.stable(3));
    machine.start();
    machine.onReply(1, undefined, 0);
    expect(machine.onReply(1, { kind: "no-space" }, 0)).toEqual({ kind: "done", outcome: "unavailable" });
  });

  it.each([
    [["behind", "moved"], "moved"],
    [["old", "behind"], "old"],
    [["behind", "old"], "old"],
    [["old", "moved"], "moved"],
    [["closing", "old"], "closing"],
    [["old", undefined], "old"],
    [["closing", "moved"], "moved"],
    [["behind", "closing"], "closing"],
    [["behind", undefined], "behind"],
  ] as const)("ends at once where %j is in the way", (kinds, outcome) => {
    const machine = new RowWrite(Quorum.stable(3));
    machine.start();
    const effects = kinds.map((kind) => machine.onReply(1, kind === undefined ? undefined : reply(kind), 0));
    expect(effects).toEqual([undefined, { kind: "done", outcome }]);
  });
});
