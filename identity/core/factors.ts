/** Rules of a user as its options have them; what is no list of names is no rule. */
const rulesOf = (options: Readonly<Record<string, unknown>>): readonly (readonly string[])[] => {
  const given = options["multi_factor_auth_rules"];
  if (!Array.isArray(given)) return [];
  return given.filter(
    (rule): rule is string[] =>
      Array.isArray(rule) && rule.length > 0 && rule.every((method) => typeof method === "string"),
  );
};

/**
 * What multi-factor rules still ask for of who has proved to be the user by `methods`: undefined where one rule is fulfilled, or there is
 * none; else the rules that a further method could complete. Methods that nobody `offers` count as proved, as in Keystone: an operator who
 * switches one off locks nobody out.
 */
export const missingFactors = (
  options: Readonly<Record<string, unknown>>,
  methods: readonly string[],
  offered: ReadonlySet<string>,
): readonly (readonly string[])[] | undefined => {
  const rules = rulesOf(options).map((rule) => [...new Set(rule)].filter((method) => offered.has(method)));
  if (rules.length === 0 || options["multi_factor_auth_enabled"] === false) return undefined;
  const proved = new Set(methods);
  if (rules.some((rule) => rule.every((method) => proved.has(method)))) return undefined;
  return rules.filter((rule) => rule.some((method) => proved.has(method)));
};
