import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { tryMapping } from "./mapping-test.ts";

const folder = mkdtempSync(join(tmpdir(), "ringstead-mapping-"));

afterAll(() => rmSync(folder, { recursive: true }));

const file = (name: string, content: string): string => {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
};

const rules = [
  {
    local: [{ user: { name: "{0}" } }, { group: { id: "crew" } }],
    remote: [{ type: "email" }, { type: "groups", any_one_of: ["admins"] }],
  },
];

test("claims and lines of an environment are mapped alike", () => {
  const path = file("rules.json", JSON.stringify({ rules }));
  const outcome = { kind: "mapped", identity: { user: { name: "ada@example.org" }, groupIds: ["crew"] } };
  const claims = JSON.stringify({ sub: "1", email: "ada@example.org", groups: ["admins"] });
  expect(tryMapping(path, file("claims.json", claims))).toMatchObject(outcome);
  expect(tryMapping(path, file("lines", "email: ada@example.org\ngroups: admins;others\n"))).toMatchObject(outcome);
  expect(tryMapping(path, file("stranger", "email: eve@example.org\n")).kind).toBe("refused");
});

test("files that are not understood are refused with their names", () => {
  const input = file("input", "email: a\n");
  expect(() => tryMapping(join(folder, "absent"), input)).toThrow("cannot be read");
  expect(() => tryMapping(file("broken", "{"), input)).toThrow("is not JSON");
  expect(() => tryMapping(file("other", '{"rules": [{}]}'), input)).toThrow("other");
  const regex = [{ local: [{}], remote: [{ type: "a", any_one_of: ["(?=x)"], regex: true }] }];
  expect(() => tryMapping(file("regex", JSON.stringify(regex)), input)).toThrow("linear time");
});
