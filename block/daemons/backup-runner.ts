import { randomUUID } from "node:crypto";
import type { Clock } from "../../common/clock.ts";
import { codeOf, messageOf, RingsteadError } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import { withTransaction } from "../../common/sql/transaction.ts";
import { sleep, type Worker } from "../../common/worker.ts";
import { type BackupTask, type BackupTaskEvent, stepBackupTask } from "../backup/core/backup-task.ts";
import { settleBackupOutcome } from "../store/backup-outcomes.ts";
import { isSwept } from "../store/backup-stores.ts";
import { backupTasks } from "../store/backup-tasks.ts";
import type { LeasedTask } from "../store/leased-tasks.ts";
import { type Backup, findBackup } from "../store/backups.ts";
import type { BlockDatabase } from "../store/schema.ts";

/** Backups and restorations at the same time: each has some MiB in memory, and reads or writes as fast as the disk lets it. */
const PARALLEL_MAX = 4;
const LEASE_MS = 30_000;
const RETRY_FIRST_MS = 200;
const RETRY_LAST_MS = 10_000;
/** Nothing waits for a host or for the object store for longer; what copied something meanwhile begins to count anew. */
const GIVE_UP_MS = 300_000;
/** What earlier backups left in a pool is merged within this time, and then there may be room. */
const GIVE_UP_POOL_MS = 60_000;
const LOOK_MS = 500;
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
  const owner = randomUUID();
  const stop = new AbortController();
  const running = new Map<number, Promise<void>>();
  let settledCount = 0;
  let isWoken = false;
  let wakeUp = Promise.withResolvers<void>();

  const wake = (): void => {
    isWoken = true;
    wakeUp.resolve();
    wakeUp = Promise.withResolvers();
  };

  /** Puts the task back, and looks for it when its time has come. */
  const postpone = async (
    id: number,
    waitMs: number,
    counted: { readonly failingSinceMs: number | null; readonly attempts: number },
  ): Promise<void> => {
    await backupTasks.postpone(database, id, owner, { notBeforeMs: clock.nowMs() + waitMs, ...counted });
    setTimeout(wake, waitMs).unref();
  };

  /** What became of the step; undefined where it is to be done again, which is written down then, or left to whoever comes next. */
  const eventOf = async (
    { id, task }: LeasedTask<BackupTask>,
    backup: Backup,
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
      const waitMs = Math.min(RETRY_LAST_MS, RETRY_FIRST_MS * 2 ** Math.min(attempts, 16));
      await postpone(id, waitMs, { failingSinceMs, attempts: attempts + 1 });
      return undefined;
    }
  };

  const later = ({ id }: LeasedTask<BackupTask>): Promise<void> =>
    postpone(id, LATER_MS, { failingSinceMs: null, attempts: 0 });

  /** Writes how the step ended together with the next one. Undefined: there is none now, or the task is somebody else's. */
  const commit = (
    claim: LeasedTask<BackupTask>,
    backup: Backup,
    event: BackupTaskEvent,
  ): Promise<BackupTask | "later" | undefined> =>
    withTransaction(database, async (transaction) => {
      if (!(await backupTasks.isOwned(transaction, claim.id, owner))) return undefined;
      const step = stepBackupTask(claim.task, event);
      if (step.kind === "wait") return "later";
      if (step.kind === "continue") {
        const isEntering = step.task.kind === "create" && step.task.step === "copy";
        if (isEntering && (await isSwept(transaction, backup.store_project_id, clock.nowMs()))) return "later";
        await backupTasks.keep(transaction, claim.id, owner, step.task);
        return step.task;
      }
      await backupTasks.remove(transaction, claim.id);
      const now = await findBackup(transaction, backup.id);
      if (now !== undefined) await settleBackupOutcome(transaction, now, step.outcome, clock.nowMs());
      return undefined;
    });

  const runSteps = async (first: LeasedTask<BackupTask>): Promise<void> => {
    let claim = first;
    for (;;) {
      const backup = await findBackup(database, claim.subjectId);
      if (backup === undefined) return;
      const event = await eventOf(claim, backup);
      if (event === undefined) return;
      if ("reason" in event) log.warn("a step of a backup failed", { backup: backup.id, task: claim.task, ...event });
      const next = await commit(claim, backup, event);
      if (next === "later") return later(claim);
      if (next === undefined) return;
      claim = { ...claim, task: next };
    }
  };

  const run = async (first: LeasedTask<BackupTask>): Promise<void> => {
    const renewal = setInterval(() => {
      backupTasks
        .renew(database, first.id, owner, clock.nowMs() + LEASE_MS)
        .catch((thrown: unknown) =>
          log.warn("a task could not be kept", { task: first.id, reason: messageOf(thrown) }),
        );
    }, LEASE_MS / 3);
    try {
      await runSteps(first);
    } catch (thrown) {
      // It stands there as it was, and is done again: soon where the database is there, else when its lease is over.
      log.error("a step of a backup could not be written", { backup: first.subjectId, error: thrown });
      await postpone(first.id, RETRY_FIRST_MS, { failingSinceMs: null, attempts: 0 }).catch((error: unknown) =>
        log.warn("a task could not be put back", { task: first.id, reason: messageOf(error) }),
      );
    } finally {
      clearInterval(renewal);
      running.delete(first.id);
      settledCount += 1;
      wake();
    }
  };

  return {
    wake,
    worker: {
      name: "backup-tasks",
      status: () => ({ running: running.size, settled: settledCount }),
      work: async () => {
        isWoken = false;
        if (running.size >= PARALLEL_MAX) return "idle";
        const claim = await backupTasks.claim(database, owner, clock.nowMs(), LEASE_MS);
        if (claim === undefined) return "idle";
        running.set(claim.id, run(claim));
        return "busy";
      },
      waitForWork: async (signal) => {
        if (isWoken) return;
        const ended = new AbortController();
        await Promise.race([wakeUp.promise, sleep(LOOK_MS, AbortSignal.any([signal, ended.signal]))]);
        ended.abort();
      },
    },
    [Symbol.asyncDispose]: async () => {
      stop.abort();
      await Promise.all(running.values());
    },
  };
};
