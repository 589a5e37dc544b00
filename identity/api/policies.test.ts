import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestAdministrator, type TestAdministrator } from "../test-administrator.ts";
import { type Answer, at, listAt, textAt } from "../test-client.ts";

let service: TestAdministrator;
let computeId = "";
let endpointId = "";

beforeAll(async () => {
  service = await startTestAdministrator();
  await service.create("region", { id: "world" });
  await service.create("region", { id: "europe", parent_region_id: "world" });
  computeId = await service.create("service", { type: "compute" });
  const endpoint = { service_id: computeId, interface: "public", url: "http://h", region_id: "europe" };
  endpointId = await service.create("endpoint", endpoint);
});
afterAll(() => service[Symbol.asyncDispose]());

const asAdmin = (method: string, path: string, body?: unknown): Promise<Answer> => service.asAdmin(method, path, body);
const createPolicy = (blob: string): Promise<string> => service.create("policy", { type: "application/json", blob });
const policyOfEndpoint = async (): Promise<unknown> =>
  at(await asAdmin("GET", `/endpoints/${endpointId}/OS-ENDPOINT-POLICY/policy`), "policy.id");

test("a policy is kept as it was given, changed in parts, found by its type, and removed", async () => {
  const made = await asAdmin("POST", "/policies", { policy: { type: "text/plain", blob: "b", further: "kept" } });
  const id = textAt(made, "policy.id");
  const policy = {
    id,
    type: "text/plain",
    blob: "b",
    further: "kept",
    links: { self: `${service.base}/v3/policies/${id}` },
  };
  expect([made.status, made.body]).toEqual([201, { policy }]);
  expect((await asAdmin("PATCH", `/policies/${id}`, { policy: { blob: "" } })).body).toEqual({
    policy: { ...policy, blob: "" },
  });
  expect(listAt(await asAdmin("GET", "/policies?type=text/plain"), "policies")).toHaveLength(1);
  expect(listAt(await asAdmin("GET", "/policies?type=other"), "policies")).toEqual([]);
  expect((await asAdmin("DELETE", `/policies/${id}`)).status).toBe(204);
  expect((await asAdmin("GET", `/policies/${id}`)).status).toBe(404);
  for (const fields of [{ type: "t" }, { blob: "b" }, { type: "t", blob: {} }, { type: "x".repeat(256), blob: "b" }]) {
    expect((await asAdmin("POST", "/policies", { policy: fields })).status, JSON.stringify(fields)).toBe(400);
  }
});

test("an endpoint has the policy of the closest association; a newer policy takes a place over", async () => {
  const [own, near, far, general] = await Promise.all(["own", "near", "far", "general"].map(createPolicy));
  const none = await asAdmin("GET", `/endpoints/${endpointId}/OS-ENDPOINT-POLICY/policy`);
  expect([none.status, at(none, "error.message")]).toEqual([
    404,
    `No policy is associated with endpoint ${endpointId}.`,
  ]);
  const places = [
    [general, `services/${computeId}`],
    [far, `services/${computeId}/regions/world`],
    [near, `services/${computeId}/regions/europe`],
    [own, `endpoints/${endpointId}`],
  ] as const;
  for (const [policy, place] of places) {
    const path = `/policies/${policy}/OS-ENDPOINT-POLICY/${place}`;
    expect((await asAdmin("GET", path)).status).toBe(404);
    expect((await asAdmin("PUT", path)).status).toBe(204);
    expect((await asAdmin("PUT", path)).status).toBe(204);
    expect((await asAdmin("GET", path)).status).toBe(204);
    expect(await policyOfEndpoint(), place).toBe(policy);
    const concerned = await asAdmin("GET", `/policies/${policy}/OS-ENDPOINT-POLICY/endpoints`);
    expect(listAt(concerned, "endpoints")).toMatchObject([{ id: endpointId, region: "europe" }]);
  }
  expect((await asAdmin("PUT", `/policies/${general}/OS-ENDPOINT-POLICY/endpoints/${endpointId}`)).status).toBe(204);
  expect(await policyOfEndpoint()).toBe(general);
  expect((await asAdmin("GET", `/policies/${own}/OS-ENDPOINT-POLICY/endpoints/${endpointId}`)).status).toBe(404);
  for (let times = 0; times < 2; times += 1) {
    const path = `/policies/${general}/OS-ENDPOINT-POLICY/endpoints/${endpointId}`;
    expect((await asAdmin("DELETE", path)).status).toBe(204);
  }
  expect(await policyOfEndpoint()).toBe(near);
  expect((await asAdmin("DELETE", `/policies/${near}`)).status).toBe(204);
  expect(await policyOfEndpoint()).toBe(far);
});

test("an association needs its policy, endpoint, service and region, and goes with its endpoint or service", async () => {
  const policy = await createPolicy("p");
  for (const path of [
    `/policies/nowhere/OS-ENDPOINT-POLICY/services/${computeId}`,
    `/policies/${policy}/OS-ENDPOINT-POLICY/services/nowhere`,
    `/policies/${policy}/OS-ENDPOINT-POLICY/endpoints/nowhere`,
    `/policies/${policy}/OS-ENDPOINT-POLICY/services/${computeId}/regions/nowhere`,
  ]) {
    for (const method of ["GET", "PUT", "DELETE"]) expect((await asAdmin(method, path)).status, path).toBe(404);
  }
  const leaving = await service.create("service", { type: "leaving" });
  const endpoint = await service.create("endpoint", { service_id: leaving, interface: "public", url: "http://l" });
  await asAdmin("PUT", `/policies/${policy}/OS-ENDPOINT-POLICY/endpoints/${endpoint}`);
  await asAdmin("PUT", `/policies/${policy}/OS-ENDPOINT-POLICY/services/${leaving}`);
  const associated = async () =>
    listAt(await asAdmin("GET", `/policies/${policy}/OS-ENDPOINT-POLICY/endpoints`), "endpoints").length;
  expect(await associated()).toBe(1);
  expect((await asAdmin("DELETE", `/services/${leaving}`)).status).toBe(204);
  expect(await associated()).toBe(0);
});
