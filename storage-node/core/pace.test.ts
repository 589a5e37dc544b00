import { expect, test } from "vitest";
import {
  type Bucket,
  FLOOR_MS,
  heldFrom,
  PACE_AT_START,
  type PaceState,
  paceAfter,
  p99LimitMs,
  taken,
  unitsOf,
  waitMs,
} from "./pace.ts";

test("a bucket gives its rate over time, whatever the sizes of what is taken", () => {
  for (const perSecond of [1, 500, 1_000_000]) {
    let bucket: Bucket = { tokens: 0, atMs: 0 };
    let nowMs = 0;
    let total = 0;
    for (let step = 0; step < 1000; step++) {
      const amount = ((step * 7919) % 97) * (perSecond / 100);
      nowMs += waitMs(bucket, perSecond, nowMs);
      bucket = taken(bucket, perSecond, amount, nowMs);
      total += amount;
    }
    const seconds = (nowMs + waitMs(bucket, perSecond, nowMs)) / 1000;
    expect(total / seconds / perSecond).toBeGreaterThan(0.98);
    expect(total / seconds / perSecond).toBeLessThan(1.02);
  }
});

test("who takes too much is not held back, and who comes next waits until it is paid back", () => {
  const bucket = taken({ tokens: 0, atMs: 1000 }, 100, 250, 1000);
  expect(waitMs(bucket, 100, 1000)).toBe(2500);
  expect(waitMs(bucket, 100, 3000)).toBe(500);
  expect(waitMs(bucket, 100, 3500)).toBe(0);
});

test("what collects while nothing is taken is a tenth of a second's worth, and a clock that goes back gives nothing", () => {
  const idle = taken({ tokens: 0, atMs: 0 }, 100, 0, 3_600_000);
  expect(idle.tokens).toBe(10);
  expect(taken(idle, 100, 5, 0).tokens).toBe(5);
});

test("a limit that is raised helps at once", () => {
  const bucket = taken({ tokens: 0, atMs: 0 }, 10, 1000, 0);
  expect(waitMs(bucket, 10, 0)).toBe(100_000);
  expect(waitMs(bucket, 100_000, 0)).toBe(10);
});

test("a MiB of a large body counts as 64 entries", () => {
  expect(unitsOf(1, 0)).toBe(1);
  expect(unitsOf(0, 1024 * 1024)).toBe(64);
});

/**
 * Clients whose slowest answers take as long as repair makes them: `idleMs` without it, and from `capacity` units a second on more and
 * more. Gives the rates of repair and those answers, window by window of half a second; undefined: as fast as it can.
 */
const lived = (
  windows: number,
  { idleMs, capacity, demand = Number.POSITIVE_INFINITY }: { idleMs: number; capacity: number; demand?: number },
  begin: PaceState = PACE_AT_START,
): { state: PaceState; rates: number[]; p99s: number[] } => {
  let state = heldFrom(begin);
  const rates: number[] = [];
  const p99s: number[] = [];
  for (let window = 0; window < windows; window++) {
    const rate = Math.min(demand, state.unitsPerSecond ?? 50_000);
    const p99Ms = idleMs * (1 + Math.max(0, rate / capacity - 1) * 10) + (rate / capacity) * 2;
    rates.push(rate);
    p99s.push(p99Ms);
    state = paceAfter(state, { seconds: 0.5, requests: 200, p99Ms, units: rate / 2 });
  }
  return { state, rates, p99s };
};

const idleFor = (p99Ms: number): PaceState => {
  let state = PACE_AT_START;
  for (let window = 0; window < 100; window++)
    state = paceAfter(state, { seconds: 0.5, requests: 200, p99Ms, units: 0 });
  return state;
};

test("beside requests repair finds the rate at which they stay below twice their idle time, and stays near it", () => {
  for (const capacity of [4000, 8000, 60_000]) {
    const begin = idleFor(6);
    expect(p99LimitMs(begin)).toBeCloseTo(12);
    const { rates, p99s } = lived(400, { idleMs: 6, capacity }, begin);
    const settled = rates.slice(200);
    const mean = settled.reduce((sum, rate) => sum + rate, 0) / settled.length;
    expect(mean / capacity).toBeGreaterThan(0.7);
    expect(mean / capacity).toBeLessThan(1.2);
    const slow = p99s.slice(200).filter((p99Ms) => p99Ms > 12).length;
    expect(slow / settled.length).toBeLessThan(0.3);
  }
});

test("requests that are very fast without repair may take up to the floor with it", () => {
  expect(p99LimitMs(idleFor(0.5))).toBe(FLOOR_MS);
  const { rates } = lived(300, { idleMs: 0.5, capacity: 5000 }, idleFor(0.5));
  expect(Math.min(...rates.slice(100))).toBeGreaterThan(5000);
});

test("however slow requests are, repair goes on", () => {
  const { state } = lived(200, { idleMs: 500, capacity: 1 }, idleFor(6));
  expect(state.unitsPerSecond).toBe(1500);
});

test("a repair that has little to do does not collect a right to a burst", () => {
  const { state } = lived(400, { idleMs: 1, capacity: 1e6, demand: 300 }, idleFor(1));
  expect(state.unitsPerSecond).toBe(3000);
});

test("without requests repair goes as fast as it can, and with the next one at its last rate", () => {
  let { state } = lived(100, { idleMs: 6, capacity: 8000 }, idleFor(6));
  const held = state.unitsPerSecond;
  const quiet = { seconds: 0.5, requests: 0, p99Ms: 0, units: 5000 };
  state = paceAfter(state, quiet);
  expect(state.unitsPerSecond).toBe(held);
  for (let window = 0; window < 3; window++) state = paceAfter(state, quiet);
  expect(state.unitsPerSecond).toBeUndefined();
  expect(heldFrom(state).unitsPerSecond).toBe(held);
});

test("what requests take while something is repaired is not taken for what they take without", () => {
  const before = idleFor(6);
  const after = paceAfter(heldFrom(before), { seconds: 0.5, requests: 200, p99Ms: 400, units: 1000 });
  expect(after.idleP99Ms).toBe(before.idleP99Ms);
});
