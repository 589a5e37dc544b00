import fc from "fast-check";
import { expect, it } from "vitest";
import { SCHEDULE_ATTEMPTS, stepTask, type TaskEvent, type VolumeTask } from "./volume-task.ts";

const TASKS: readonly VolumeTask[] = [
  { kind: "create", step: "schedule", excluded: [] },
  { kind: "delete", step: "close" },
  { kind: "extend", step: "grow", sizeGib: 2 },
  { kind: "connect", step: "open", exportId: "e", transport: "tcp", isReadOnly: false },
  { kind: "disconnect", step: "close", exportIds: ["e"] },
  { kind: "snapshot", step: "take", snapshotId: "s" },
  { kind: "unsnapshot", step: "drop", snapshotId: "s" },
  { kind: "revert", step: "revert", snapshotId: "s" },
];
const events: fc.Arbitrary<TaskEvent> = fc.oneof(
  fc.constantFrom<TaskEvent>(
    { kind: "done" },
    { kind: "exported" },
    { kind: "pool-chosen", backend: "local@lvm#lvm" },
    { kind: "no-pool", reason: "none" },
    { kind: "given-up", reason: "silent" },
    { kind: "refused", code: "pool-full", reason: "full" },
    { kind: "refused", code: "no-such-source", reason: "gone" },
  ),
);

it("every task ends, whatever happens", () => {
  fc.assert(
    fc.property(fc.constantFrom(...TASKS), fc.infiniteStream(events), (first, stream) => {
      let task: VolumeTask | undefined = first;
      for (let steps = 0; task !== undefined; steps += 1) {
        expect(steps).toBeLessThan(3 * SCHEDULE_ATTEMPTS);
        const step = stepTask(task, stream.next().value);
        task = step.kind === "continue" ? step.task : undefined;
      }
    }),
  );
});

it("a pool that is full is left out, until so many were tried", () => {
  let task: VolumeTask = { kind: "create", step: "schedule", excluded: [] };
  const tried: string[] = [];
  for (let pool = 0; pool < SCHEDULE_ATTEMPTS; pool += 1) {
    const chosen = stepTask(task, { kind: "pool-chosen", backend: `pool ${pool}` });
    if (chosen.kind !== "continue") throw new Error("it ended");
    tried.push(`pool ${pool}`);
    const full = stepTask(chosen.task, { kind: "refused", code: "pool-full", reason: "full" });
    if (full.kind !== "continue") throw new Error("it ended");
    task = full.task;
    if (pool < SCHEDULE_ATTEMPTS - 1) expect(task).toMatchObject({ step: "schedule", excluded: tried });
  }
  expect(task).toMatchObject({ step: "unmake" });
  expect(stepTask(task, { kind: "done" })).toMatchObject({
    kind: "end",
    outcome: { event: { kind: "create-failed" } },
  });
});

it("what may have been opened is closed before the attachment counts as failed", () => {
  const open: VolumeTask = { kind: "connect", step: "open", exportId: "e", transport: "unix", isReadOnly: true };
  expect(stepTask(open, { kind: "given-up", reason: "silent" })).toMatchObject({
    kind: "continue",
    task: { kind: "connect", step: "undo", exportId: "e" },
  });
});
