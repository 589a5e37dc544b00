import { mkdtempSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Log } from "../log.ts";
import { isPolicyError } from "./policy-error.ts";
import type { PolicyRule } from "./policy-engine.ts";
import { MAX_POLICY_FILE_BYTES, MAX_POLICY_FILE_RULES, openPolicyFile, parsePolicyFile } from "./policy-file.ts";

const DEFAULTS: readonly PolicyRule[] = [
  { name: "admin_required", check: "role:admin", description: "" },
  { name: "identity:get_user", check: "rule:admin_required", description: "" },
  { name: "identity:list_users", check: "rule:admin_required", description: "" },
];

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "policy-"));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

/** A log that keeps what it is told, as `LEVEL message`. */
const recordingLog = (): { log: Log; lines: string[]; fields: object[] } => {
  const lines: string[] = [];
  const fields: object[] = [];
  const at =
    (level: string) =>
    (message: string, more: object = {}): void => {
      lines.push(`${level} ${message}`);
      fields.push(more);
    };
  const log: Log = { info: at("info"), warn: at("warn"), error: at("error"), child: () => log };
  return { log, lines, fields };
};

/** A policy file with a clock that the test moves. */
const opened = (text?: string) => {
  const file = join(folder, "identity.yaml");
  if (text !== undefined) writeFileSync(file, text);
  let nowMs = 1_000_000;
  const { log, lines, fields } = recordingLog();
  const engine = openPolicyFile({ file, defaults: DEFAULTS, log, clock: { nowMs: () => nowMs } });
  return {
    file,
    lines,
    fields,
    /** Whether `role` may get a user, `afterMs` later. */
    mayGet: (role: string, afterMs = 0): boolean => {
      nowMs += afterMs;
      return engine.allows("identity:get_user", { roles: [role] }, {});
    },
  };
};

const read = (text: string): Record<string, string> =>
  Object.fromEntries([...parsePolicyFile(text, "p.yaml")].map(([name, { check }]) => [name, check]));

test("YAML and JSON are read, with comments and long checks over several lines", () => {
  expect(read('"identity:get_user": "role:auditor or rule:admin_required"\n')).toEqual({
    "identity:get_user": "role:auditor or rule:admin_required",
  });
  expect(read("# who\nidentity:get_user: role:a or role:b # why\nidentity:list_users: ''\n")).toEqual({
    "identity:get_user": "role:a or role:b",
    "identity:list_users": "",
  });
  expect(read("identity:get_user: >\n  role:a\n  or role:b\n")).toEqual({ "identity:get_user": "role:a or role:b\n" });
  expect(read('{ "a": "role:x", "b": "@" }')).toEqual({ a: "role:x", b: "@" });
  expect(read("")).toEqual({});
  expect(read("# all commented out\n")).toEqual({});
});

test.each([
  ["- role:a\n", "p.yaml:1: a mapping"],
  ["role:admin", "p.yaml:1: a mapping"],
  ["a: role:x\n\na: role:y\n", "p.yaml:3: a: stands here twice"],
  ["a: role:x\nb:\n", "p.yaml:2: b: needs a check string in quotes"],
  ["a: !\n", "p.yaml:1: a: needs a check string in quotes"],
  ["a: !!str role:x\n", "p.yaml:1: a: needs a check string in quotes"],
  ["a: true\n", "p.yaml:1: a: needs a check string in quotes"],
  ["a: [[role:x]]\n", "p.yaml:1: a: needs a check string in quotes"],
  ["a: &x role:x\nb: *x\n", "p.yaml:2: b: needs a check string in quotes"],
  ["1: role:x\n", "p.yaml:1: the name of a rule has to be a text"],
  ["? [a]\n: role:x\n", "p.yaml:1: the name of a rule has to be a text"],
  ["a: @\n", "p.yaml:1: "],
  ["a: 'role:x\n", "p.yaml:"],
  ["a: role:x\n---\nb: role:y\n", "p.yaml:2: "],
  ["a: role:x\n  b: role:y\n", "p.yaml:"],
])("%j is refused with its line", (text, message) => {
  expect(() => parsePolicyFile(text, "p.yaml")).toThrow(
    expect.objectContaining({ code: "invalid-policy", message: expect.stringContaining(message) }),
  );
});

test("brackets inside each other do not cost the stack", () => {
  expect(() => parsePolicyFile("[".repeat(30_000), "p.yaml")).toThrow("p.yaml:1: ");
});

test("names of what objects inherit are ordinary names in a file", () => {
  expect([...parsePolicyFile("__proto__: role:x\nconstructor: '!'\n", "p.yaml").keys()]).toEqual([
    "__proto__",
    "constructor",
  ]);
});

test("a file has at most so many rules and bytes", () => {
  const rules = (count: number): string =>
    Array.from({ length: count }, (_, index) => `rule${index}: role:x\n`).join("");
  expect(parsePolicyFile(rules(MAX_POLICY_FILE_RULES), "p.yaml").size).toBe(MAX_POLICY_FILE_RULES);
  expect(() => parsePolicyFile(rules(MAX_POLICY_FILE_RULES + 1), "p.yaml")).toThrow(
    "p.yaml:2001: more than 2000 rules",
  );
  expect(() => opened(`# ${"x".repeat(MAX_POLICY_FILE_BYTES)}`)).toThrow("longer than 262144 bytes");
});

test("any text is a file of rules or invalid-policy", () => {
  const piece = fc.oneof(
    fc.constantFrom(
      "a",
      "identity:get_user",
      ": ",
      ":",
      "\n",
      "  ",
      '"',
      "'",
      "- ",
      "[",
      "{",
      "}",
      "]",
      "&x ",
      "*x",
      "!",
    ),
    fc.constantFrom("? ", "|", ">", "#", "---\n", "%YAML 1.1\n", "<<", "~", "@", "!!binary ", "\t", "\u0000", ","),
    fc.string(),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 40 }), (pieces) => {
      try {
        for (const [name, { check, line }] of parsePolicyFile(pieces.join(""), "p.yaml")) {
          expect([typeof name, typeof check]).toEqual(["string", "string"]);
          expect(line).toBeGreaterThanOrEqual(1);
        }
      } catch (error) {
        if (!isPolicyError(error)) throw error;
        expect(error.message).toMatch(/^p\.yaml:[0-9]+: /);
      }
    }),
    { seed: 771, numRuns: 2_000 },
  );
});

test("without a file the defaults hold, and a file that appears is followed", () => {
  const { file, lines, mayGet } = opened();
  expect([mayGet("admin"), mayGet("auditor")]).toEqual([true, false]);
  writeFileSync(file, "identity:get_user: role:auditor\n");
  expect(mayGet("auditor", 999)).toBe(false);
  expect(mayGet("auditor", 1)).toBe(true);
  expect(mayGet("admin")).toBe(false);
  expect(lines).toEqual(["info policy file read"]);
});

test("a file that is changed in place, replaced or removed is followed within a second", () => {
  const { file, mayGet } = opened("identity:get_user: role:one\n");
  expect(mayGet("one")).toBe(true);
  writeFileSync(file, "identity:get_user: role:two\n");
  utimesSync(file, 1, 1);
  expect([mayGet("one", 1_000), mayGet("two")]).toEqual([false, true]);
  writeFileSync(`${file}.new`, "identity:get_user: role:six\n");
  utimesSync(`${file}.new`, 1, 1);
  renameSync(`${file}.new`, file);
  expect([mayGet("two", 1_000), mayGet("six")]).toEqual([false, true]);
  rmSync(file);
  expect([mayGet("six", 1_000), mayGet("admin")]).toEqual([false, true]);
});

test("a bad file leaves the rules in force that held, and is complained about once", () => {
  const { file, lines, fields, mayGet } = opened("identity:get_user: role:auditor\n");
  writeFileSync(file, "identity:list_users: '@'\nidentity:get_user: role:auditor oder role:x\n");
  for (let look = 0; look < 5; look += 1) expect(mayGet("auditor", 1_000)).toBe(true);
  const errors = lines.filter((line) => line.startsWith("error"));
  expect(errors).toEqual(["error the policy file is wrong; the rules that held stay in force until it is corrected"]);
  expect(fields.at(-1)).toEqual({
    file,
    reason: `${file}:2: identity:get_user: column 14: "and" or "or" has to come before "oder"`,
  });
  writeFileSync(file, "identity:get_user: role:late\n");
  expect([mayGet("late", 1_000), mayGet("auditor")]).toEqual([true, false]);
});

test("a file that becomes a folder leaves the rules in force that held", () => {
  const { file, lines, mayGet } = opened("identity:get_user: role:auditor\n");
  rmSync(file);
  renameSync(mkdtempSync(join(folder, "x-")), file);
  expect([mayGet("auditor", 1_000), mayGet("auditor", 1_000)]).toEqual([true, true]);
  expect(lines.filter((line) => line.startsWith("error"))).toHaveLength(1);
});

test("a path that cannot be looked at leaves the rules in force that held", () => {
  const { file, lines, mayGet } = opened("identity:get_user: role:auditor\n");
  rmSync(file);
  symlinkSync(file, file);
  expect([mayGet("auditor", 1_000), mayGet("auditor", 1_000)]).toEqual([true, true]);
  expect(lines.filter((line) => line.startsWith("error"))).toHaveLength(1);
  expect(() => opened()).toThrow("ELOOP");
});

test("a file that is wrong from the beginning is refused", () => {
  expect(() => opened("identity:get_user: rule:nobody\n")).toThrow(
    "identity.yaml:1: identity:get_user: there is no rule nobody",
  );
  expect(() => opened("a: [")).toThrow("identity.yaml:1: ");
});

test("a rule that the service does not have is ignored with a warning, unless one of its rules uses it", () => {
  const { lines, fields, mayGet } = opened(
    "identity:get_user: rule:auditors\nauditors: role:auditor\ncompute:get: http://x\n",
  );
  expect(mayGet("auditor")).toBe(true);
  expect(lines).toEqual([
    "warn the policy file has a rule that is not one of this service; it is ignored",
    "info policy file read",
  ]);
  expect(fields[0]).toMatchObject({ rule: "compute:get", line: 3 });
});

test("a clock that is set back does not keep a change from being seen", () => {
  const { file, mayGet } = opened();
  writeFileSync(file, "identity:get_user: role:auditor\n");
  expect(mayGet("auditor", -500_000)).toBe(true);
});
