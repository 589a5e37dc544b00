import { randomUUID } from "node:crypto";
import { expect, it } from "vitest";
import { RingsteadError } from "../../common/errors.ts";
import { silentLog } from "../../common/log.ts";
import type { BackupTask } from "../backup/core/backup-task.ts";
import { enqueueBackupTask } from "../store/backup-tasks.ts";
import type { Backup } from "../store/backups.ts";
import { withTransaction } from "../../common/sql/transaction.ts";
import { TestClock, testDatabase } from "../test-database.ts";
import { type BackupTaskWork, createBackupRunner } from "./backup-runner.ts";

const GIVE_UP_MS = 300_000;

const backupRow = (): Backup => ({
  id: randomUUID(),
  project_id: "project",
  user_id: "user",
  store_project_id: "project",
  volume_id: randomUUID(),
  snapshot_id: null,
  base_id: null,
  parent_id: null,
  name: null,
  description: null,
  container: null,
  availability_zone: null,
  volume_notes: null,
  size_gib: 1,
  object_count: 1,
  status: "restoring",
  fail_reason: null,
  data_timestamp_ms: 0,
  created_at_ms: 0,
  updated_at_ms: null,
});

/** A runner with one restoration to do, whose step is `work`. `round` does what is due and waits for its end. */
const running = async (work: BackupTaskWork) => {
  const database = await testDatabase();
  const clock = new TestClock();
  const backup = backupRow();
  await database.insertInto("backups").values(backup).execute();
  const task: BackupTask = { kind: "restore", step: "write", volumeId: randomUUID(), isBlank: true };
  await withTransaction(database, (transaction) => enqueueBackupTask(transaction, backup, task, clock.now));
  const runner = createBackupRunner({ database, work, clock, log: silentLog, giveUpMs: GIVE_UP_MS });
  const round = async (): Promise<void> => {
    const before = Number(runner.worker.status()["settled"]);
    expect(await runner.worker.work(new AbortController().signal)).toBe("busy");
    await expect.poll(() => runner.worker.status()["settled"]).toBe(before + 1);
  };
  const statusOf = async () => (await database.selectFrom("backups").selectAll().executeTakeFirstOrThrow()).fail_reason;
  return { clock, round, statusOf, dispose: () => runner[Symbol.asyncDispose]() };
};

const hiccup = (): never => {
  throw new RingsteadError("object-store-away", "the object store does not answer");
};

it("a restoration that gets on between two hiccups is not given up, however far apart they are, and goes on where it was", async () => {
  const began: (number | undefined)[] = [];
  const work: BackupTaskWork = async (_backup, task, { keep }) => {
    if (task.kind !== "restore" || task.step !== "write") return { kind: "done" };
    const { firstPage } = task;
    began.push(firstPage);
    if (firstPage === 48) return { kind: "done" };
    await keep({ ...task, firstPage: (firstPage ?? 0) + 16 });
    return hiccup();
  };
  const { clock, round, statusOf, dispose } = await running(work);
  for (let attempt = 0; attempt < 4; attempt++) {
    await round();
    clock.now += 2 * GIVE_UP_MS;
  }
  expect(began).toEqual([undefined, 16, 32, 48]);
  expect(await statusOf()).toBeNull();
  await dispose();
});

it("one that gets no further is given up in words once the time is over", async () => {
  const steps: string[] = [];
  const { clock, round, statusOf, dispose } = await running((_backup, task) => {
    steps.push(task.step);
    return task.step === "close" ? Promise.resolve({ kind: "done" }) : hiccup();
  });
  await round();
  clock.now += GIVE_UP_MS;
  await round();
  expect([steps, await statusOf()]).toEqual([["write", "write", "close"], "the object store does not answer"]);
  await dispose();
});
