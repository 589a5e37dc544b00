import { type CompiledCheck, compileCheck } from "./check-compiler.ts";
import { parseCheck } from "./check-parser.ts";
import { isPolicyError, policyError } from "./policy-error.ts";

/** Rules that refer to each other in a row; bounds the stack. */
export const MAX_RULE_DEPTH = 32;
/** Checks that one decision may have to look at, at worst. Identity's largest rule has 30. */
export const MAX_RULE_LEAVES = 1_000;

/**
 * Who asks, by the names that policies use: `user_id`, `user_domain_id`, `project_id`, `project_domain_id`, `domain_id` (of a token for
 * a domain), `system_scope` (`"all"`), `is_admin_project`, …; what has no value may be null or left out. Roles are names in any case.
 */
export type PolicyCredentials = Readonly<Record<string, unknown>> & { readonly roles: readonly string[] };

/**
 * What is asked about, under flat names (`"target.user.domain_id"`) or nested (`{ target: { user: { domain_id } } }`). A key that is not
 * there fails its check; null is what `None:%(key)s` looks for.
 */
export type PolicyTarget = Readonly<Record<string, unknown>>;

type PolicyScope = "system" | "domain" | "project";

/** One rule as a service ships it. Tokens of other scopes than `scopes` are refused; unscoped ones count as `project`, as upstream has it. */
export type PolicyRule = {
  readonly name: string;
  readonly check: string;
  readonly scopes?: readonly PolicyScope[];
  readonly description: string;
  /** `METHOD path`; for people. */
  readonly operations?: readonly string[];
};

export type PolicyEngine = {
  /** Throws on a name that is no rule of the service: a programmer's error. */
  allows(name: string, credentials: PolicyCredentials, target: PolicyTarget): boolean;
};

/** The engine, and the names of overrides that are neither rules of the service nor used by one. */
export type LoadedPolicy = { readonly engine: PolicyEngine; readonly unusedNames: readonly string[] };

const scopeOf = (credentials: PolicyCredentials): PolicyScope => {
  if (credentials["system_scope"] === "all") return "system";
  return typeof credentials["domain_id"] === "string" ? "domain" : "project";
};

const compileText = (name: string, text: string, ruleOf: (name: string) => CompiledCheck): CompiledCheck => {
  try {
    return compileCheck(parseCheck(text), ruleOf);
  } catch (error) {
    // An error that names its rule already comes from a rule beneath this one.
    if (!isPolicyError(error) || "rule" in error.fields) throw error;
    throw policyError(`${name}: ${error.message}`, { ...error.fields, rule: name });
  }
};

/** Compiles rules on demand, each once; `path` is the chain of references that led to the one being compiled. */
const ruleCompiler = (textOf: (name: string) => string | undefined) => {
  const compiled = new Map<string, CompiledCheck>();
  const path: string[] = [];
  const compile = (name: string): CompiledCheck => {
    const known = compiled.get(name);
    if (known !== undefined) return known;
    const referrer = path.at(-1) ?? name;
    const refuse = (message: string): never => {
      throw policyError(`${referrer}: ${message}`, { rule: referrer });
    };
    if (path.includes(name)) refuse(`rules go in a circle: ${[...path.slice(path.indexOf(name)), name].join(" → ")}`);
    if (path.length > MAX_RULE_DEPTH) refuse(`rules refer to each other more than ${MAX_RULE_DEPTH} deep`);
    const text = textOf(name) ?? refuse(`there is no rule ${name}`);
    path.push(name);
    const rule = compileText(name, text, compile);
    path.pop();
    if (rule.ruleDepth > MAX_RULE_DEPTH) refuse(`rules refer to each other more than ${MAX_RULE_DEPTH} deep`);
    if (rule.leaves > MAX_RULE_LEAVES) refuse(`${name} may have to look at more than ${MAX_RULE_LEAVES} checks`);
    compiled.set(name, rule);
    return rule;
  };
  return { compile, isCompiled: (name: string): boolean => compiled.has(name) };
};

/**
 * Compiles the rules of a service with the check strings that an operator put in the place of theirs. An override of another name may be
 * used by `rule:NAME`; one that nothing uses is not even parsed. Throws `invalid-policy`: a check that does not parse, a reference to
 * a rule that is not there, a circle, a limit.
 */
export const loadPolicy = (
  defaults: readonly PolicyRule[],
  overrides: ReadonlyMap<string, string> = new Map(),
): LoadedPolicy => {
  const rules = new Map(defaults.map((rule) => [rule.name, rule]));
  if (rules.size !== defaults.length) throw new Error("two policy rules have the same name");
  const { compile, isCompiled } = ruleCompiler((name) => overrides.get(name) ?? rules.get(name)?.check);
  const entries = new Map(
    defaults.map(({ name, scopes }) => [name, { evaluate: compile(name).evaluate, scopes }] as const),
  );
  return {
    engine: {
      allows: (name, credentials, target) => {
        const entry = entries.get(name);
        if (entry === undefined) throw new Error(`no policy rule is called ${name}`);
        if (entry.scopes !== undefined && !entry.scopes.includes(scopeOf(credentials))) return false;
        return entry.evaluate(credentials, target);
      },
    },
    unusedNames: [...overrides.keys()].filter((name) => !isCompiled(name)),
  };
};

/** As `loadPolicy`, for those who do not care which overrides were of no use. */
export const createPolicyEngine = (
  defaults: readonly PolicyRule[],
  overrides?: ReadonlyMap<string, string>,
): PolicyEngine => loadPolicy(defaults, overrides).engine;
