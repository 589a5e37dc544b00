import fc from "fast-check";
import { expect, test } from "vitest";
import {
  createPolicyEngine,
  loadPolicy,
  MAX_RULE_DEPTH,
  MAX_RULE_LEAVES,
  type PolicyCredentials,
  type PolicyRule,
  type PolicyTarget,
} from "./policy-engine.ts";

const rule = (name: string, check: string, scopes?: PolicyRule["scopes"]): PolicyRule => ({
  name,
  check,
  description: name,
  ...(scopes === undefined ? {} : { scopes }),
});

/** Whether a single check allows. */
const decide = (check: string, credentials: Partial<PolicyCredentials>, target: PolicyTarget = {}): boolean =>
  createPolicyEngine([rule("x", check)]).allows("x", { roles: [], ...credentials }, target);

test("always and never are what they say, and the empty check allows", () => {
  expect([decide("@", {}), decide("!", {}), decide("", {})]).toEqual([true, false, true]);
});

test("roles are compared without their case, on both sides", () => {
  expect(decide("role:ADMIN", { roles: ["reader", "Admin"] })).toBe(true);
  expect(decide("role:admin", { roles: ["administrator", "bdmin", "admi", "[dmin"] })).toBe(false);
  expect(decide("role:a@[z", { roles: ["A@[Z"] })).toBe(true);
  expect(decide("role:a@[z", { roles: ["a`{z"] })).toBe(false);
  expect(decide("role:İÄRZTE", { roles: ["İärzte"] })).toBe(true);
  expect(decide("role:%(target.role.name)s", { roles: ["Auditor"] }, { "target.role.name": "auditor" })).toBe(true);
  expect(decide("role:%(target.role.name)s", { roles: ["None", "undefined"] }, { "target.role.name": null })).toBe(
    false,
  );
  expect(decide("role:%(target.role.name)s", { roles: ["None", "undefined"] })).toBe(false);
});

test("not, and, or and parentheses decide as they are bound", () => {
  fc.assert(
    fc.property(fc.boolean(), fc.boolean(), fc.boolean(), (a, b, c) => {
      const roles = [a ? "a" : "", b ? "b" : "", c ? "c" : ""];
      expect(decide("role:a or role:b and not role:c", { roles })).toBe(a || (b && !c));
      expect(decide("(role:a or role:b) and not role:c", { roles })).toBe((a || b) && !c);
      expect(decide("not (role:a or role:b and role:c)", { roles })).toBe(!(a || (b && c)));
      expect(decide("not role:a or role:b", { roles })).toBe(!a || b);
    }),
  );
});

test("a target's key is found under its flat name and nested", () => {
  const check = "domain_id:%(target.user.domain_id)s";
  expect(decide(check, { domain_id: "d" }, { "target.user.domain_id": "d" })).toBe(true);
  expect(decide(check, { domain_id: "d" }, { target: { user: { domain_id: "d" } } })).toBe(true);
  expect(
    decide(check, { domain_id: "d" }, { "target.user.domain_id": "e", target: { user: { domain_id: "d" } } }),
  ).toBe(false);
  expect(decide(check, { domain_id: "d" }, { target: { user: "d" } })).toBe(false);
  expect(decide("user_id:%(user_id)s", { user_id: "u" }, { user_id: "u" })).toBe(true);
});

test("a credential is found under its flat name, nested, and in lists", () => {
  const check = "token.user.id:%(user_id)s";
  expect(decide(check, { token: { user: { id: "u" } } }, { user_id: "u" })).toBe(true);
  expect(decide(check, { "token.user.id": "u" }, { user_id: "u" })).toBe(true);
  expect(decide(check, { token: { user: { id: "v" } } }, { user_id: "u" })).toBe(false);
  expect(decide("groups.id:g2", { groups: [{ id: "g1" }, { id: "g2" }] })).toBe(true);
  expect(decide("groups.id:g3", { groups: [{ id: "g1" }, { id: "g2" }] })).toBe(false);
});

test("what is absent on either side equals nothing, null neither", () => {
  const check = "domain_id:%(target.role.domain_id)s";
  for (const domain of [{}, { domain_id: null }, { domain_id: undefined }, { domain_id: "None" }]) {
    for (const role of [{}, { "target.role.domain_id": null }, { "target.role.domain_id": undefined }]) {
      expect(decide(check, domain, role)).toBe(false);
    }
    expect(decide(check, domain, { "target.role.domain_id": "undefined" })).toBe(false);
  }
});

test("None on the left finds a target that is null, not one that is absent", () => {
  expect(decide("None:%(target.role.domain_id)s", {}, { "target.role.domain_id": null })).toBe(true);
  expect(decide("None:%(target.role.domain_id)s", {}, { target: { role: { domain_id: null } } })).toBe(true);
  expect(decide("None:%(target.role.domain_id)s", {})).toBe(false);
  expect(decide("None:%(target.role.domain_id)s", {}, { "target.role.domain_id": "d" })).toBe(false);
});

test("None on the right finds a credential without a value, also one that was left out", () => {
  expect([{}, { domain_id: null }, { domain_id: "d" }].map((has) => decide("domain_id:None", has))).toEqual([
    true,
    true,
    false,
  ]);
  expect([{}, { domain_id: null }, { domain_id: "d" }].map((has) => decide("not domain_id:None", has))).toEqual([
    false,
    false,
    true,
  ]);
});

test("literals are compared with the target as Python prints it", () => {
  expect(decide("'member':%(target.role.name)s", {}, { "target.role.name": "member" })).toBe(true);
  expect(decide("'member':%(target.role.name)s", {}, { "target.role.name": "Member" })).toBe(false);
  expect(decide("True:%(user.enabled)s", {}, { user: { enabled: true } })).toBe(true);
  expect(decide("True:%(user.enabled)s", {}, { user: { enabled: false } })).toBe(false);
  expect(decide("20:%(size)s", {}, { size: 20 })).toBe(true);
  expect(decide("is_admin:True", { is_admin: true })).toBe(true);
  expect(decide("is_admin:1", { is_admin: true })).toBe(false);
  expect(decide("system_scope:all", { system_scope: "all" })).toBe(true);
  expect(decide("system_scope:all", {})).toBe(false);
});

test("text around keys is part of what is compared", () => {
  const check = "path:/%(a)s/%(b)s";
  expect(decide(check, { path: "/1/x" }, { a: 1, b: "x" })).toBe(true);
  expect(decide(check, { path: "/1/" }, { a: 1 })).toBe(false);
  expect(decide("share:5%%", { share: "5%" })).toBe(true);
});

test("names of what objects inherit name nothing", () => {
  for (const name of ["__proto__", "constructor", "toString", "a.__proto__", "a.constructor.name"]) {
    expect(decide(`${name}:%(${name})s`, { a: {} }, { a: {} })).toBe(false);
    expect(decide(`None:%(${name})s`, {}, { a: {} })).toBe(false);
    expect(decide(`${name}:Object`, { a: {} })).toBe(false);
  }
  const hostile = JSON.parse('{"__proto__":{"user_id":"u"},"constructor":"c"}') as PolicyTarget;
  expect(decide("user_id:%(user_id)s", { user_id: "u" }, hostile)).toBe(false);
  expect(decide("'c':%(constructor)s", {}, hostile)).toBe(true);
  expect(() => createPolicyEngine([]).allows("constructor", { roles: [] }, {})).toThrow("no policy rule");
  expect(() => createPolicyEngine([rule("x", "rule:__proto__")])).toThrow("x: there is no rule __proto__");
});

test("rules refer to each other, in any order", () => {
  const engine = createPolicyEngine([
    rule("get", "rule:admin_or_owner"),
    rule("admin_or_owner", "rule:admin or user_id:%(user_id)s"),
    rule("admin", "role:admin"),
  ]);
  expect(engine.allows("get", { roles: ["admin"] }, {})).toBe(true);
  expect(engine.allows("get", { roles: [], user_id: "u" }, { user_id: "u" })).toBe(true);
  expect(engine.allows("get", { roles: [], user_id: "u" }, { user_id: "v" })).toBe(false);
});

test("an override takes the place of a check, also for the rules that refer to it, and keeps the scopes", () => {
  const defaults = [rule("admin", "role:admin"), rule("get", "rule:admin", ["system"])];
  const engine = createPolicyEngine(defaults, new Map([["admin", "role:boss"]]));
  expect(engine.allows("get", { roles: ["boss"], system_scope: "all" }, {})).toBe(true);
  expect(engine.allows("get", { roles: ["admin"], system_scope: "all" }, {})).toBe(false);
  expect(engine.allows("get", { roles: ["boss"], project_id: "p" }, {})).toBe(false);
});

test("an override may bring a rule of its own, and one that nothing uses is named", () => {
  const overrides = new Map([
    ["get", "rule:auditors or role:admin"],
    ["auditors", "role:auditor"],
    ["compute:get", "http://not.even/parsed"],
  ]);
  const { engine, unusedNames } = loadPolicy([rule("get", "role:admin")], overrides);
  expect(engine.allows("get", { roles: ["auditor"] }, {})).toBe(true);
  expect(unusedNames).toEqual(["compute:get"]);
  expect(() => engine.allows("auditors", { roles: ["auditor"] }, {})).toThrow("no policy rule is called auditors");
});

test("only tokens of a rule's scopes pass, and an unscoped one counts as a project's", () => {
  const tokens: PolicyCredentials[] = [
    { roles: [], system_scope: "all" },
    { roles: [], domain_id: "d" },
    { roles: [], project_id: "p", domain_id: null },
    { roles: [] },
  ];
  const passes = (scopes: PolicyRule["scopes"]): boolean[] => {
    const engine = createPolicyEngine([rule("x", "@", scopes)]);
    return tokens.map((token) => engine.allows("x", token, {}));
  };
  expect(passes(undefined)).toEqual([true, true, true, true]);
  expect(passes(["system"])).toEqual([true, false, false, false]);
  expect(passes(["domain"])).toEqual([false, true, false, false]);
  expect(passes(["project"])).toEqual([false, false, true, true]);
  expect(passes(["system", "domain", "project"])).toEqual([true, true, true, true]);
});

test("a reference to no rule, a circle and a mistake are refused with the rule's name", () => {
  const refused = (...rules: PolicyRule[]) => expect(() => createPolicyEngine(rules));
  refused(rule("a", "role:x or rule:b")).toThrow("a: there is no rule b");
  refused(rule("a", "rule:a")).toThrow("a: rules go in a circle: a → a");
  refused(rule("a", "rule:b"), rule("b", "not rule:c"), rule("c", "rule:b")).toThrow(
    "c: rules go in a circle: b → c → b",
  );
  refused(rule("a", "rule:b"), rule("b", "role:x oder role:y")).toThrow(
    expect.objectContaining({
      code: "invalid-policy",
      message: 'b: column 8: "and" or "or" has to come before "oder"',
      fields: { rule: "b", column: 8 },
    }),
  );
  refused(rule("a", "@"), rule("a", "!")).toThrow("the same name");
});

test("chains of rules and the work of one decision have limits", () => {
  const chain = (length: number): PolicyRule[] =>
    Array.from({ length }, (_, index) => rule(`r${index}`, index === 0 ? "@" : `rule:r${index - 1}`));
  expect(createPolicyEngine(chain(MAX_RULE_DEPTH)).allows(`r${MAX_RULE_DEPTH - 1}`, { roles: [] }, {})).toBe(true);
  expect(() => createPolicyEngine(chain(MAX_RULE_DEPTH + 2))).toThrow("more than 32 deep");
  expect(() => createPolicyEngine(chain(5_000).reverse())).toThrow("more than 32 deep");
  // Each asks the one below twice: the last would look at 2^20 checks.
  const doubling = Array.from({ length: 20 }, (_, index) =>
    rule(`r${index}`, index === 0 ? "role:x" : `rule:r${index - 1} or rule:r${index - 1}`),
  );
  expect(() => createPolicyEngine(doubling)).toThrow(`more than ${MAX_RULE_LEAVES} checks`);
});

test("any credentials and target are decided, whatever is in them", () => {
  const engine = createPolicyEngine([
    rule("x", "a.b:%(c.d)s or a:%(c)s-%(d)s or None:%(c)s or role:%(c)s or b:None or 'x':%(a.b)s"),
  ]);
  const names = { key: fc.constantFrom("a", "b", "c", "d", "a.b", "c.d", "__proto__"), maxDepth: 3 };
  fc.assert(
    fc.property(fc.object(names), fc.object(names), fc.array(fc.string()), (credentials, target, roles) => {
      expect(engine.allows("x", { ...credentials, roles }, target as PolicyTarget)).toBeTypeOf("boolean");
    }),
    { seed: 5_117, numRuns: 1_000 },
  );
});
