import { linearRegex, REGEX_INSTRUCTIONS_MAX } from "./linear-regex.ts";
import type { LocalRule, MappedDomain, MappingRules, RemoteRule } from "./mapping-rules.ts";

/** What a provider says of a user: texts by name. */
export type Assertion = ReadonlyMap<string, readonly string[]>;

export type MappedIdentity = {
  /** `ephemeral`: known through the provider alone. `local`: a user who is here anyway. */
  readonly user: {
    readonly type: "ephemeral" | "local";
    readonly id?: string;
    readonly name?: string;
    readonly email?: string;
    readonly domain?: MappedDomain;
  };
  readonly groupIds: readonly string[];
  readonly groupNames: readonly { readonly name: string; readonly domain: MappedDomain }[];
  /** Made where they are absent, with the roles by name. */
  readonly projects: readonly { readonly name: string; readonly roles: readonly string[] }[];
};

/** `refused`: the rules say nothing of this user, or refer to what is not there; `reason` is for the log. */
export type MappingOutcome =
  | { readonly kind: "mapped"; readonly identity: MappedIdentity }
  | { readonly kind: "refused"; readonly reason: string };

class Refusal extends Error {}

const refuse = (reason: string): never => {
  throw new Refusal(reason);
};

/** The values of each remote rule that stands for values, in order: what `{0}`, `{1}` … mean. */
type DirectMaps = readonly (readonly string[])[];

const matcherOf = (listed: readonly string[], isRegex: boolean | undefined): ((value: string) => boolean) => {
  if (isRegex !== true) {
    const known = new Set(listed);
    return (value) => known.has(value);
  }
  const expressions = listed.map((pattern) => linearRegex(pattern) ?? refuse(`${pattern} is no regular expression`));
  return (value) => expressions.some((expression) => expression.test(value));
};

/** The values that a remote rule stands for; `holds`: it is only a condition. Undefined where it does not hold. */
const valuesOf = (rule: RemoteRule, assertion: Assertion): readonly string[] | "holds" | undefined => {
  const values = assertion.get(rule.type);
  if (values === undefined || values.length === 0) return undefined;
  if ("any_one_of" in rule) return values.some(matcherOf(rule.any_one_of, rule.regex)) ? "holds" : undefined;
  if ("not_any_of" in rule) return values.some(matcherOf(rule.not_any_of, rule.regex)) ? undefined : "holds";
  if ("whitelist" in rule) return values.filter(matcherOf(rule.whitelist, rule.regex));
  if ("blacklist" in rule) {
    const isListed = matcherOf(rule.blacklist, rule.regex);
    return values.filter((value) => !isListed(value));
  }
  return values;
};

/** Undefined where one of the remote rules does not hold. */
const directMapsOf = (remote: readonly RemoteRule[], assertion: Assertion): DirectMaps | undefined => {
  const maps: (readonly string[])[] = [];
  for (const rule of remote) {
    const values = valuesOf(rule, assertion);
    if (values === undefined) return undefined;
    if (values !== "holds") maps.push(values);
  }
  return maps;
};

const PLACEHOLDER = /\{\{|\}\}|\{(\d{1,4})\}/g;

const filled = (template: string, valueOf: (index: number) => string): string =>
  template.replaceAll(PLACEHOLDER, (found, index: string | undefined) =>
    index === undefined ? found.slice(1) : valueOf(Number(index)),
  );

const mapAt = (maps: DirectMaps, index: number): readonly string[] =>
  maps[index] ?? refuse(`the rule refers to {${index}}, which no remote rule gives`);

/** A template's text. Several values of one remote rule are joined as they came, by semicolons. */
const oneText = (template: string, maps: DirectMaps): string =>
  filled(template, (index) => {
    const values = mapAt(maps, index);
    return values.length === 0 ? refuse(`nothing is left for {${index}}`) : values.join(";");
  });

/** A template's texts: one for each value where it has a placeholder with several, none where that has none. */
const manyTexts = (template: string, maps: DirectMaps): string[] => {
  const indexes = new Set(
    [...template.matchAll(PLACEHOLDER)].flatMap(([, index]) => (index === undefined ? [] : [Number(index)])),
  );
  const several = [...indexes].filter((index) => mapAt(maps, index).length !== 1);
  const [index] = several;
  if (index === undefined || several.length > 1) return [oneText(template, maps)];
  return mapAt(maps, index).map((value) =>
    filled(template, (other) => (other === index ? value : (mapAt(maps, other)[0] ?? ""))),
  );
};

const domainOf = (domain: MappedDomain, maps: DirectMaps): MappedDomain => ({
  ...(domain.id === undefined ? {} : { id: oneText(domain.id, maps) }),
  ...(domain.name === undefined ? {} : { name: oneText(domain.name, maps) }),
});

const userOf = (user: NonNullable<LocalRule["user"]>, maps: DirectMaps): MappedIdentity["user"] => ({
  type: user.type ?? "ephemeral",
  ...(user.id === undefined ? {} : { id: oneText(user.id, maps) }),
  ...(user.name === undefined ? {} : { name: oneText(user.name, maps) }),
  ...(user.email === undefined ? {} : { email: oneText(user.email, maps) }),
  ...(user.domain === undefined ? {} : { domain: domainOf(user.domain, maps) }),
});

const GROUP_PREFIX = "JSON:";

/** A group that a provider names together with its domain: `JSON:{"name": …, "domain": {"id" | "name": …}}`. */
const describedGroup = (text: string): { name: string; domain: MappedDomain } => {
  let value: unknown;
  try {
    value = JSON.parse(text.slice(GROUP_PREFIX.length));
  } catch {
    return refuse(`${text} is not JSON`);
  }
  const textOf = (from: unknown, name: string): string | undefined => {
    const member: unknown =
      typeof from === "object" && from !== null && Object.hasOwn(from, name)
        ? (from as Readonly<Record<string, unknown>>)[name]
        : undefined;
    return typeof member === "string" ? member : undefined;
  };
  const domain: unknown = typeof value === "object" && value !== null && "domain" in value ? value.domain : undefined;
  const name = textOf(value, "name");
  const id = textOf(domain, "id");
  const domainName = textOf(domain, "name");
  if (name === undefined || (id === undefined && domainName === undefined)) return refuse(`${text} names no group`);
  return { name, domain: id === undefined ? { name: domainName ?? "" } : { id } };
};

const groupsOf = (template: string, domain: MappedDomain | undefined, maps: DirectMaps) =>
  manyTexts(template, maps).map((name) => {
    if (name.startsWith(GROUP_PREFIX)) return describedGroup(name);
    if (domain === undefined) return refuse("groups are named without a domain");
    return { name, domain: domainOf(domain, maps) };
  });

type Collected = {
  user: MappedIdentity["user"] | undefined;
  readonly groupIds: Set<string>;
  /** By a text that says name and domain. */
  readonly groupNames: Map<string, MappedIdentity["groupNames"][number]>;
  projects: MappedIdentity["projects"];
};

const collect = (local: LocalRule, maps: DirectMaps, into: Collected): void => {
  // The first rule that names a user counts.
  if (local.user !== undefined) {
    const user = userOf(local.user, maps);
    into.user ??= user;
  }
  const named = (name: string, domain: MappedDomain): void =>
    void into.groupNames.set(JSON.stringify([name, domain.id ?? null, domain.name ?? null]), { name, domain });
  if (local.group !== undefined && "id" in local.group) into.groupIds.add(oneText(local.group.id, maps));
  else if (local.group !== undefined) named(oneText(local.group.name, maps), domainOf(local.group.domain, maps));
  if (local.groups !== undefined) {
    for (const { name, domain } of groupsOf(local.groups, local.domain, maps)) named(name, domain);
  }
  if (local.group_ids !== undefined) for (const id of manyTexts(local.group_ids, maps)) into.groupIds.add(id);
  if (local.projects !== undefined) {
    into.projects = local.projects.map(({ name, roles }) => ({
      name: oneText(name, maps),
      roles: roles.map((role) => oneText(role.name, maps)),
    }));
  }
};

/** Who a user is here, by the rules of a mapping: those whose remote parts all hold, together. */
export const mapIdentity = (rules: MappingRules, assertion: Assertion): MappingOutcome => {
  const collected: Collected = { user: undefined, groupIds: new Set(), groupNames: new Map(), projects: [] };
  let applied = 0;
  try {
    for (const { local, remote } of rules) {
      const maps = directMapsOf(remote, assertion);
      if (maps === undefined) continue;
      applied += local.length;
      for (const one of local) collect(one, maps, collected);
    }
  } catch (thrown) {
    if (thrown instanceof Refusal) return { kind: "refused", reason: thrown.message };
    throw thrown;
  }
  if (applied === 0) return { kind: "refused", reason: "no rule of the mapping fits" };
  return {
    kind: "mapped",
    identity: {
      user: collected.user ?? { type: "ephemeral" },
      groupIds: [...collected.groupIds],
      groupNames: [...collected.groupNames.values()],
      projects: collected.projects,
    },
  };
};

const patternsOf = (rule: RemoteRule): readonly string[] => {
  if (!("regex" in rule) || rule.regex !== true) return [];
  if ("any_one_of" in rule) return rule.any_one_of;
  if ("not_any_of" in rule) return rule.not_any_of;
  return "whitelist" in rule ? rule.whitelist : rule.blacklist;
};

/** What is wrong with the regular expressions of rules; undefined where nothing is. */
export const regexProblem = (rules: MappingRules): string | undefined => {
  let size = 0;
  for (const pattern of rules.flatMap(({ remote }) => remote.flatMap(patternsOf))) {
    const expression = linearRegex(pattern);
    if (expression === undefined) {
      return `'${pattern.slice(0, 100)}' is no regular expression that can be matched in linear time (RE2).`;
    }
    size += expression.size;
  }
  return size > REGEX_INSTRUCTIONS_MAX ? "The regular expressions are too large together." : undefined;
};

/** An assertion as a web server's environment has it: several values are separated by semicolons. */
export const environmentAssertion = (environment: Readonly<Record<string, string>>): Assertion =>
  new Map(Object.entries(environment).map(([name, value]) => [name, value.split(";")]));
