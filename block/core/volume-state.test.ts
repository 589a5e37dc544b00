import fc from "fast-check";
import { expect, it } from "vitest";
import {
  ATTACHMENT_STATUSES,
  statusOfAttachments,
  stepVolume,
  VOLUME_STATUSES,
  type VolumeEvent,
  type VolumeState,
  type VolumeStatus,
} from "./volume-state.ts";

const at = (status: VolumeStatus, more: Partial<VolumeState> = {}): VolumeState => ({
  status,
  previousStatus: undefined,
  isMultiattach: false,
  ...more,
});
const after = (state: VolumeState, ...events: readonly VolumeEvent[]): VolumeStatus => {
  let now = state;
  for (const event of events) {
    const step = stepVolume(now, event);
    if (step.kind === "refused") throw new Error(`${event.kind} is refused in ${now.status}`);
    now = step.state;
  }
  return now.status;
};
const isRefused = (status: VolumeStatus, event: VolumeEvent): boolean =>
  stepVolume(at(status), event).kind === "refused";

it("a volume lives from creating to deleting", () => {
  expect(
    after(
      at("creating"),
      { kind: "created" },
      { kind: "reserve" },
      { kind: "connect" },
      { kind: "attachments", statuses: ["attached"] },
      { kind: "begin-detaching" },
      { kind: "attachments", statuses: [] },
      { kind: "delete" },
    ),
  ).toBe("deleting");
});

it("what grows is afterwards what it was, and what failed says so", () => {
  for (const status of ["available", "in-use"] as const) {
    expect(after(at(status), { kind: "extend", mayBeAttached: true }, { kind: "extended" })).toBe(status);
    expect(after(at(status), { kind: "extend", mayBeAttached: true }, { kind: "extend-failed" })).toBe(
      "error_extending",
    );
  }
  expect(isRefused("in-use", { kind: "extend", mayBeAttached: false })).toBe(true);
});

it("only a volume of several users is reserved while it is in use", () => {
  expect(isRefused("in-use", { kind: "reserve" })).toBe(true);
  expect(after(at("in-use", { isMultiattach: true }), { kind: "reserve" })).toBe("reserved");
});

it("the strongest attachment decides, those that failed do not count", () => {
  expect(statusOfAttachments([])).toBe("available");
  expect(statusOfAttachments(["error_attaching", "error_detaching"])).toBe("available");
  expect(statusOfAttachments(["reserved", "attaching"])).toBe("attaching");
  expect(statusOfAttachments(["reserved", "attached", "attaching"])).toBe("in-use");
});

it("no event but force and an administrator's reset leaves a busy status for one at rest", () => {
  const busy: readonly VolumeStatus[] = ["creating", "deleting", "extending"];
  const events: fc.Arbitrary<VolumeEvent> = fc.oneof(
    fc.constantFrom<VolumeEvent>(
      { kind: "reserve" },
      { kind: "legacy-reserve" },
      { kind: "connect" },
      { kind: "legacy-attach" },
      { kind: "begin-detaching" },
      { kind: "roll-detaching" },
      { kind: "legacy-detach" },
      { kind: "delete" },
      { kind: "extend", mayBeAttached: true },
    ),
    fc.record({
      kind: fc.constant("attachments" as const),
      statuses: fc.array(fc.constantFrom(...ATTACHMENT_STATUSES)),
    }),
  );
  fc.assert(
    fc.property(fc.constantFrom(...busy), events, fc.boolean(), (status, event, isMultiattach) => {
      const step = stepVolume(at(status, { isMultiattach }), event);
      expect(step.kind === "refused" || step.state.status === status).toBe(true);
    }),
  );
});

it("a result that comes after the volume was forced elsewhere is refused", () => {
  for (const status of VOLUME_STATUSES) {
    expect(isRefused(status, { kind: "created" })).toBe(status !== "creating");
    expect(isRefused(status, { kind: "extended" })).toBe(status !== "extending");
    expect(isRefused(status, { kind: "delete-failed" })).toBe(status !== "deleting");
  }
});
