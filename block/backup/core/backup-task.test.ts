import { expect, test } from "vitest";
import { BACKUP_STATUSES, stepBackup } from "./backup-state.ts";
import { type BackupTask, type BackupTaskEvent, stepBackupTask } from "./backup-task.ts";

const DONE: BackupTaskEvent = { kind: "done" };

/** The steps that a task takes when they end with these events, and how it ends. */
const walk = (first: BackupTask, events: readonly BackupTaskEvent[]): readonly string[] => {
  const steps: string[] = [first.step];
  let task = first;
  for (const event of events) {
    const step = stepBackupTask(task, event);
    if (step.kind === "end") return [...steps, `(${step.outcome.kind})`];
    if (step.kind === "wait") steps.push("wait");
    else {
      task = step.task;
      steps.push(task.step);
    }
  }
  return steps;
};

const failed: BackupTaskEvent = { kind: "given-up", reason: "why" };
const create: BackupTask = { kind: "create", step: "freeze" };
const restore: BackupTask = { kind: "restore", step: "await", volumeId: "v", isBlank: true };

test("tasks go as drawn", () => {
  const all = [DONE, DONE, DONE, DONE, DONE];
  expect(walk(create, all)).toEqual(["freeze", "enter", "copy", "seal", "tidy", "(created)"]);
  expect(walk(restore, all)).toEqual(["await", "check", "write", "finish", "(restored)"]);
  expect(walk({ kind: "delete", step: "unlink" }, all)).toEqual(["unlink", "(gone)"]);
});

test("whatever fails before a backup is there is undone, and what fails after it does not take it away", () => {
  expect(walk(create, [DONE, DONE, failed, DONE])).toEqual(["freeze", "enter", "copy", "undo", "(create-failed)"]);
  expect(walk(create, [failed, failed])).toEqual(["freeze", "undo", "(create-failed)"]);
  expect(walk(create, [DONE, DONE, DONE, DONE, failed])).toEqual([
    "freeze",
    "enter",
    "copy",
    "seal",
    "tidy",
    "(created)",
  ]);
  expect(walk(restore, [DONE, DONE, failed, failed])).toEqual(["await", "check", "write", "close", "(restore-failed)"]);
  expect(walk({ kind: "delete", step: "unlink" }, [failed])).toEqual(["unlink", "(delete-failed)"]);
});

test("a volume that may be used before it is filled is opened, and the backup is kept until it is filled", () => {
  const lazy: BackupTask = { ...restore, restorationId: "r" };
  const opened = { kind: "opened", backend: "host@lvm#lvm" } as const;
  const [later, silent] = [{ kind: "later" } as const, { kind: "given-up", reason: "silent" } as const];
  expect(walk(lazy, [DONE, DONE, opened, later, silent, DONE])).toEqual(
    "await check open fill wait wait (filled)".split(" "),
  );
  expect(walk(lazy, [DONE, DONE, { kind: "no-room" }, DONE, DONE])).toEqual(
    "await check open write finish (restored)".split(" "),
  );
  const damaged = { kind: "refused", reason: "a chunk is missing" } as const;
  expect(walk(lazy, [DONE, DONE, opened, damaged])).toEqual(["await", "check", "open", "fill", "(fill-failed)"]);
  const superseded: BackupTask = { ...lazy, step: "fill", backend: "host@lvm#lvm", isSuperseded: true };
  expect(stepBackupTask(superseded, damaged)).toEqual({
    kind: "end",
    outcome: { kind: "fill-failed", volumeId: undefined, reason: "a chunk is missing" },
  });
  expect(walk(lazy, [DONE, DONE, failed, DONE])).toEqual(["await", "check", "open", "close", "(restore-failed)"]);
  expect(stepBackupTask({ ...lazy, step: "open" }, opened)).toMatchObject({
    kind: "continue",
    task: { step: "fill", backend: "host@lvm#lvm", restorationId: "r" },
    outcome: { kind: "opened", volumeId: lazy.volumeId },
  });
});

test("who waits stays where he is", () => {
  expect(walk(restore, [{ kind: "later" }, { kind: "later" }, DONE])).toEqual(["await", "wait", "wait", "check"]);
});

test("no status has a way out that was not drawn, and every failed one can be deleted", () => {
  const kinds = ["created", "create-failed", "restore", "restore-ended", "delete", "delete-failed"] as const;
  const ways = BACKUP_STATUSES.flatMap((status) =>
    kinds.flatMap((kind) => {
      const step = stepBackup(status, { kind });
      return step.kind === "next" ? [`${status} ${kind} ${step.status}`] : [];
    }),
  );
  expect(ways).toEqual([
    "creating created available",
    "creating create-failed error",
    "available restore restoring",
    "available delete deleting",
    "restoring restore-ended available",
    "deleting delete-failed error_deleting",
    "error delete deleting",
    "error_deleting delete deleting",
  ]);
});
