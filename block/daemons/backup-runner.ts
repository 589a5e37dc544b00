import type { Clock } from "../../common/clock.ts";
import { codeOf, messageOf, RingsteadError } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import { withTransaction } from "../../common/sql/transaction.ts";
import type { Worker } from "../../common/worker.ts";
import { type BackupTask, type BackupTaskEvent, stepBackupTask } from "../backup/core/backup-task.ts";
import { settleBackupOutcome } from "../store/backup-outcomes.ts";
import { isSwept } from "../store/backup-stores.ts";
import { backupTasks } from "../store/backup-tasks.ts";
import type { LeasedTask } from "../store/leased-tasks.ts";
import { createLeasedRunner, retryWaitMs } from "./leased-runner.ts";
import { type Backup, findBackup } from "../store/backups.ts";
import type { BlockDatabase } from "../store/schema.ts";

/** Backups and restorations at the same time: each has some MiB in memory, and reads or writes as fast as the disk lets it. */
const PARALLEL_MAX = 4;
/** What stands as it was because it could not be written is done again after this, where the database is there then. */
const UNWRITTEN_RETRY_MS = 200;
/** Nothing waits for a host or for the object store for longer; what copied something meanwhile begins to count anew. */
const GIVE_UP_MS = 300_000;
/** What earlier backups left in a pool is merged within this time, and then there may be room. */
const GIVE_UP_POOL_MS = 60_000;
/** What waits for something that is under way is asked about so often. */
const LATER_MS = 200;

/** Answers that asking again does not change. */
const FINAL_CODES = new Set([
  "backup-damaged",
  "backup-key-unknown",
  "bad-message",
  "chain-too-long",
  "no-such-snapshot",
  "no-such-volume",
  "object-store-refused",
  "port-unavailable",
  "volume-in-use",
]);

export type StepTools = {
  readonly signal: AbortSignal;
  /**
   * Writes how far the step is: whoever does it again begins with this task, and what failed before does not count any more. Errors: "task-lost"
   * where somebody else has it now.
   */
  keep(this: void, task: BackupTask): Promise<void>;
};

/** Does what a step says, and tells how it ended. Rejects with what hindered it; what is not final is done again. */
export type BackupTaskWork = (backup: Backup, task: BackupTask, tools: StepTools) => Promise<BackupTaskEvent>;

export type BackupRunnerOptions = {
  readonly database: BlockDatabase;
  readonly work: BackupTaskWork;
  readonly clock: Clock;
  readonly log: Log;
  /** In the place of the limit above, for tests. */
  readonly giveUpMs?: number;
};

/** Disposal ends the steps under way where they are; they stand in the database. Requires: the worker is stopped. */
export type BackupRunner = AsyncDisposable & {
  readonly worker: Worker;
  /** There may be something to do. */
  wake(): void;
};

/** Works through the tasks of backups, several at once, those of one backup in order. */
export const createBackupRunner = ({
  database,
  work,
  clock,
  log,
  giveUpMs = GIVE_UP_MS,
}: BackupRunnerOptions): BackupRunner => {
  const stop = new AbortController();

  /** Puts the task back, and looks for it when its time has come. */
  const postpone = async (
    id: number,
    owner: string,
    waitMs: number,
    counted: { readonly failingSinceMs: number | null; readonly attempts: number },
  ): Promise<void> => {
    await backupTasks.postpone(database, id, owner, { notBeforeMs: clock.nowMs() + waitMs, ...counted });
    setTimeout(() => runner.wake(), waitMs).unref();
  };

  /** What became of the step; undefined where it is to be done again, which is written down then, or left to whoever comes next. */
  const eventOf = async (
    { id, task }: LeasedTask<BackupTask>,
    backup: Backup,
    owner: string,
  ): Promise<BackupTaskEvent | undefined> => {
    try {
      const keep = async (next: BackupTask): Promise<void> => {
        if (await backupTasks.keep(database, id, owner, next)) return;
        throw new RingsteadError("task-lost", "the task is another process's now");
      };
      return await work(backup, task, { signal: stop.signal, keep });
    } catch (thrown) {
      if (stop.signal.aborted) return undefined;
      const reason = messageOf(thrown);
      const code = codeOf(thrown) ?? "internal";
      if (FINAL_CODES.has(code)) return { kind: "refused", reason };
      const about = { backup: backup.id, kind: task.kind, step: task.step, code, reason };
      log.warn("a step of a backup has to be done again", about);
      const nowMs = clock.nowMs();
      // As it stands now: a copy that gets on begins to count anew.
      const { attempts, failingSinceMs = nowMs } = (await backupTasks.of(database, id)) ?? { attempts: 0 };
      const limitMs = code === "pool-full" ? Math.min(giveUpMs, GIVE_UP_POOL_MS) : giveUpMs;
      if (nowMs - failingSinceMs >= limitMs) return { kind: "given-up", reason };
      await postpone(id, owner, retryWaitMs(attempts), { failingSinceMs, attempts: attempts + 1 });
      return undefined;
    }
  };

  const later = ({ id }: LeasedTask<BackupTask>, owner: string): Promise<void> =>
    postpone(id, owner, LATER_MS, { failingSinceMs: null, attempts: 0 });

  /** Writes how the step ended together with the next one. Undefined: there is none now, or the task is somebody else's. */
  const commit = (
    claim: LeasedTask<BackupTask>,
    backup: Backup,
    event: BackupTaskEvent,
    owner: string,
  ): Promise<BackupTask | "later" | undefined> =>
    withTransaction(database, async (transaction) => {
      if (!(await backupTasks.isOwned(transaction, claim.id, owner))) return undefined;
      // As it stands now: a later restoration says here that this one is not the volume's any more.
      const task = (await backupTasks.of(transaction, claim.id))?.task ?? claim.task;
      const step = stepBackupTask(task, event);
      if (step.kind === "wait") return "later";
      if (step.kind === "continue") {
        const isEntering = step.task.kind === "create" && step.task.step === "copy";
        if (isEntering && (await isSwept(transaction, backup.store_project_id, clock.nowMs()))) return "later";
        await backupTasks.keep(transaction, claim.id, owner, step.task);
        if (step.outcome !== undefined) await settleBackupOutcome(transaction, backup, step.outcome, clock.nowMs());
        return step.task;
      }
      await backupTasks.remove(transaction, claim.id);
      const now = await findBackup(transaction, backup.id);
      if (now !== undefined) await settleBackupOutcome(transaction, now, step.outcome, clock.nowMs());
      return undefined;
    });

  const runSteps = async (first: LeasedTask<BackupTask>, owner: string): Promise<void> => {
    let claim = first;
    for (;;) {
      const backup = await findBackup(database, claim.subjectId);
      if (backup === undefined) return;
      const event = await eventOf(claim, backup, owner);
      if (event === undefined) return;
      if ("reason" in event) log.warn("a step of a backup failed", { backup: backup.id, task: claim.task, ...event });
      const next = await commit(claim, backup, event, owner);
      if (next === "later") return later(claim, owner);
      if (next === undefined) return;
      claim = { ...claim, task: next };
    }
  };

  const runner = createLeasedRunner<BackupTask>({
    name: "backup-tasks",
    database,
    tasks: backupTasks,
    parallelMax: PARALLEL_MAX,
    clock,
    log,
    run: runSteps,
    // Soon, where the database is there.
    onUnwritten: async ({ id, subjectId: backup }, error, owner) => {
      log.error("a step of a backup could not be written", { backup, error });
      await postpone(id, owner, UNWRITTEN_RETRY_MS, { failingSinceMs: null, attempts: 0 }).catch((thrown: unknown) =>
        log.warn("a task could not be put back", { task: id, reason: messageOf(thrown) }),
      );
    },
  });

  return {
    wake: () => runner.wake(),
    worker: runner.worker,
    [Symbol.asyncDispose]: () => {
      stop.abort();
      return runner.quiet();
    },
  };
};
