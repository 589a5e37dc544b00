import { expect, it } from "vitest";
import { SNAPSHOT_STATUSES, stepSnapshot } from "./snapshot-state.ts";

it("a snapshot lives from creating to deleting, and is at rest before anything is done to it", () => {
  expect(stepSnapshot("creating", { kind: "created" })).toEqual({ kind: "next", status: "available" });
  expect(stepSnapshot("creating", { kind: "create-failed" })).toEqual({ kind: "next", status: "error" });
  expect(stepSnapshot("available", { kind: "revert" })).toEqual({ kind: "next", status: "restoring" });
  for (const status of SNAPSHOT_STATUSES) {
    const isAtRest = ["available", "error", "error_deleting"].includes(status);
    expect([status, stepSnapshot(status, { kind: "delete" }).kind]).toEqual([status, isAtRest ? "next" : "refused"]);
    expect(stepSnapshot(status, { kind: "force-delete" })).toEqual({ kind: "next", status: "deleting" });
    expect(stepSnapshot(status, { kind: "reset", status: "error" })).toEqual({ kind: "next", status: "error" });
  }
});

it("a result that comes after the snapshot was forced elsewhere is refused", () => {
  for (const status of SNAPSHOT_STATUSES) {
    expect(stepSnapshot(status, { kind: "created" }).kind === "refused").toBe(status !== "creating");
    expect(stepSnapshot(status, { kind: "delete-failed" }).kind === "refused").toBe(status !== "deleting");
    expect(stepSnapshot(status, { kind: "revert-ended" }).kind === "refused").toBe(status !== "restoring");
  }
});
