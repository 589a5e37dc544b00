import fc from "fast-check";
import { expect, it } from "vitest";
import { GROUP_STATUSES, statusOfParts } from "./group-state.ts";

const PARTS = ["creating", "available", "in-use", "deleting", "error", "error_deleting"] as const;

it("a group that is being made is available once all its volumes are, and in error once none is being made any more", () => {
  expect(statusOfParts("creating", ["creating", "available"])).toBe("creating");
  expect(statusOfParts("creating", ["creating", "error"])).toBe("creating");
  expect(statusOfParts("creating", ["available", "error"])).toBe("error");
  expect(statusOfParts("creating", ["available", "in-use"])).toBe("available");
});

it("a group that is being deleted goes with its last volume, and says so when one did not go", () => {
  expect(statusOfParts("deleting", ["deleting", "error_deleting"])).toBe("deleting");
  expect(statusOfParts("deleting", ["error_deleting"])).toBe("error_deleting");
  expect(statusOfParts("deleting", [])).toBeUndefined();
});

it("a group at rest is what it is, whatever its volumes do, and a busy one does not stay so when they are at rest", () => {
  fc.assert(
    fc.property(fc.constantFrom(...GROUP_STATUSES), fc.array(fc.constantFrom(...PARTS)), (whole, parts) => {
      const status = statusOfParts(whole, parts);
      const isBusy = parts.includes("creating") || parts.includes("deleting");
      if (whole !== "creating" && whole !== "deleting") expect(status).toBe(whole);
      else if (!isBusy && parts.every((part) => part !== "available" && part !== "in-use" && part !== "error"))
        expect(status).not.toBe(whole);
    }),
  );
});
