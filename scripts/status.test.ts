import { expect, it } from "vitest";
import { keyFilterState } from "./status.ts";

it("tells of a key filter only while it is being made", () => {
  expect(keyFilterState({})).toBe("");
  expect(keyFilterState({ is_key_filter_ready: 1, key_filter_failed_scans: 2 })).toBe("");
  expect(keyFilterState({ is_key_filter_ready: 0, key_filter_scanned_keys: 5000 })).toBe(
    ", key filter not ready (5000 keys scanned)",
  );
  expect(keyFilterState({ is_key_filter_ready: 0, key_filter_scanned_keys: 7, key_filter_failed_scans: 2 })).toBe(
    ", key filter not ready (7 keys scanned, 2 scans failed)",
  );
});
