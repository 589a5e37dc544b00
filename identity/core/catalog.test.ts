import { expect, test } from "vitest";
import { isRenderable, renderCatalog } from "./catalog.ts";

const rendered = (url: string): string | undefined =>
  renderCatalog(
    [{ id: "s", type: "compute", name: null }],
    [{ id: "e", serviceId: "s", regionId: null, interface: "public", url }],
    { userId: "u", projectId: "p" },
  )[0]?.endpoints[0]?.url;

test("a URL may name the project and the user, in both forms, and a percent sign doubled", () => {
  for (const url of ["http://h", "http://h/$(tenant_id)s/%(user_id)s", "http://h/%(project_id)s/a%%20b"]) {
    expect(isRenderable(url), url).toBe(true);
  }
  expect(rendered("http://h/%(project_id)s/a%%20b")).toBe("http://h/p/a%20b");
});

test("a URL that names anything else, or whose sign stands for nothing, is none that a catalog can say", () => {
  for (const url of ["http://h/%(nonsense)s", "http://h/$(constructor)s", "http://h/a%20b", "http://h/$(project_id)"]) {
    expect(isRenderable(url), url).toBe(false);
  }
});
