import { expect, it } from "vitest";
import { silentLog } from "./log.ts";
import { runWorkers, sleep, type Worker } from "./worker.ts";

const counting = (work: (count: number) => "busy" | "idle"): Worker & { count: number } => {
  const worker = {
    name: "counter",
    count: 0,
    status: () => ({ count: worker.count }),
    work: async () => {
      worker.count += 1;
      return work(worker.count);
    },
    waitForWork: (signal: AbortSignal) => sleep(60_000, signal),
  };
  return worker;
};

it("works while there is work, then waits", async () => {
  const worker = counting((count) => (count < 5 ? "busy" : "idle"));
  await using runner = runWorkers([worker], { log: silentLog });
  await sleep(50);
  expect(runner.list()).toMatchObject([
    { name: "counter", state: "waiting", rounds: 5, failures: 0, status: { count: 5 } },
  ]);
});

it("goes on after a failed round and remembers why it failed", async () => {
  const worker = counting((count) => {
    if (count === 1) throw new Error("the disk is away");
    return "idle";
  });
  await using runner = runWorkers([worker], { log: silentLog });
  await sleep(20);
  expect(runner.list()).toMatchObject([{ state: "failing", failures: 1, lastError: "the disk is away" }]);
  await sleep(150);
  expect(runner.list()).toMatchObject([{ state: "waiting", rounds: 1, failures: 1 }]);
});

it("does nothing while paused", async () => {
  const worker = counting(() => "busy");
  await using runner = runWorkers([worker], { log: silentLog });
  expect(runner.pause("counter")).toBe(true);
  expect(runner.pause("another")).toBe(false);
  await sleep(30);
  const { count } = worker;
  await sleep(30);
  expect(worker.count).toBe(count);
  runner.resume("counter");
  await sleep(30);
  expect(worker.count).toBeGreaterThan(count);
});
