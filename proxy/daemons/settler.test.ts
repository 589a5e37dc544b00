import { expect, test } from "vitest";
import { type Ballot, ballotOf, NO_INCARNATION } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import type { HybridTimestamp } from "../../common/hybrid-clock.ts";
import type { Name, Register, UnsettledReply } from "../../storage-node/wire.ts";
import { settler, type UnsettledSource } from "./settler.ts";

const version: Ballot = ballotOf(NO_INCARNATION, "1".repeat(16) as HybridTimestamp, "00000001");
const register: Register = {
  version,
  ballot: version,
  state: "accepted",
  bodyVersion: version,
  isTombstone: false,
  bodyLength: 0,
  metadata: new Uint8Array(),
};
const item = (path: string): UnsettledReply["registers"][number] => ({
  name: { space: "object", hash32: 1, path },
  register,
});

/** A device whose scan has the given pages. */
const device = (
  lately: readonly string[],
  pages: readonly (readonly string[])[] = [[]],
): UnsettledSource & { asked: number } => ({
  asked: 0,
  async unsettled(_olderThanMs, from) {
    if (from === undefined) return { registers: lately.map(item), next: undefined };
    this.asked += 1;
    const index = from[0] ?? 0;
    const next = index + 1 < pages.length ? Uint8Array.of(index + 1) : undefined;
    return { registers: (pages[index] ?? []).map(item), next };
  },
});

const sourcesOf =
  (...sources: readonly UnsettledSource[]) =>
  (): readonly UnsettledSource[] =>
    sources;
const clockAt = (time: { nowMs: number }) => ({ nowMs: () => time.nowMs });
const signal = new AbortController().signal;

test("what several replicas report is finished once a round, and thoroughly when it is reported again [B7]", async () => {
  const time = { nowMs: 1_000_000 };
  const finished: [string, boolean][] = [];
  const settle = async ({ path }: Name, _register: Register, isAgain: boolean): Promise<void> => {
    finished.push([path, isAgain]);
  };
  const worker = settler(sourcesOf(device(["/a/c/1"]), device(["/a/c/1", "/a/c/2"])), settle, clockAt(time));
  await worker.work(signal);
  expect(finished).toEqual([
    ["/a/c/1", false],
    ["/a/c/2", false],
  ]);
  time.nowMs += 1000;
  await worker.work(signal);
  expect(finished.slice(2)).toEqual([
    ["/a/c/1", true],
    ["/a/c/2", true],
  ]);
});

test("a device is scanned page by page, and rests before it is scanned again [B7]", async () => {
  const time = { nowMs: 1_000_000 };
  const finished: string[] = [];
  const source = device([], [["/a/c/1"], [], ["/a/c/3"]]);
  const worker = settler(sourcesOf(source), async ({ path }) => void finished.push(path), clockAt(time));
  for (let round = 0; round < 10; round++) {
    time.nowMs += 200;
    await worker.work(signal);
  }
  expect([source.asked, finished]).toEqual([3, ["/a/c/1", "/a/c/3"]]);
  time.nowMs += 60_000;
  await worker.work(signal);
  expect(source.asked).toBe(4);
});

test("a device that does not answer, and a name that cannot be finished now, hold nothing else up [B7]", async () => {
  const dead: UnsettledSource = {
    unsettled: () => Promise.reject(new RingsteadError("rpc-timeout", "no answer")),
  };
  const finished: string[] = [];
  const settle = async ({ path }: Name): Promise<void> => {
    if (path === "/a/c/1") throw new RingsteadError("quorum-unavailable", "too few replicas answer");
    finished.push(path);
  };
  const worker = settler(sourcesOf(dead, device(["/a/c/1", "/a/c/2"])), settle, clockAt({ nowMs: 1_000_000 }));
  expect(await worker.work(signal)).toBe("idle");
  expect(finished).toEqual(["/a/c/2"]);
  expect(worker.status()).toMatchObject({ settled: 1, postponed: 1, unreachable: 2 });
});
