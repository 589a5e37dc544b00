import { expect, test } from "vitest";
import { isRenderable, offeredCatalog, renderCatalog } from "./catalog.ts";

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

test("a catalog's text says what the catalog says, for each user and project, whatever their ids are made of", () => {
  const services = [
    { id: "s", type: "compute", name: null },
    { id: "t", type: "object-store", name: 'a "name"' },
  ];
  const endpoint = { regionId: "R", interface: "public" };
  const offered = offeredCatalog(
    services,
    [
      { ...endpoint, id: "1", serviceId: "s", url: "http://h/$(project_id)s/%(tenant_id)s/%(user_id)s" },
      { ...endpoint, id: "2", serviceId: "t", url: "http://h/%(user_id)s" },
      { ...endpoint, id: "3", serviceId: "t", url: "http://h/<user>/$&" },
    ],
    { userId: "<user mark>", projectId: "<project mark>" },
  );
  const ids = ["u", 'quoted " and \\', "$&$1", "\u{1F600}", "<project", "constructor"];
  for (const userId of ids) {
    for (const projectId of [...ids, undefined]) {
      const scope = { userId, projectId };
      expect(JSON.parse(offered.text(scope))).toEqual(offered.render(scope));
    }
  }
  expect(offered.text({ userId: "u", projectId: "p" })).toContain("http://h/p/p/u");
  expect(offered.text({ userId: "u", projectId: undefined })).not.toContain("http://h/p");
});
