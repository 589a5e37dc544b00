import { expect, test } from "vitest";
import { concerns, policyFor } from "./policy-association.ts";

const regions = new Map(
  [
    { id: "world", parent_region_id: null },
    { id: "europe", parent_region_id: "world" },
    { id: "loop", parent_region_id: "loop" },
  ].map((region) => [region.id, region]),
);
const endpoint = { id: "e", service_id: "s", region_id: "europe" };
const association = (policy_id: string, place: { endpoint_id?: string; service_id?: string; region_id?: string }) => ({
  policy_id,
  endpoint_id: "",
  service_id: "",
  region_id: "",
  ...place,
});
const OWN = association("own", { endpoint_id: "e" });
const NEAR = association("near", { service_id: "s", region_id: "europe" });
const FAR = association("far", { service_id: "s", region_id: "world" });
const SERVICE = association("service", { service_id: "s" });
const OTHER = association("other", { service_id: "t", region_id: "europe" });

test("an endpoint's own policy goes before its region's, the nearest region's before those above, and the service's is last", () => {
  const all = [OTHER, SERVICE, FAR, NEAR, OWN];
  for (const expected of ["own", "near", "far", "service", undefined]) {
    expect(policyFor(endpoint, all, regions)).toBe(expected);
    all.pop();
  }
});

test("an endpoint without a region has the policy of its service, and a region above itself ends the search", () => {
  expect(policyFor({ ...endpoint, region_id: null }, [NEAR, SERVICE], regions)).toBe("service");
  expect(policyFor({ ...endpoint, region_id: "loop" }, [NEAR], regions)).toBeUndefined();
});

test("an association concerns its endpoint, its service, and in a region the endpoints beneath it", () => {
  for (const one of [OWN, NEAR, FAR, SERVICE]) expect(concerns(one, endpoint, regions)).toBe(true);
  expect(concerns(OTHER, endpoint, regions)).toBe(false);
  expect(concerns(NEAR, { ...endpoint, region_id: "world" }, regions)).toBe(false);
});
