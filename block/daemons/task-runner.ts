import type { Clock } from "../../common/clock.ts";
import { codeOf, messageOf } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import { withTransaction } from "../../common/sql/transaction.ts";
import { sleep, type Worker } from "../../common/worker.ts";
import { stepTask, type TaskEvent, type VolumeTask } from "../core/volume-task.ts";
import type { BlockDatabase } from "../store/schema.ts";
import type { LeasedTask } from "../store/leased-tasks.ts";
import { createLeasedRunner, retryWaitMs } from "./leased-runner.ts";
import { isTaskThere, volumeTasks } from "../store/tasks.ts";
import { settleOutcome } from "../store/task-outcomes.ts";

/** Volumes that are worked on at the same time. */
const PARALLEL_MAX = 16;
/** Nothing waits for a host for longer; then the volume says that it failed, and its owner decides. */
const GIVE_UP_MS = 300_000;
/** While a client waits for it, it is told sooner. */
const GIVE_UP_CONNECT_MS = 20_000;
const SETTLED_LOOK_MS = 200;

/** Answers of a host that asking again does not change. */
const FINAL_CODES = new Set([
  "pool-full",
  "no-such-source",
  "no-such-volume",
  "no-such-snapshot",
  "no-such-pool",
  "volume-in-use",
  "volume-exists",
  "chain-too-long",
  "volume-shrinks",
  "port-unavailable",
  "iscsi-unavailable",
  "bad-message",
]);

/** Does what a step says, and tells how it ended. Rejects with the host's error; what is not final is done again. */
export type TaskWork = (volumeId: string, task: VolumeTask) => Promise<TaskEvent>;

/** Disposal waits for the steps under way; what they call has to fail or to answer by then. Requires: the worker is stopped. */
export type TaskRunner = AsyncDisposable & {
  readonly worker: Worker;
  /** There may be something to do. */
  wake(): void;
  /** Resolves when the task is done, with false where it is not within `limitMs`. */
  settled(taskId: number, limitMs: number): Promise<boolean>;
};

export type TaskRunnerOptions = {
  readonly database: BlockDatabase;
  readonly work: TaskWork;
  readonly clock: Clock;
  readonly log: Log;
  /** In the place of the limits above, for tests. */
  readonly giveUpMs?: number;
};

const limitOf = ({ kind }: VolumeTask, giveUpMs: number | undefined): number =>
  giveUpMs ?? (kind === "connect" ? GIVE_UP_CONNECT_MS : GIVE_UP_MS);

/** Works through the tasks in the database, several volumes at once, those of one volume in order. */
export const createTaskRunner = ({ database, work, clock, log, giveUpMs }: TaskRunnerOptions): TaskRunner => {
  /** What became of the call; undefined where it is to be made again, which is written down then. */
  const eventOf = async (
    { id, subjectId: volumeId, task, attempts, failingSinceMs }: LeasedTask<VolumeTask>,
    owner: string,
  ) => {
    try {
      return await work(volumeId, task);
    } catch (thrown) {
      const reason = messageOf(thrown);
      const code = codeOf(thrown) ?? "internal";
      if (FINAL_CODES.has(code)) return { kind: "refused", code, reason } satisfies TaskEvent;
      const nowMs = clock.nowMs();
      const sinceMs = failingSinceMs ?? nowMs;
      log.warn("a step of a volume had no answer", {
        volume: volumeId,
        kind: task.kind,
        step: task.step,
        code,
        reason,
      });
      if (nowMs - sinceMs >= limitOf(task, giveUpMs)) return { kind: "given-up", reason } satisfies TaskEvent;
      const again = { notBeforeMs: nowMs + retryWaitMs(attempts), failingSinceMs: sinceMs, attempts: attempts + 1 };
      await volumeTasks.postpone(database, id, owner, again);
      return undefined;
    }
  };

  /** Writes how the step ended together with the next one. Undefined: there is none, or the task is somebody else's. */
  const commit = (claim: LeasedTask<VolumeTask>, event: TaskEvent, owner: string): Promise<VolumeTask | undefined> =>
    withTransaction(database, async (transaction) => {
      if (!(await volumeTasks.isOwned(transaction, claim.id, owner))) return undefined;
      const step = stepTask(claim.task, event);
      if (step.kind === "continue") {
        await volumeTasks.keep(transaction, claim.id, owner, step.task);
        if (step.task.kind === "create" && step.task.step === "make") {
          const place = { backend: step.task.backend };
          await transaction.updateTable("volumes").set(place).where("id", "=", claim.subjectId).execute();
        }
        return step.task;
      }
      await volumeTasks.remove(transaction, claim.id);
      await settleOutcome(transaction, claim.subjectId, step.outcome, clock.nowMs());
      return undefined;
    });

  const runner = createLeasedRunner<VolumeTask>({
    name: "volume-tasks",
    database,
    tasks: volumeTasks,
    parallelMax: PARALLEL_MAX,
    clock,
    log,
    run: async (first, owner) => {
      let claim = first;
      for (;;) {
        const event = await eventOf(claim, owner);
        if (event === undefined) return;
        if ("reason" in event)
          log.warn("a step of a volume failed", { volume: claim.subjectId, task: claim.task, ...event });
        const next = await commit(claim, event, owner);
        if (next === undefined) return;
        claim = { ...claim, task: next, attempts: 0, failingSinceMs: undefined };
      }
    },
    // The database is away.
    onUnwritten: async ({ subjectId: volume }, error) =>
      log.error("a step of a volume could not be written", { volume, error }),
  });

  return {
    wake: () => runner.wake(),
    settled: async (taskId, limitMs) => {
      const endMs = performance.now() + limitMs;
      while (await isTaskThere(database, taskId)) {
        const leftMs = endMs - performance.now();
        if (leftMs <= 0) return false;
        // Another process may be the one that works on it, and tells nobody here.
        await Promise.race([runner.change(), sleep(Math.min(leftMs, SETTLED_LOOK_MS))]);
      }
      return true;
    },
    worker: runner.worker,
    [Symbol.asyncDispose]: () => runner.quiet(),
  };
};
