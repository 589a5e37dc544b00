import { expect, test } from "vitest";
import { ratioOf, reachChecks } from "./reach.ts";

const own = { requestsPerSecond: 3000, p99Ms: 5, serverCpuUsPerRequest: 450, requests: 10 };
const other = { requestsPerSecond: 100, p99Ms: 200 };

test("a ratio of rates says how many times more requests, one of p99 how many times shorter", () => {
  expect(ratioOf("rate", own, other)).toBe(30);
  expect(ratioOf("p99", own, other)).toBe(40);
});

test("there is no ratio where one side answered nothing", () => {
  const dead = { requestsPerSecond: 0, p99Ms: 0 };
  expect(ratioOf("rate", own, dead)).toBeUndefined();
  expect(ratioOf("rate", dead, other)).toBeUndefined();
  expect(ratioOf("p99", own, dead)).toBeUndefined();
  expect(ratioOf("p99", dead, other)).toBeUndefined();
});

test("a limit that is met exactly is reached, one that is passed by a little is missed", () => {
  const reach = { ratio: 30, requestsPerSecond: 3000, p99Ms: 5, cpuUsPerRequest: 450 };
  expect(reachChecks({ reach }, own, 30).map(({ isReached }) => isReached)).toEqual([true, true, true, true]);
  const worse = { requests: 10, requestsPerSecond: 2999.9, p99Ms: 5.01, serverCpuUsPerRequest: 451 };
  expect(reachChecks({ reach }, worse, 29.99)).toEqual([
    { text: "≥ 30 ×", isReached: false },
    { text: "≥ 3,000/s", isReached: false },
    { text: "p99 ≤ 5 ms", isReached: false },
    { text: "CPU ≤ 450 µs", isReached: false },
  ]);
});

test("what was not measured is neither reached nor missed", () => {
  const reach = { ratio: 30, requestsPerSecond: 3000, p99Ms: 5, cpuUsPerRequest: 450 };
  const nothing = { requestsPerSecond: 0, p99Ms: 0, serverCpuUsPerRequest: undefined, requests: 0 };
  expect(reachChecks({ reach }, nothing, undefined)).toEqual([]);
});
