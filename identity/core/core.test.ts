import { expect, test } from "vitest";
import { renderCatalog } from "./catalog.ts";
import { effectiveRoleIds } from "./roles.ts";

test("implied roles are reached through any number of steps, and cycles end", () => {
  const chain = [
    { priorId: "admin", impliedId: "manager" },
    { priorId: "manager", impliedId: "member" },
    { priorId: "member", impliedId: "reader" },
  ];
  expect([...effectiveRoleIds(["admin"], chain)]).toEqual(["admin", "manager", "member", "reader"]);
  expect([...effectiveRoleIds(["member"], chain)]).toEqual(["member", "reader"]);
  expect([...effectiveRoleIds([], chain)]).toEqual([]);
  const cycle = [...chain, { priorId: "reader", impliedId: "admin" }];
  expect(effectiveRoleIds(["reader"], cycle).size).toBe(4);
});

test("a catalog fills in the scope and leaves out what the scope cannot fill", () => {
  const services = [{ id: "s", type: "object-store", name: "swift" }];
  const endpoint = { id: "e", serviceId: "s", regionId: "RegionOne", interface: "public" };
  const urlsOf = (url: string, projectId: string | undefined) =>
    renderCatalog(services, [{ ...endpoint, url }], { userId: "u", projectId })[0]?.endpoints.map((item) => item.url);
  expect(urlsOf("http://h/AUTH_$(project_id)s", "p")).toEqual(["http://h/AUTH_p"]);
  expect(urlsOf("http://h/AUTH_%(tenant_id)s/$(user_id)s", "p")).toEqual(["http://h/AUTH_p/u"]);
  expect(urlsOf("http://h/AUTH_$(project_id)s", undefined)).toEqual([]);
  expect(urlsOf("http://h/$(constructor)s", "p")).toEqual([]);
  expect(urlsOf("http://h/v3", undefined)).toEqual(["http://h/v3"]);
});
