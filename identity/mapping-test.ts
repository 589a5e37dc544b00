import { readFileSync } from "node:fs";
import { Value } from "typebox/value";
import { codeOf, messageOf, RingsteadError } from "../common/errors.ts";
import { claimsAssertion } from "./core/claims-assertion.ts";
import { environmentAssertion, type MappingOutcome, mapIdentity, regexProblem } from "./core/mapping.ts";
import { mappingRules } from "./core/mapping-rules.ts";

const FILE_MAX_BYTES = 1024 * 1024;

const textOf = (path: string): string => {
  try {
    const text = readFileSync(path, "utf8");
    if (text.length > FILE_MAX_BYTES)
      throw new RingsteadError("usage", `${path} is longer than ${FILE_MAX_BYTES} bytes`);
    return text;
  } catch (thrown) {
    if (codeOf(thrown) === "usage") throw thrown;
    throw new RingsteadError("usage", `${path} cannot be read: ${messageOf(thrown)}`);
  }
};

const jsonOf = (path: string): unknown => {
  try {
    return JSON.parse(textOf(path)) as unknown;
  } catch (thrown) {
    if (codeOf(thrown) === "usage") throw thrown;
    throw new RingsteadError("usage", `${path} is not JSON: ${messageOf(thrown)}`);
  }
};

/** `NAME: value` lines as Keystone's mapping_engine takes them, or claims as JSON. */
const assertionOf = (path: string) => {
  const text = textOf(path);
  if (text.trimStart().startsWith("{")) return claimsAssertion(jsonOf(path) as Readonly<Record<string, unknown>>);
  const pairs = text.split("\n").flatMap((line): [string, string][] => {
    const [, name, value] = /^([^:]+):\s*(.*)$/.exec(line.trim()) ?? [];
    return name === undefined || value === undefined ? [] : [[name, value]];
  });
  return environmentAssertion(Object.fromEntries(pairs));
};

/**
 * Who a login would be: the rules of a mapping (a JSON list, or `{"rules": …}`) on what a provider said. Throws RingsteadError `usage` for
 * files that are not understood.
 */
export const tryMapping = (rulesPath: string, inputPath: string): MappingOutcome => {
  const given = jsonOf(rulesPath);
  const rules =
    typeof given === "object" && given !== null && !Array.isArray(given) && "rules" in given ? given.rules : given;
  if (!Value.Check(mappingRules, rules)) {
    const [problem] = Value.Errors(mappingRules, rules);
    throw new RingsteadError("usage", `${rulesPath}: ${problem?.instancePath ?? ""} ${problem?.message ?? "no rules"}`);
  }
  const problem = regexProblem(rules);
  if (problem !== undefined) throw new RingsteadError("usage", `${rulesPath}: ${problem}`);
  return mapIdentity(rules, assertionOf(inputPath));
};
