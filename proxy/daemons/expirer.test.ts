import { expect, test } from "vitest";
import { type Ballot, ballotOf, NO_INCARNATION } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import type { HybridTimestamp } from "../../common/hybrid-clock.ts";
import { encodeRowValue, packRows, type Row, unpackRows } from "../../storage-node/wire.ts";
import { dueBefore, dueObjectOf, dueRow, handledRow, isDue } from "../core/expiry.ts";
import { type DueRows, expirer } from "./expirer.ts";

const START_SECONDS = 1_700_000_000;
const ballot = (time: number, process = "00000001"): Ballot =>
  ballotOf(NO_INCARNATION, time.toString(16).padStart(16, "0") as HybridTimestamp, process);

/** Rows as a replica lists them: their fields are read when they are asked for. */
const asListed = (rows: readonly Row[]): Row[] =>
  unpackRows(
    packRows(
      rows.map((row) => ({ name: Buffer.from(row.name), value: encodeRowValue(row), isDeleted: row.isDeleted })),
    ),
  );

/** An index and a store of one container, both with a clock that the test turns. */
class Fixture {
  nowMs = START_SECONDS * 1000;
  readonly rows = new Map<string, Row>();
  readonly objects = new Map<string, number | undefined>();
  readonly refusals: Error[] = [];
  readonly index: DueRows = {
    shardCount: 2,
    due: async (shard, nowMs, limit) =>
      shard === 1
        ? []
        : asListed(
            [...this.rows.values()].filter((row) => !row.isDeleted && row.name < dueBefore(nowMs)).slice(0, limit),
          ),
    handled: async (_shard, row) => this.write(handledRow(row)),
  };
  readonly worker = expirer(this.index, async (_account, _container, name, deleteAt) => this.#expire(name, deleteAt), {
    nowMs: () => this.nowMs,
  });

  write(row: Row): void {
    const held = this.rows.get(row.name);
    if (held === undefined || held.version < row.version) this.rows.set(row.name, row);
  }

  put(name: string, deleteAt: number | undefined, version: Ballot): void {
    this.objects.set(name, deleteAt);
    if (deleteAt !== undefined) this.write(dueRow(deleteAt, `/a/c/${name}`, version));
  }

  async round(): Promise<"busy" | "idle"> {
    return this.worker.work(new AbortController().signal);
  }

  live(): number {
    return [...this.rows.values()].filter((row) => !row.isDeleted).length;
  }

  #expire(name: string, deleteAt: number): void {
    const refusal = this.refusals.pop();
    if (refusal !== undefined) throw refusal;
    if (isDue(this.objects.get(name), deleteAt, this.nowMs)) this.objects.delete(name);
  }
}

test("an object is removed once its time has come, and not before", async () => {
  const fixture = new Fixture();
  fixture.put("soon", START_SECONDS + 10, ballot(1));
  fixture.put("later", START_SECONDS + 100, ballot(2));
  await fixture.round();
  expect([...fixture.objects.keys()]).toEqual(["soon", "later"]);
  fixture.nowMs += 10_000;
  await fixture.round();
  expect([...fixture.objects.keys()]).toEqual(["later"]);
  expect(fixture.live()).toBe(1);
});

test("an object whose due time was changed or taken away meanwhile is left alone", async () => {
  const fixture = new Fixture();
  fixture.put("moved", START_SECONDS + 10, ballot(1));
  fixture.put("moved", START_SECONDS + 100, ballot(2));
  fixture.put("kept", START_SECONDS + 10, ballot(3));
  fixture.put("kept", undefined, ballot(4));
  fixture.nowMs += 10_000;
  await fixture.round();
  expect([...fixture.objects.keys()]).toEqual(["moved", "kept"]);
  fixture.nowMs += 90_000;
  await fixture.round();
  expect([...fixture.objects.keys()]).toEqual(["kept"]);
  expect(fixture.live()).toBe(0);
});

test("a row leaves the index only after its object was dealt with", async () => {
  const fixture = new Fixture();
  fixture.put("o", START_SECONDS + 1, ballot(1));
  fixture.nowMs += 1000;
  fixture.refusals.push(new RingsteadError("outcome-unknown", "too few replicas answer"));
  await fixture.round();
  expect([fixture.objects.size, fixture.live()]).toEqual([1, 1]);
  await fixture.round();
  expect([fixture.objects.size, fixture.live()]).toEqual([0, 0]);
});

test("an object that cannot be dealt with, for whatever reason, keeps no other from its end", async () => {
  const fixture = new Fixture();
  for (const [index, name] of ["damaged", "sound"].entries()) fixture.put(name, START_SECONDS + 1, ballot(index));
  fixture.nowMs += 1000;
  fixture.refusals.push(new TypeError("not what was expected"));
  await expect(fixture.round()).rejects.toThrow("not what was expected");
  expect([...fixture.objects.keys()]).toEqual(["damaged"]);
  expect(fixture.live()).toBe(1);
});

test("the row of an object whose container is gone leaves the index", async () => {
  const fixture = new Fixture();
  fixture.put("o", START_SECONDS + 1, ballot(1));
  fixture.nowMs += 1000;
  fixture.refusals.push(new RingsteadError("no-such-container", "gone"));
  await fixture.round();
  expect(fixture.live()).toBe(0);
});

test("an object written again with the same due time stays in the index when the row of its earlier version is taken out", () => {
  const fixture = new Fixture();
  const earlier = dueRow(START_SECONDS, "/a/c/o", ballot(1, "ffffffff"));
  fixture.write(dueRow(START_SECONDS, "/a/c/o", ballot(2, "00000000")));
  fixture.write(handledRow(earlier));
  expect(fixture.live()).toBe(1);
  expect(handledRow(earlier).version > earlier.version).toBe(true);
});

test("more than a page of due objects keeps the expirer busy until all are gone", async () => {
  const fixture = new Fixture();
  for (let index = 0; index < 150; index++) fixture.put(`o${index}`, START_SECONDS + 1, ballot(index));
  fixture.nowMs += 1000;
  expect(await fixture.round()).toBe("busy");
  expect(await fixture.round()).toBe("idle");
  expect(fixture.objects.size).toBe(0);
});

test("a row of the index names its object, slashes and all", () => {
  const row = dueRow(START_SECONDS, "/AUTH_x/c/a/b\nc", ballot(1));
  expect(dueObjectOf(row)).toEqual({ deleteAt: START_SECONDS, account: "AUTH_x", container: "c", name: "a/b\nc" });
  expect(dueObjectOf({ ...row, name: "what is this" })).toBeUndefined();
});
