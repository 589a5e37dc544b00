import { expect, test } from "vitest";
import type { Shared } from "./script.ts";
import { SharedTasks } from "./shared-tasks.ts";

const tasksOf = () => {
  const tasks = new SharedTasks();
  const begun: PromiseWithResolvers<Shared>[] = [];
  const ask = (role: "join" | "lead", key = "c") =>
    tasks.do(key, role, () => {
      const task = Promise.withResolvers<Shared>();
      begun.push(task);
      return task.promise;
    });
  return { ask, begun };
};

test("whoever asks while a task is under way joins it, and begins anew once it is over", async () => {
  const { ask, begun } = tasksOf();
  const answers = [ask("join"), ask("join"), ask("join", "another")];
  expect(begun.length).toBe(2);
  begun[0]?.resolve("absent");
  begun[1]?.resolve("unavailable");
  expect((await Promise.all(answers)).map(({ found }) => found)).toEqual(["absent", "absent", "unavailable"]);
  void ask("join");
  expect(begun.length).toBe(3);
});

test("who leads does its own task, and others join that one from then on, also when the one before is over", async () => {
  const { ask, begun } = tasksOf();
  const [early, leading, joined] = [ask("join"), ask("lead"), ask("join")];
  expect(begun.length).toBe(2);
  begun[0]?.resolve("absent");
  expect((await early).found).toBe("absent");
  const late = ask("join");
  begun[1]?.resolve("no-space");
  expect((await Promise.all([leading, joined, late])).map(({ found }) => found)).toEqual(Array(3).fill("no-space"));
  expect(begun.length).toBe(2);
});

test("all who joined are told of a failure, and the next one begins anew", async () => {
  const { ask, begun } = tasksOf();
  const answers = Promise.allSettled([ask("join"), ask("join")]);
  begun[0]?.reject(new Error("gone"));
  expect((await answers).map(({ status }) => status)).toEqual(["rejected", "rejected"]);
  void ask("join");
  expect(begun.length).toBe(2);
});
