import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestAdministrator, type TestAdministrator } from "../test-administrator.ts";
import { type Answer, at, listAt } from "../test-client.ts";

let service: TestAdministrator;
let project = "";

beforeAll(async () => {
  service = await startTestAdministrator();
  project = await service.create("project", { name: "tagged", tags: ["red", "blue"] });
});
afterAll(() => service[Symbol.asyncDispose]());

const tags = (method: string, path = "", body?: unknown): Promise<Answer> =>
  service.asAdmin(method, `/projects/${project}/tags${path}`, body);

const names = async (query: string): Promise<unknown[]> =>
  listAt(await service.asAdmin("GET", `/projects?${query}`), "projects")
    .map(({ name }) => String(name))
    .toSorted();

test("tags are listed, replaced, and removed together", async () => {
  const path = `${service.base}/v3/projects/${project}/tags`;
  expect((await tags("GET")).body).toEqual({ tags: ["blue", "red"], links: { self: path } });
  const replaced = await tags("PUT", "", { tags: ["two", " one "] });
  expect([replaced.status, at(replaced, "tags")]).toEqual([200, ["one", "two"]]);
  expect((await tags("DELETE")).status).toBe(204);
  expect(at(await tags("GET"), "tags")).toEqual([]);
  expect((await service.asAdmin("GET", "/projects/nowhere/tags")).status).toBe(404);
});

test("one tag is added once, looked for, and removed", async () => {
  const added = await tags("PUT", "/gr%C3%BCn%20");
  expect([added.status, added.headers.get("location")]).toEqual([
    201,
    `${service.base}/v3/projects/${project}/tags/gr%C3%BCn`,
  ]);
  expect((await tags("PUT", "/gr%C3%BCn")).status).toBe(400);
  expect((await tags("GET", "/gr%C3%BCn")).status).toBe(204);
  expect((await tags("HEAD", "/gr%C3%BCn")).status).toBe(204);
  expect((await tags("DELETE", "/gr%C3%BCn")).status).toBe(204);
  const gone = await tags("DELETE", "/gr%C3%BCn");
  expect([gone.status, at(gone, "error.message")]).toEqual([404, "Could not find project tag: grün."]);
  expect((await tags("GET", "/gr%C3%BCn")).status).toBe(404);
});

test("a tag has 255 characters at most, no comma and no slash, and a project has 80 tags at most", async () => {
  for (const bad of ["a,b", "a/b", "", " ", "x".repeat(256), 5, null]) {
    expect((await tags("PUT", "", { tags: [bad] })).status, String(bad)).toBe(400);
  }
  for (const path of ["/a%2Cb", "/a%2Fb", `/${"x".repeat(256)}`]) expect((await tags("PUT", path)).status).toBe(400);
  const many = Array.from({ length: 81 }, (_, index) => `t${index}`);
  expect((await tags("PUT", "", { tags: many })).status).toBe(400);
  expect((await tags("PUT", "", { tags: many.slice(1) })).status).toBe(200);
  expect((await tags("PUT", "/one-more")).status).toBe(400);
  expect((await tags("PUT", "", { tags: ["a", "a"] })).status).toBe(400);
  expect((await tags("PUT", "", {})).status).toBe(400);
});

test("lists are filtered by tags that must all be there, of which one must be there, and by their opposites", async () => {
  const domain_id = await service.create("domain", { name: "tag filters" });
  for (const [name, own] of [
    ["none", []],
    ["a", ["a"]],
    ["b", ["b"]],
    ["ab", ["a", "b"]],
  ] as const) {
    await service.create("project", { name, domain_id, tags: own });
  }
  const within = (query: string): Promise<unknown[]> => names(`domain_id=${domain_id}&${query}`);
  expect(await within("tags=a")).toEqual(["a", "ab"]);
  expect(await within("tags=a,b")).toEqual(["ab"]);
  expect(await within("tags=a,a")).toEqual(["a", "ab"]);
  expect(await within("tags-any=a,b")).toEqual(["a", "ab", "b"]);
  expect(await within("not-tags=a,b")).toEqual(["a", "b", "none"]);
  expect(await within("not-tags-any=a,b")).toEqual(["none"]);
  expect(await within("tags-any=a,b&not-tags=a,b")).toEqual(["a", "b"]);
  expect(await within("tags=absent")).toEqual([]);
});
