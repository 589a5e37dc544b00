import fc from "fast-check";
import { expect, test } from "vitest";
import { claimsAssertion } from "./claims-assertion.ts";
import { type Assertion, environmentAssertion, mapIdentity, type MappedIdentity, regexProblem } from "./mapping.ts";
import type { MappingRules } from "./mapping-rules.ts";

const PERSON = environmentAssertion({
  REMOTE_USER: "bob",
  Email: "bob@example.com",
  groups: "staff;developers;guests",
  title: "engineer",
});
const NAMED: MappingRules[number] = { local: [{ user: { name: "{0}" } }], remote: [{ type: "REMOTE_USER" }] };

const mapped = (rules: MappingRules, assertion: Assertion = PERSON): MappedIdentity => {
  const outcome = mapIdentity(rules, assertion);
  if (outcome.kind === "refused") throw new Error(outcome.reason);
  return outcome.identity;
};
const isRefused = (rules: MappingRules, assertion: Assertion = PERSON): boolean =>
  mapIdentity(rules, assertion).kind === "refused";

test("placeholders stand for the remote rules that give values, in their order", () => {
  const rules: MappingRules = [
    {
      local: [{ user: { id: "{0}", name: "{0} <{1}>", email: "{1}" } }],
      remote: [{ type: "REMOTE_USER" }, { type: "title", any_one_of: ["engineer"] }, { type: "Email" }],
    },
  ];
  expect(mapped(rules).user).toEqual({
    type: "ephemeral",
    id: "bob",
    name: "bob <bob@example.com>",
    email: "bob@example.com",
  });
});

test("doubled braces are braces, and a placeholder without a value refuses the login", () => {
  const withName = (name: string): MappingRules => [{ local: [{ user: { name } }], remote: [{ type: "REMOTE_USER" }] }];
  expect(mapped(withName("{{0}} {0} {x}")).user.name).toBe("{0} bob {x}");
  expect(isRefused(withName("{1}"))).toBe(true);
});

test("a rule applies only where all of its remote parts hold", () => {
  const holds = (remote: MappingRules[number]["remote"]): boolean =>
    !isRefused([{ local: [{ user: { name: "x" } }], remote }]);
  expect(holds([{ type: "groups", any_one_of: ["staff", "other"] }])).toBe(true);
  expect(holds([{ type: "groups", any_one_of: ["other"] }])).toBe(false);
  expect(holds([{ type: "groups", any_one_of: ["^dev"], regex: true }])).toBe(true);
  expect(holds([{ type: "groups", any_one_of: ["^ev"], regex: true }])).toBe(false);
  expect(holds([{ type: "groups", not_any_of: ["banned"] }])).toBe(true);
  expect(holds([{ type: "groups", not_any_of: ["guests"] }])).toBe(false);
  expect(holds([{ type: "groups", not_any_of: ["gu.*ts"], regex: true }])).toBe(false);
  expect(holds([{ type: "absent" }])).toBe(false);
  expect(holds([{ type: "absent", not_any_of: ["x"] }])).toBe(false);
  expect(holds([{ type: "REMOTE_USER" }, { type: "absent" }])).toBe(false);
  for (const type of ["__proto__", "constructor", "toString"]) expect(holds([{ type }])).toBe(false);
});

test("white and black lists choose among the values of groups", () => {
  const groups = (rule: object): string[] =>
    mapped([
      NAMED,
      {
        local: [{ groups: "{0}", domain: { id: "default" } }],
        remote: [{ type: "groups", ...rule } as MappingRules[number]["remote"][number]],
      },
    ]).groupNames.map(({ name }) => name);
  expect(groups({})).toEqual(["staff", "developers", "guests"]);
  expect(groups({ whitelist: ["guests", "staff", "x"] })).toEqual(["staff", "guests"]);
  expect(groups({ whitelist: [] })).toEqual([]);
  expect(groups({ blacklist: ["guests"] })).toEqual(["staff", "developers"]);
  expect(groups({ blacklist: ["s$"], regex: true })).toEqual(["staff"]);
  expect(groups({ whitelist: ["s$"], regex: true })).toEqual(["developers", "guests"]);
});

test("groups are given by id, by name with a domain, as lists of either, or with a domain of their own", () => {
  const identity = mapped(
    [
      NAMED,
      {
        local: [
          { group: { id: "g1" } },
          { group: { name: "{0}-people", domain: { name: "Default" } } },
          { group_ids: "{1}" },
          { groups: "team-{1}", domain: { name: "d" } },
          { groups: "{2}" },
        ],
        remote: [{ type: "REMOTE_USER" }, { type: "ids" }, { type: "json" }],
      },
    ],
    new Map([
      ["REMOTE_USER", ["bob"]],
      ["ids", ["g1", "g2"]],
      ["json", ['JSON:{"name": "ops", "domain": {"id": "abc"}}']],
    ]),
  );
  expect(identity.groupIds).toEqual(["g1", "g2"]);
  expect(identity.groupNames).toEqual([
    { name: "bob-people", domain: { name: "Default" } },
    { name: "team-g1", domain: { name: "d" } },
    { name: "team-g2", domain: { name: "d" } },
    { name: "ops", domain: { id: "abc" } },
  ]);
});

test("groups without a domain, and descriptions that are none, refuse the login", () => {
  const rule = (groups: string): MappingRules => [NAMED, { local: [{ groups }], remote: [{ type: "title" }] }];
  for (const groups of [
    "staff",
    "JSON:",
    "JSON:{}",
    'JSON:{"name":"x"}',
    "JSON:null",
    'JSON:{"name":"x","domain":1}',
  ]) {
    expect(isRefused(rule(groups))).toBe(true);
  }
});

test("of several users the first counts, of several lists of projects the last", () => {
  const identity = mapped([
    NAMED,
    { local: [{ user: { name: "second", type: "local" } }], remote: [{ type: "title" }] },
    { local: [{ projects: [{ name: "a", roles: [{ name: "member" }] }] }], remote: [{ type: "title" }] },
    { local: [{ projects: [{ name: "{0}'s", roles: [{ name: "reader" }] }] }], remote: [{ type: "REMOTE_USER" }] },
  ]);
  expect(identity.user).toEqual({ type: "ephemeral", name: "bob" });
  expect(identity.projects).toEqual([{ name: "bob's", roles: ["reader"] }]);
});

test("expressions that could take more than linear time are found when a mapping is stored", () => {
  const problem = (...patterns: string[]) =>
    regexProblem([{ local: [], remote: [{ type: "x", any_one_of: patterns, regex: true }] }]);
  expect(problem("^a+$", "(a+)+$", "[a-z]{1,50}@example\\.com")).toBeUndefined();
  for (const pattern of ["(", "(?=a)", "(?<!a)b", "(a)\\1", "(a{1000}){1000}", "x".repeat(2_000)]) {
    expect(problem(pattern)).toBeDefined();
  }
  expect(problem(...Array.from({ length: 20 }, () => "[a-z]{500}"))).toBeDefined();
  expect(regexProblem([{ local: [], remote: [{ type: "x", any_one_of: ["("], regex: false }] }])).toBeUndefined();
});

test("an expression that ruins a backtracking engine is matched at once", () => {
  const rules: MappingRules = [
    { local: [{ user: { name: "x" } }], remote: [{ type: "a", any_one_of: ["^(a|aa)+$"], regex: true }] },
  ];
  expect(isRefused(rules, new Map([["a", [`${"a".repeat(20_000)}b`]]]))).toBe(true);
}, 2_000);

const names = fc.constantFrom("REMOTE_USER", "groups", "Email", "title", "absent");
const values = fc.array(fc.constantFrom("staff", "guests", "bob", ""), { maxLength: 4 });
const assertions = fc.dictionary(names, values).map((given): Assertion => new Map(Object.entries(given)));

test("any_one_of holds exactly where not_any_of does not, for names that are asserted", () => {
  fc.assert(
    fc.property(assertions, names, values, fc.boolean(), (assertion, type, listed, regex) => {
      fc.pre((assertion.get(type)?.length ?? 0) > 0);
      const rule = (remote: object): MappingRules => [
        {
          local: [{ user: { name: "x" } }],
          remote: [{ type, regex, ...remote } as MappingRules[number]["remote"][number]],
        },
      ];
      expect(isRefused(rule({ any_one_of: listed }), assertion)).toBe(
        !isRefused(rule({ not_any_of: listed }), assertion),
      );
    }),
  );
});

test("white and black list of the same values part what was asserted", () => {
  fc.assert(
    fc.property(values, values, (asserted, listed) => {
      fc.pre(asserted.length > 0);
      const idsOf = (rule: object): readonly string[] =>
        mapped(
          [
            {
              local: [{ group_ids: "{0}" }],
              remote: [{ type: "groups", ...rule } as MappingRules[number]["remote"][number]],
            },
          ],
          new Map([["groups", asserted]]),
        ).groupIds;
      const white = idsOf({ whitelist: listed });
      const black = idsOf({ blacklist: listed });
      expect(new Set([...white, ...black])).toEqual(new Set(asserted));
      expect(white.filter((id) => black.includes(id))).toEqual([]);
    }),
  );
});

test("nothing in an identity comes from elsewhere than the rules' texts and the asserted values", () => {
  fc.assert(
    fc.property(fc.array(fc.string(), { minLength: 1, maxLength: 5 }), (asserted) => {
      const identity = mapped(
        [NAMED, { local: [{ group_ids: "{0}" }], remote: [{ type: "ids" }] }],
        new Map([
          ["REMOTE_USER", ["bob"]],
          ["ids", asserted],
        ]),
      );
      // Braces in values are values.
      expect(identity.groupIds).toEqual([...new Set(asserted)]);
    }),
  );
});

test("claims are found under their own names and those of web servers, nested ones under their paths", () => {
  const assertion = claimsAssertion({
    iss: "https://idp.example",
    sub: "42",
    groups: ["a;b", "c"],
    admin: true,
    level: 3,
    realm_access: { roles: ["x"], deep: { deeper: { deepest: { lost: "y" } } } },
    nothing: null,
    list: [{ a: 1 }, "kept"],
  });
  expect(assertion.get("HTTP_OIDC_ISS")).toEqual(["https://idp.example"]);
  expect(assertion.get("OIDC-groups")).toEqual(["a;b", "c"]);
  expect(assertion.get("OIDC_CLAIM_groups")).toEqual(["a;b", "c"]);
  expect(assertion.get("realm_access.roles")).toEqual(["x"]);
  expect(assertion.get("HTTP_OIDC_REALM_ACCESS_ROLES")).toEqual(["x"]);
  expect(assertion.get("REMOTE_USER")).toEqual(["42"]);
  expect([assertion.get("admin"), assertion.get("level"), assertion.get("list")]).toEqual([["true"], ["3"], ["kept"]]);
  expect(assertion.has("nothing")).toBe(false);
});

test("a claim cannot take the place of another by its name", () => {
  const assertion = claimsAssertion({
    sub: "mallory",
    groups: ["users"],
    Groups: ["admins"],
    HTTP_OIDC_SUB: "root",
    REMOTE_USER: "root",
  });
  expect(assertion.get("groups")).toEqual(["users"]);
  expect(assertion.has("HTTP_OIDC_GROUPS")).toBe(false);
  expect([assertion.get("HTTP_OIDC_SUB"), assertion.get("REMOTE_USER")]).toEqual([["mallory"], ["mallory"]]);
});
