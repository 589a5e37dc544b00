import type { Updateable } from "kysely";
import { withTransaction } from "../../common/sql/transaction.ts";
import type { BlockDatabase, BlockTransaction, TasksTable } from "./schema.ts";

/** A task that this process works on. */
export type LeasedTask<Task> = {
  readonly id: number;
  /** What it is about: the tasks of one are done in the order in which they were written. */
  readonly subjectId: string;
  readonly task: Task;
  readonly attempts: number;
  readonly failingSinceMs: number | undefined;
};

/** When a task is tried again, and since when it fails; null: it does not, it waits. */
type Again = {
  readonly notBeforeMs: number;
  readonly failingSinceMs: number | null;
  readonly attempts: number;
};

/** A table of tasks that several processes work on, each task in one of them at a time. */
export type LeasedTasks<Task> = {
  /** As it stands now. */
  of(database: BlockDatabase, id: number): Promise<LeasedTask<Task> | undefined>;
  /** A task that is due, that nobody works on, and that no earlier one of its subject stands before; from now on `owner`'s. */
  claim(database: BlockDatabase, owner: string, nowMs: number, leaseMs: number): Promise<LeasedTask<Task> | undefined>;
  /** Keeps a task for longer. False: it is somebody else's now, or gone. */
  renew(database: BlockDatabase, id: number, owner: string, untilMs: number): Promise<boolean>;
  /** True while `owner` has it: what came of a step is written by nobody else. */
  isOwned(transaction: BlockTransaction, id: number, owner: string): Promise<boolean>;
  /**
   * Whoever does it goes on from `task`, and what failed before does not count any more: the next step, in the transaction with what came of the last
   * one, or how far this one is. False: it is somebody else's now, or gone.
   */
  keep(database: BlockDatabase, id: number, owner: string, task: Task): Promise<boolean>;
  remove(transaction: BlockTransaction, id: number): Promise<void>;
  /** Again at `notBeforeMs`, by whoever comes first. */
  postpone(database: BlockDatabase, id: number, owner: string, again: Again): Promise<void>;
  /** Where this is the only process of the database: what a killed one had is free at once. */
  release(database: BlockDatabase): Promise<void>;
};

type Row = {
  readonly id: number;
  readonly subject_id: string;
  readonly task_json: string;
  readonly attempts: number;
  readonly failing_since_ms: number | null;
};

/** `subject`: the column of what a task is about. `columns`: what of a task stands in columns of its own. */
export const leasedTasks = <Task>(
  name: "tasks" | "backup_tasks",
  subject: "volume_id" | "backup_id",
  columns: (task: Task) => Readonly<Record<string, string>> = () => ({}),
): LeasedTasks<Task> => {
  // All tables of tasks have the columns that are used here.
  const table = name as "tasks";
  const subjectColumn = subject as "volume_id";

  const leased = (row: Row): LeasedTask<Task> => ({
    id: Number(row.id),
    subjectId: row.subject_id,
    // Written by `keep`, and by who enqueues.
    task: JSON.parse(row.task_json) as Task,
    attempts: Number(row.attempts),
    failingSinceMs: row.failing_since_ms ?? undefined,
  });
  const shown = ["id", `${subjectColumn} as subject_id`, "task_json", "attempts", "failing_since_ms"] as const;
  const update = async (
    database: BlockDatabase,
    id: number,
    owner: string,
    values: Updateable<TasksTable>,
  ): Promise<boolean> => {
    const { numUpdatedRows } = await database
      .updateTable(table)
      .set(values)
      .where("id", "=", id)
      .where("owner", "=", owner)
      .executeTakeFirst();
    return numUpdatedRows > 0n;
  };
  const firstDue = (transaction: BlockTransaction, nowMs: number): Promise<Row | undefined> =>
    transaction
      .selectFrom(table)
      .select(shown)
      .where("not_before_ms", "<=", nowMs)
      .where("owned_until_ms", "<=", nowMs)
      .where((where) =>
        where.not(
          where.exists(
            where
              .selectFrom(`${table} as earlier`)
              .select("earlier.id")
              .whereRef(`earlier.${subjectColumn}`, "=", `${table}.${subjectColumn}`)
              .whereRef("earlier.id", "<", `${table}.id`),
          ),
        ),
      )
      .orderBy("not_before_ms")
      .orderBy("id")
      .limit(1)
      .executeTakeFirst();

  return {
    of: async (database, id) => {
      const row = await database.selectFrom(table).select(shown).where("id", "=", id).executeTakeFirst();
      return row && leased(row);
    },
    claim: (database, owner, nowMs, leaseMs) =>
      withTransaction(database, async (transaction) => {
        const row = await firstDue(transaction, nowMs);
        if (row === undefined) return undefined;
        const lease = { owner, owned_until_ms: nowMs + leaseMs };
        await transaction.updateTable(table).set(lease).where("id", "=", row.id).execute();
        return leased(row);
      }),
    renew: (database, id, owner, untilMs) => update(database, id, owner, { owned_until_ms: untilMs }),
    isOwned: async (transaction, id, owner) => {
      const own = transaction.selectFrom(table).select("id").where("id", "=", id).where("owner", "=", owner);
      return (await own.executeTakeFirst()) !== undefined;
    },
    keep: (database, id, owner, task) => {
      const fresh = { task_json: JSON.stringify(task), attempts: 0, failing_since_ms: null };
      return update(database, id, owner, { ...columns(task), ...fresh });
    },
    remove: async (transaction, id) => void (await transaction.deleteFrom(table).where("id", "=", id).execute()),
    postpone: async (database, id, owner, { notBeforeMs, failingSinceMs, attempts }) => {
      const again = { not_before_ms: notBeforeMs, failing_since_ms: failingSinceMs, attempts };
      await update(database, id, owner, { ...again, owner: null, owned_until_ms: 0 });
    },
    release: async (database) =>
      void (await database.updateTable(table).set({ owner: null, owned_until_ms: 0 }).execute()),
  };
};

/** What a task begins with, due at once and nobody's. */
export const newTaskRow = (task: unknown, nowMs: number) => ({
  task_json: JSON.stringify(task),
  attempts: 0,
  failing_since_ms: null,
  not_before_ms: nowMs,
  owner: null,
  owned_until_ms: 0,
});
