import type { Check, Template } from "./check.ts";
import type { PolicyCredentials, PolicyTarget } from "./policy-engine.ts";

/** Decides one check. Allocates nothing unless a template mixes text with keys. */
type Evaluate = (credentials: PolicyCredentials, target: PolicyTarget) => boolean;

/** A check ready to be asked. */
export type CompiledCheck = {
  readonly evaluate: Evaluate;
  /** How many leaves an evaluation looks at, at worst. */
  readonly leaves: number;
  /** How many rules refer to each other beneath it. */
  readonly ruleDepth: number;
};

type Values = Readonly<Record<string, unknown>>;

const isValues = (value: unknown): value is Values => typeof value === "object" && value !== null;

/** Values as Python prints them. Nothing for what is absent: nothing equals it. */
const textOf = (value: unknown): string | undefined => {
  if (typeof value === "string") return value;
  if (typeof value === "boolean") return value ? "True" : "False";
  return typeof value === "number" || typeof value === "bigint" ? String(value) : undefined;
};

/** The value at `a.b.c`: under that very name, else nested. Own properties only, so `constructor` names nothing. */
const valueAt = (values: Values, key: string, path: readonly string[]): unknown => {
  if (Object.hasOwn(values, key)) return values[key];
  if (path.length === 1) return undefined;
  let value: unknown = values;
  for (const segment of path) {
    if (!isValues(value) || !Object.hasOwn(value, segment)) return undefined;
    value = value[segment];
  }
  return value;
};

/** True if the text is at `path`, in any element of the lists on the way. */
const holdsText = (value: unknown, path: readonly string[], index: number, text: string): boolean => {
  if (Array.isArray(value)) {
    for (const element of value) if (holdsText(element, path, index, text)) return true;
    return false;
  }
  const segment = path[index];
  if (segment === undefined) return textOf(value) === text;
  return isValues(value) && Object.hasOwn(value, segment) && holdsText(value[segment], path, index + 1, text);
};

type Fill = (target: PolicyTarget) => string | undefined;

/** What a template becomes with a target; nothing if the target lacks one of its keys. `None` is what null is printed as. */
const fillOf = (template: Template, nullText: string | undefined): Fill => {
  const [first] = template;
  if (first === undefined) return () => "";
  const fills = template.map((part): Fill => {
    if (typeof part === "string") return () => part;
    const path = part.key.split(".");
    return (target) => {
      const value = valueAt(target, part.key, path);
      return value === null ? nullText : textOf(value);
    };
  });
  const [only] = fills;
  if (fills.length === 1 && only !== undefined) return only;
  return (target) => {
    let text = "";
    for (const fill of fills) {
      const part = fill(target);
      if (part === undefined) return undefined;
      text += part;
    }
    return text;
  };
};

const CODE_A = 65;
const CODE_Z = 90;
const CODE_CASE = 32;

/** As `role.toLowerCase() === lowered`, which makes a string each time, where neither has letters beyond ASCII. */
const equalsLowered = (role: string, lowered: string): boolean => {
  if (role === lowered) return true;
  if (role.length !== lowered.length) return false;
  for (let index = 0; index < role.length; index += 1) {
    const code = role.charCodeAt(index);
    const folded = code >= CODE_A && code <= CODE_Z ? code + CODE_CASE : code;
    if (folded !== lowered.charCodeAt(index)) return false;
  }
  return true;
};

const hasRole = (roles: readonly string[], lowered: string): boolean => {
  for (const role of roles) if (equalsLowered(role, lowered)) return true;
  return false;
};

const hasForeignRole = (roles: readonly string[], lowered: string): boolean =>
  roles.some((role) => role.toLowerCase() === lowered);

const roleCheck = (template: Template): Evaluate => {
  const [only] = template;
  if (template.length === 1 && typeof only === "string") {
    const lowered = only.toLowerCase();
    // Only spaces to tildes: letters of other alphabets change their length and their number with their case.
    const has = /^[ -~]*$/.test(lowered) ? hasRole : hasForeignRole;
    return ({ roles }) => has(roles, lowered);
  }
  const fill = fillOf(template, undefined);
  return ({ roles }, target) => {
    const role = fill(target);
    return role !== undefined && hasForeignRole(roles, role.toLowerCase());
  };
};

const credentialCheck = (key: string, template: Template): Evaluate => {
  const path = key.split(".");
  const holds = (credentials: PolicyCredentials, text: string): boolean =>
    Object.hasOwn(credentials, key)
      ? holdsText(credentials[key], path, path.length, text)
      : path.length > 1 && holdsText(credentials, path, 0, text);
  const [only] = template;
  if (template.length === 1 && only === "None") {
    return (credentials) => (valueAt(credentials, key, path) ?? null) === null || holds(credentials, "None");
  }
  // Where neither side has a value they are not equal: a project-scoped token is not of the domain of a global role.
  const fill = fillOf(template, template.length > 1 ? "None" : undefined);
  return (credentials, target) => {
    const text = fill(target);
    return text !== undefined && holds(credentials, text);
  };
};

const literalCheck = (text: string, template: Template): Evaluate => {
  const fill = fillOf(template, "None");
  return (_credentials, target) => fill(target) === text;
};

const leaf = (evaluate: Evaluate): CompiledCheck => ({ evaluate, leaves: 1, ruleDepth: 0 });

const joined = (parts: readonly CompiledCheck[], kind: "and" | "or"): CompiledCheck => {
  const evaluates = parts.map(({ evaluate }) => evaluate);
  const decisive = kind === "or";
  return {
    evaluate: (credentials, target) => {
      for (const evaluate of evaluates) if (evaluate(credentials, target) === decisive) return decisive;
      return !decisive;
    },
    leaves: parts.reduce((sum, { leaves }) => sum + leaves, 0),
    ruleDepth: Math.max(...parts.map(({ ruleDepth }) => ruleDepth)),
  };
};

/** Turns a check into closures. `ruleOf` gives the compiled rule of a name, or throws. */
export const compileCheck = (check: Check, ruleOf: (name: string) => CompiledCheck): CompiledCheck => {
  switch (check.kind) {
    case "always":
      return leaf(() => true);
    case "never":
      return leaf(() => false);
    case "not": {
      const inner = compileCheck(check.check, ruleOf);
      return { ...inner, evaluate: (credentials, target) => !inner.evaluate(credentials, target) };
    }
    case "and":
    case "or":
      return joined(
        check.checks.map((part) => compileCheck(part, ruleOf)),
        check.kind,
      );
    case "rule": {
      const rule = ruleOf(check.name);
      return { ...rule, ruleDepth: rule.ruleDepth + 1 };
    }
    case "role":
      return leaf(roleCheck(check.role));
    case "literal":
      return leaf(literalCheck(check.text, check.right));
    case "credential":
      return leaf(credentialCheck(check.key, check.right));
  }
};
