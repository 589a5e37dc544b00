import type { Assertion } from "./mapping.ts";

const DEPTH_MAX = 4;

const textsOf = (value: unknown): string[] => {
  if (typeof value === "string") return [value];
  if (typeof value === "number" || typeof value === "boolean") return [String(value)];
  return Array.isArray(value) ? value.flatMap((one) => (typeof one === "object" ? [] : textsOf(one))) : [];
};

/** Claims within claims under the path to them: `realm_access.roles`. */
const flattened = (claims: object, prefix: string, depth: number): [name: string, values: string[]][] =>
  Object.entries(claims).flatMap(([name, value]: [string, unknown]): [string, string[]][] => {
    const path = prefix + name;
    if (typeof value !== "object" || value === null || Array.isArray(value)) return [[path, textsOf(value)]];
    return depth < DEPTH_MAX ? flattened(value, `${path}.`, depth + 1) : [];
  });

/** The names that a web server's OpenID Connect module gives a claim, so that mappings written for one work here. */
const namesOf = (claim: string): string[] => [
  `OIDC-${claim}`,
  `OIDC_CLAIM_${claim}`,
  `HTTP_OIDC_${claim.replaceAll(/[^A-Za-z0-9]/g, "_").toUpperCase()}`,
];

/**
 * What the claims of a provider are to mapping rules. Each claim under its own name and those of `namesOf`; `REMOTE_USER` is the subject.
 * Texts are not split at semicolons: what a user may choose must not become several values.
 */
export const claimsAssertion = (claims: Readonly<Record<string, unknown>>): Assertion => {
  const flat = flattened(claims, "", 1).filter(([, values]) => values.length > 0);
  const assertion = new Map<string, readonly string[]>(flat);
  const derived = new Map<string, readonly string[] | undefined>();
  for (const [claim, values] of flat) {
    // A name that two claims would have means neither: a provider may let users choose one of them.
    for (const name of namesOf(claim)) derived.set(name, derived.has(name) ? undefined : values);
  }
  for (const [name, values] of derived) {
    if (values === undefined) assertion.delete(name);
    else assertion.set(name, values);
  }
  assertion.set("REMOTE_USER", textsOf(claims["sub"]));
  return assertion;
};
