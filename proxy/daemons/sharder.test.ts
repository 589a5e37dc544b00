import { expect, test } from "vitest";
import { RingsteadError } from "../../common/errors.ts";
import { silentLog } from "../../common/log.ts";
import type { ShardWork } from "../object-service/containers.ts";
import type { LeaseAnswer } from "../object-service/mover-lease.ts";
import { Sharder, type SharderParts } from "./sharder.ts";

type Container = Pick<ShardWork, "account" | "container">;
const C: Container = { account: "a", container: "c" };

/** Containers that need some changes each, as the sharder sees them. */
class Parts {
  nowMs = 1_000_000;
  lease: LeaseAnswer["kind"] = "taken";
  found: Container[] = [];
  reported: ShardWork[] = [];
  /** How many changes a container still needs. */
  needs = 0;
  failure: RingsteadError | undefined;
  readonly tended: (readonly [string, number])[] = [];

  readonly parts: SharderParts = {
    sharding: {
      find: async () => this.found,
      tend: async ({ container }, reported, pause) => {
        this.tended.push([container, reported.length]);
        await pause();
        if (this.failure !== undefined) throw this.failure;
        if (this.needs === 0) return { split: 0, merged: 0, isSettled: true };
        this.needs -= 1;
        return { split: 1, merged: 0, isSettled: false };
      },
    },
    takeReported: () => this.reported.splice(0),
    lease: {
      take: async () => ({ kind: this.lease === "outdated" ? "held" : this.lease }),
      give: async () => {},
    },
    clock: { nowMs: () => this.nowMs },
    log: silentLog,
  };
}

const rounds = async (sharder: Sharder, count: number): Promise<void> => {
  for (let round = 0; round < count; round++) await sharder.work(new AbortController().signal);
};

test("a container is tended until it needs nothing more, and then rests", async () => {
  const it = new Parts();
  it.found = [C];
  it.needs = 2;
  const sharder = new Sharder(it.parts);
  await rounds(sharder, 5);
  expect(it.tended).toEqual([
    ["c", 0],
    ["c", 0],
    ["c", 0],
  ]);
  expect(sharder.progress).toEqual({ isSharder: true, splits: 2, merges: 0, waiting: 0 });
  it.nowMs += 20_000;
  await rounds(sharder, 1);
  expect(it.tended).toHaveLength(4);
});

test("who has no lease does nothing, and what was reported to him is nobody's loss", async () => {
  const it = new Parts();
  it.lease = "held";
  it.found = [C];
  it.reported = [{ ...C, incarnation: "1".repeat(24) as ShardWork["incarnation"], id: "" }];
  const sharder = new Sharder(it.parts);
  await rounds(sharder, 3);
  expect(it.tended).toEqual([]);
  expect(sharder.progress).toMatchObject({ isSharder: false, waiting: 0 });
});

test("what the settler reports of a container comes with it", async () => {
  const it = new Parts();
  const work: ShardWork = { ...C, incarnation: "1".repeat(24) as ShardWork["incarnation"], id: "x" };
  it.reported = [work, { ...work, id: "y" }];
  await rounds(new Sharder(it.parts), 2);
  expect(it.tended).toEqual([["c", 2]]);
});

test("a lease that is lost in the middle ends the work there, and a failure makes the container wait", async () => {
  const it = new Parts();
  it.found = [C];
  it.needs = 1;
  const sharder = new Sharder({
    ...it.parts,
    sharding: {
      find: async () => it.found,
      tend: async (of, reported, pause) => {
        it.lease = "held";
        return it.parts.sharding.tend(of, reported, pause);
      },
    },
  });
  await rounds(sharder, 1);
  expect(it.needs).toBe(1);
  expect(sharder.status()).toMatchObject({ splits: 0, failures: 1 });
  it.lease = "taken";
  await rounds(sharder, 2);
  expect(it.tended).toHaveLength(1);
});

test("a quorum that does not answer is no end of the sharder", async () => {
  const it = new Parts();
  it.found = [C];
  it.failure = new RingsteadError("quorum-unavailable", "too few answer");
  const sharder = new Sharder(it.parts);
  await rounds(sharder, 3);
  expect(sharder.status()).toMatchObject({ failures: 1, splits: 0 });
});
