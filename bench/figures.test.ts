import { expect, test } from "vitest";
import type { Measurement } from "./contest.ts";
import { figuresOf, percentile } from "./figures.ts";
import { ROWS, type Row } from "./rows.ts";

const rowOf = (id: string): Row => ROWS.find((row) => row.id === id)!;

const run = (part: Partial<Measurement>): Measurement => ({
  latenciesUs: [1000, 2000, 3000, 4000],
  answered: 4,
  backgroundAnswered: 0,
  elapsedMs: 1000,
  begun: 4,
  clientCpuMs: 2,
  serverCpuMs: 8,
  memory: { rssBytes: 10, pssBytes: 5 },
  names: undefined,
  deletedNames: undefined,
  failed: 0,
  firstFailure: undefined,
  ...part,
});

test("a percentile is the nearest rank, the largest of few values, and 0 of none", () => {
  const hundred = Array.from({ length: 100 }, (_, index) => index + 1);
  expect(percentile(hundred, 0.5)).toBe(50);
  expect(percentile(hundred, 0.99)).toBe(99);
  expect(percentile(hundred, 1)).toBe(100);
  expect(percentile(hundred, 0)).toBe(1);
  expect(percentile([7], 0.99)).toBe(7);
  expect(percentile([3, 9], 0.99)).toBe(9);
  expect(percentile([], 0.5)).toBe(0);
});

test("runs of different lengths count by their requests, and percentiles go over all of them", () => {
  const slow = run({ latenciesUs: [9000], answered: 1, elapsedMs: 4000, serverCpuMs: 2, clientCpuMs: 0 });
  const figures = figuresOf(rowOf("put-4k"), [run({}), slow]);
  expect(figures).toMatchObject({ requests: 5, requestsPerSecond: 1, p50Ms: 3, p99Ms: 9, runs: [4, 0.25] });
  expect(figures).toMatchObject({ serverCpuUsPerRequest: 2000, clientCpuUsPerRequest: 400 });
});

test("the rate of whole listings leaves out the time of the PUT between them", () => {
  const listings = run({ latenciesUs: [100_000, 100_000], answered: 4, elapsedMs: 5000, names: 10_000 });
  expect(figuresOf(rowOf("list-10000"), [listings])).toMatchObject({ requestsPerSecond: 10, names: 10_000 });
});

test("beside another load no CPU time a request is told, but how fast the other was", () => {
  const figures = figuresOf(rowOf("put-4k-beside-1m"), [run({ backgroundAnswered: 30, elapsedMs: 2000 })]);
  expect(figures).toMatchObject({ serverCpuUsPerRequest: undefined, besidePerSecond: 15 });
});

test("a run without any answer has rate 0 and no CPU time a request", () => {
  const dead = run({ latenciesUs: [], answered: 0, failed: 100, firstFailure: "PUT /x: status 503" });
  expect(figuresOf(rowOf("put-4k"), [dead])).toMatchObject({
    requestsPerSecond: 0,
    p99Ms: 0,
    serverCpuUsPerRequest: undefined,
    failed: 100,
    firstFailure: "PUT /x: status 503",
  });
});
