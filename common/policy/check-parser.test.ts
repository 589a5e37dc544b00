import fc from "fast-check";
import { expect, test } from "vitest";
import type { Check, Template } from "./check.ts";
import { MAX_CHECK_CHARACTERS, MAX_CHECK_NESTING, parseCheck } from "./check-parser.ts";
import { isPolicyError } from "./policy-error.ts";

const RUNS = { seed: 41_205, numRuns: 2_000 };

const role = (name: string): Check => ({ kind: "role", role: [name] });
const credential = (key: string, ...right: Template): Check => ({ kind: "credential", key, right });
const literal = (text: string, ...right: Template): Check => ({ kind: "literal", text, right });

test.each<[string, Check]>([
  ["", { kind: "always" }],
  ["@", { kind: "always" }],
  ["!", { kind: "never" }],
  ["rule:admin_required", { kind: "rule", name: "admin_required" }],
  ["rule:identity:get_user", { kind: "rule", name: "identity:get_user" }],
  ["role:Admin", role("Admin")],
  ["role:compute:admin", role("compute:admin")],
  ["role:%(target.role.name)s", { kind: "role", role: [{ key: "target.role.name" }] }],
  ["user_id:%(target.user.id)s", credential("user_id", { key: "target.user.id" })],
  ["token.user.id:%(user_id)s", credential("token.user.id", { key: "user_id" })],
  ["system_scope:all", credential("system_scope", "all")],
  ["is_admin:True", credential("is_admin", "True")],
  ["domain_id:'default'", credential("domain_id", "default")],
  ["domain_id:''", credential("domain_id")],
  ["share:100%%", credential("share", "100%")],
  ["path:/%(a)s/%(b.c)s-x", credential("path", "/", { key: "a" }, "/", { key: "b.c" }, "-x")],
  ["None:%(target.role.domain_id)s", literal("None", { key: "target.role.domain_id" })],
  ["True:%(user.enabled)s", literal("True", { key: "user.enabled" })],
  ["False:%(x)s", literal("False", { key: "x" })],
  ["20:%(x)s", literal("20", { key: "x" })],
  ["-3:%(x)s", literal("-3", { key: "x" })],
  ["007:%(x)s", credential("007", { key: "x" })],
  ["'manager':%(target.role.name)s", literal("manager", { key: "target.role.name" })],
  ['"it\'s:so":%(x)s', literal("it's:so", { key: "x" })],
  ["not role:a", { kind: "not", check: role("a") }],
  ["NOT not role:a", { kind: "not", check: { kind: "not", check: role("a") } }],
  ["role:a and role:b AND role:c", { kind: "and", checks: [role("a"), role("b"), role("c")] }],
  ["role:a Or role:b", { kind: "or", checks: [role("a"), role("b")] }],
  ["((role:a))", role("a")],
  ["( role:a )", role("a")],
  ["\n role:a\tor\n role:b ", { kind: "or", checks: [role("a"), role("b")] }],
])("%j is parsed", (text, check) => {
  expect(parseCheck(text)).toEqual(check);
});

test("not binds closer than and, and closer than or", () => {
  expect(parseCheck("role:a or not role:b and role:c or role:d")).toEqual({
    kind: "or",
    checks: [role("a"), { kind: "and", checks: [{ kind: "not", check: role("b") }, role("c")] }, role("d")],
  });
  expect(parseCheck("(role:a or role:b) and not (role:c or role:d)")).toEqual({
    kind: "and",
    checks: [
      { kind: "or", checks: [role("a"), role("b")] },
      { kind: "not", check: { kind: "or", checks: [role("c"), role("d")] } },
    ],
  });
});

test.each([
  ["  ", 1, "only blanks"],
  ["admin", 1, "form kind:match"],
  ["role:a role:b", 8, '"and" or "or" has to come before "role:b"'],
  ["role:a or", 10, "missing at the end"],
  ["or role:a", 1, 'before "or"'],
  ["role:a and and role:b", 12, 'before "and"'],
  ["(role:a", 8, '")" is missing'],
  ["(role:a role:b)", 9, '")" is missing'],
  ["role:a)", 7, 'before ")"'],
  ["()", 2, 'before ")"'],
  ["not", 4, "missing at the end"],
  ["role:", 6, "nothing follows the colon"],
  [":x", 1, "no name of a credential"],
  ["a..b:x", 1, "no name of a credential"],
  ["not(role:a)", 1, "no name of a credential"],
  ["user_id:%(x)", 9, "% is no %(key)s"],
  ["user_id:%(x)d", 9, "% is no %(key)s"],
  ["user_id:%()s", 9, "% is no %(key)s"],
  ["user_id:ab%", 11, "% is no %(key)s"],
  ["'a b':%(x)s", 1, "the quote does not end"],
  ["'a'", 4, "a colon has to follow"],
  ["'a\\n':%(x)s", 1, "no escapes"],
  ["role:a or http://example.org/check", 11, "ask another server"],
  ["not https://example.org/check", 5, "ask another server"],
  ["field:networks:shared=True", 1, "field: checks are not supported"],
])("%j is refused at column %d: %s", (text, column, message) => {
  expect(() => parseCheck(text)).toThrow(
    expect.objectContaining({
      code: "invalid-policy",
      message: expect.stringContaining(message),
      fields: { column },
    }),
  );
});

test("length and nesting have limits, and neither costs the stack", () => {
  expect(() => parseCheck(`role:${"a".repeat(MAX_CHECK_CHARACTERS)}`)).toThrow("characters");
  const nested = (depth: number): string => `${"(".repeat(depth)}role:a${")".repeat(depth)}`;
  expect(parseCheck(nested(MAX_CHECK_NESTING - 1))).toEqual(role("a"));
  expect(() => parseCheck(nested(MAX_CHECK_NESTING))).toThrow("nested more than");
  expect(() => parseCheck(nested(8_000))).toThrow("nested more than");
  expect(() => parseCheck(`${"not ".repeat(4_000)}role:a`)).toThrow("nested more than");
});

test("any text is a check or invalid-policy with a column in it", () => {
  const piece = fc.oneof(
    fc.constantFrom(
      ...`and or not ( ) (( )) @ ! rule:x role:admin a.b:%(c.d)s 'x':%(y)s % %( : ' " None:%(x)s`.split(" "),
      " ",
      "\n",
      "__proto__:%(__proto__)s",
      "http://x",
      "\\",
      "\u2028",
    ),
    fc.string({ unit: "binary" }),
  );
  const text = fc
    .tuple(fc.array(piece, { maxLength: 30 }), fc.constantFrom("", " "))
    .map(([pieces, separator]) => pieces.join(separator));
  fc.assert(
    fc.property(text, (source) => {
      try {
        expect(parseCheck(source).kind).toBeTypeOf("string");
      } catch (error) {
        if (!isPolicyError(error)) throw error;
        expect(error.fields["column"]).toBeGreaterThanOrEqual(1);
        expect(error.fields["column"]).toBeLessThanOrEqual(source.length + 1);
      }
    }),
    RUNS,
  );
});

const printTemplate = (template: Template): string => {
  const text = template
    .map((part) => (typeof part === "string" ? part.replaceAll("%", "%%") : `%(${part.key})s`))
    .join("");
  return /^(?:.*\)|["'].*|)$/.test(text)
    ? `${text.startsWith("'") ? '"' : "'"}${text}${text.startsWith("'") ? '"' : "'"}`
    : text;
};

const print = (check: Check): string => {
  switch (check.kind) {
    case "always":
      return "@";
    case "never":
      return "!";
    case "not":
      return `not ${printInner(check.check)}`;
    case "and":
    case "or":
      return check.checks.map(printInner).join(` ${check.kind} `);
    case "rule":
      return `rule:${check.name}`;
    case "role":
      return `role:${printTemplate(check.role)}`;
    case "literal":
      return `${/^(?:True|False|None|0|-?[1-9][0-9]*)$/.test(check.text) ? check.text : `'${check.text}'`}:${printTemplate(check.right)}`;
    case "credential":
      return `${check.key}:${printTemplate(check.right)}`;
  }
};

const printInner = (check: Check): string =>
  check.kind === "and" || check.kind === "or" ? `(${print(check)})` : print(check);

const word = fc.stringMatching(/^[a-z_][A-Za-z0-9_-]{0,8}$/);
const key = fc
  .array(fc.oneof(word, fc.constantFrom("__proto__", "constructor", "target")), { minLength: 1, maxLength: 4 })
  .map((parts) => parts.join("."));
const constant = fc
  .stringMatching(/^[A-Za-z0-9_%:.@!/=('")-]{1,8}$/)
  .filter((text) => !/^["']/.test(text) || text.length === 1);
const template: fc.Arbitrary<Template> = fc
  .tuple(
    fc.option(constant, { nil: undefined }),
    fc.array(fc.tuple(key, fc.option(constant, { nil: undefined })), { maxLength: 3 }),
  )
  .map(([first, rest]) =>
    [first, ...rest.flatMap(([name, text]) => [{ key: name }, text])].filter((part) => part !== undefined),
  );
const leaf: fc.Arbitrary<Check> = fc.oneof(
  fc.constantFrom<Check>({ kind: "always" }, { kind: "never" }),
  fc.record({ kind: fc.constant("rule" as const), name: word }),
  fc.record({ kind: fc.constant("role" as const), role: template }),
  fc.record({
    kind: fc.constant("literal" as const),
    text: fc.oneof(fc.stringMatching(/^[a-z():%.]{0,8}$/), fc.constantFrom("True", "None", "0", "-17")),
    right: template,
  }),
  fc.record({
    kind: fc.constant("credential" as const),
    key: key.filter((name) => !["rule", "role", "http", "https", "opa", "field"].includes(name)),
    right: template,
  }),
);
const { check: anyCheck } = fc.letrec<{ check: Check }>((tie) => ({
  check: fc.oneof(
    { maxDepth: 6, withCrossShrink: true },
    leaf,
    fc.record({ kind: fc.constant("not" as const), check: tie("check") }),
    fc.record({
      kind: fc.constantFrom("and" as const, "or" as const),
      checks: fc.array(tie("check"), { minLength: 2, maxLength: 4 }),
    }),
  ),
}));

test("what a check is printed as is parsed into the same check", () => {
  fc.assert(
    fc.property(anyCheck, (check) => {
      const text = print(check);
      fc.pre(text.length <= MAX_CHECK_CHARACTERS);
      expect(parseCheck(text)).toEqual(check);
    }),
    RUNS,
  );
});
