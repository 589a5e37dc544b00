import { expect, test } from "vitest";
import { RingsteadError } from "../common/errors.ts";
import type { ReplicaReport } from "../storage-node/daemons/scrubber-operations.ts";
import { judge, spaceOf } from "./explain.ts";

const ONE = "1".padStart(48, "0");
const TWO = "2".padStart(48, "0");

type Given = Parameters<typeof judge>[0][number];

const replica = (device: string, changes: Partial<ReplicaReport> = {}): Given => {
  const whole = {
    isVoting: true,
    state: "confirmed",
    version: ONE,
    ballot: ONE,
    bodyKind: "log",
    body: "unread",
  } as const;
  return { device, report: { ...whole, events: [], ...changes }, error: undefined };
};
const away = (device: string): Given => ({ device, report: undefined, error: "it is down" });
const absent = (device: string): Given => ({
  device,
  report: { isVoting: true, state: "absent", events: [] },
  error: undefined,
});

test("a name is taken apart into account, container and object, which may have slashes", () => {
  expect(spaceOf("/a")).toEqual({ space: "account", parts: ["a"] });
  expect(spaceOf("/a/c")).toEqual({ space: "container", parts: ["a", "c"] });
  expect(spaceOf("/a/c/o/with/slashes//")).toEqual({ space: "object", parts: ["a", "c", "o/with/slashes//"] });
  for (const path of ["", "/", "a/c", "//c", "/a/", "/a//o", "/a/c/"])
    expect(() => spaceOf(path), path).toThrow(RingsteadError);
});

test("all is well only where every replica answers, votes, and holds the same version whole", () => {
  expect(judge([replica("d1"), replica("d2"), replica("d3")])).toEqual({
    verdict: "3 of 3 replicas hold its version",
    isWell: true,
  });
  expect(judge([replica("d1"), replica("d2"), away("d3")])).toEqual({
    verdict: "1 of 3 replicas cannot be asked; 2 of 3 replicas hold its version",
    isWell: false,
  });
  expect(judge([replica("d1"), replica("d2"), replica("d3", { body: "damaged" })])).toEqual({
    verdict: "3 of 3 replicas hold its version; d3 is damaged: it is served from the others, and healed from them",
    isWell: false,
  });
  expect(judge([absent("d1"), absent("d2"), absent("d3")])).toMatchObject({
    verdict: expect.stringContaining("no replica has it"),
    isWell: true,
  });
});

test("a replica that lags, one without a vote, a version without a quorum and a name without enough replicas are each told", () => {
  expect(
    judge([replica("d1", { version: TWO, ballot: TWO }), replica("d2", { version: TWO, ballot: TWO }), replica("d3")]),
  ).toEqual({
    verdict: "2 of 3 replicas hold its version; d3 has another state and is brought up by repair",
    isWell: false,
  });
  expect(
    judge([
      replica("d1"),
      replica("d2"),
      { ...absent("d3"), report: { isVoting: false, state: "absent", events: [] } },
    ]),
  ).toMatchObject({
    verdict: expect.stringContaining("d3 does not vote here"),
    isWell: false,
  });
  expect(judge([replica("d1", { version: TWO, ballot: TWO }), replica("d2"), replica("d3")])).toMatchObject({
    verdict: expect.stringContaining("no version is at a quorum"),
    isWell: false,
  });
  expect(judge([replica("d1"), away("d2"), away("d3")])).toMatchObject({
    verdict: expect.stringContaining("requests for this name get 503"),
    isWell: false,
  });
  expect(
    judge(
      [replica("d1"), replica("d2"), replica("d3")].map((one) => ({
        ...one,
        report: { isVoting: true, state: "damaged" as const, events: [] },
      })),
    ),
  ).toMatchObject({
    isWell: false,
  });
});

test("a deletion and a version that never took effect are told as what a client reads", () => {
  const all = (changes: Partial<ReplicaReport>) => judge(["d1", "d2", "d3"].map((device) => replica(device, changes)));
  expect(all({ isTombstone: true }).verdict).toBe("it is deleted");
  expect(all({ state: "void" }).verdict).toMatch(/never took effect/);
});
