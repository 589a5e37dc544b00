import type { AccessRuleText } from "../token-verifier.ts";

/** `{name}` and `*`: one segment of a path, not empty. `**`: anything. Everything else: itself. */
type PathToken = { readonly kind: "literal"; readonly code: number } | { readonly kind: "segment" | "anything" };

const tokensOf = (pattern: string): PathToken[] => {
  const tokens: PathToken[] = [];
  for (let index = 0; index < pattern.length; index += 1) {
    const character = pattern[index];
    const end = character === "{" ? pattern.indexOf("}", index) : -1;
    if (end !== -1) {
      tokens.push({ kind: "segment" });
      index = end;
    } else if (character === "*" && pattern[index + 1] === "*") {
      tokens.push({ kind: "anything" });
      index += 1;
    } else if (character === "*") tokens.push({ kind: "segment" });
    else tokens.push({ kind: "literal", code: pattern.charCodeAt(index) });
  }
  return tokens;
};

const SLASH = 47;
/** Longer than any path that the services serve, decoded. */
const PATH_MAX = 2_048;

/**
 * Whether `path` fits the pattern of an access rule. Takes path times pattern steps at most, some 0.5 ms at worst: the patterns are a user's,
 * and as regular expressions some would take for ever.
 */
export const pathFits = (path: string, pattern: string): boolean => {
  if (path.length > PATH_MAX) return false;
  const tokens = tokensOf(pattern);
  const count = tokens.length;
  // `reached[n]`: what was read of the path fits the first n tokens, where an open segment may go on.
  let reached = new Uint8Array(count + 1);
  let next = new Uint8Array(count + 1);
  const skip = (states: Uint8Array): void => {
    for (let index = 0; index < count; index += 1) {
      if (states[index] === 1 && tokens[index]?.kind === "anything") states[index + 1] = 1;
    }
  };
  reached[0] = 1;
  skip(reached);
  for (let position = 0; position < path.length; position += 1) {
    const code = path.charCodeAt(position);
    next.fill(0);
    for (let index = 0; index < count; index += 1) {
      const token = tokens[index];
      const isHere = reached[index] === 1;
      if (token === undefined) continue;
      if (token.kind === "segment") {
        // One that begins here, and one that has begun (the state after it).
        if (code !== SLASH && (isHere || reached[index + 1] === 1)) next[index + 1] = 1;
      } else if (isHere && token.kind === "anything") next[index] = 1;
      else if (isHere && token.kind === "literal" && token.code === code) next[index + 1] = 1;
    }
    skip(next);
    [reached, next] = [next, reached];
  }
  return reached[count] === 1;
};

/** Whether a token with these rules may be used for the request; `undefined` rules allow everything. `service`: the catalog's type. */
export const isAllowedByRules = (
  rules: readonly AccessRuleText[] | undefined,
  service: string,
  method: string,
  path: string,
): boolean =>
  rules === undefined ||
  rules.some((rule) => rule.service === service && rule.method === method && pathFits(path, rule.path));
