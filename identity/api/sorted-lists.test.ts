import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestAdministrator, type TestAdministrator } from "../test-administrator.ts";
import { at, listAt } from "../test-client.ts";

let service: TestAdministrator;

beforeAll(async () => {
  service = await startTestAdministrator();
});
afterAll(() => service[Symbol.asyncDispose]());

const idsOf = async (path: string): Promise<unknown[]> =>
  listAt(await service.asAdmin("GET", path), "regions").map(({ id }) => id);

/** All pages of one region each. */
const pagesOf = async (query: string): Promise<unknown[]> => {
  const found: unknown[] = [];
  for (let path: string | undefined = `/regions?${query}&limit=1`; path !== undefined; ) {
    const page = await service.asAdmin("GET", path);
    found.push(...listAt(page, "regions").map(({ id }) => id));
    const next = at(page, "links.next");
    path = typeof next === "string" ? next.replace(/^.*\/v3/, "") : undefined;
    if (found.length > 20) throw new Error("pages without end");
  }
  return found;
};

test("a list that is sorted by what some of it have not is whole in pages too, with those first or last", async () => {
  for (const id of ["a", "b"]) await service.asAdmin("PUT", `/regions/${id}`, { region: {} });
  for (const [id, parent] of Object.entries({ c: "b", d: "a", e: "b" })) {
    await service.asAdmin("PUT", `/regions/${id}`, { region: { parent_region_id: parent } });
  }
  const ascending = await idsOf("/regions?sort_key=parent_region_id");
  expect(new Set(ascending.slice(0, 3))).toEqual(new Set(["RegionOne", "a", "b"]));
  expect(ascending.slice(3)).toEqual(["d", "c", "e"]);
  expect(await pagesOf("sort_key=parent_region_id")).toEqual(ascending);
  expect(await idsOf("/regions?sort_key=parent_region_id&sort_dir=desc")).toEqual(ascending.toReversed());
  expect(await pagesOf("sort_key=parent_region_id&sort_dir=desc")).toEqual(ascending.toReversed());
  expect(await idsOf("/regions?sort_key=parent_region_id&limit=1&marker=nowhere")).toEqual([]);
});

test("names are sorted by their letters' codes, whatever language the database speaks", async () => {
  const names = ["Zoe", "anna", "Émile", "Anton", "anna b", "anna-a"];
  const domainId = await service.create("domain", { name: "sorted" });
  for (const name of names) await service.create("user", { name, domain_id: domainId });
  const list = await service.asAdmin("GET", `/users?domain_id=${domainId}&sort_key=name`);
  expect(listAt(list, "users").map(({ name }) => name)).toEqual(names.toSorted());
});
