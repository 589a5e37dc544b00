import { RE2JS } from "re2js";

/**
 * Instructions of all expressions of one mapping together. Matching takes time in proportion to them and to the text, never more: RE2 does
 * not step back. Lookaround and back references, which would need that, are refused when a mapping is stored.
 */
export const REGEX_INSTRUCTIONS_MAX = 5_000;
const PATTERN_MAX = 1_024;

export type LinearRegex = {
  readonly size: number;
  /** Whether it matches anywhere in the text. */
  test(text: string): boolean;
};

/** Undefined where it is no regular expression, or one that cannot be matched in linear time. */
export const linearRegex = (pattern: string): LinearRegex | undefined => {
  if (pattern.length > PATTERN_MAX) return undefined;
  try {
    const compiled = RE2JS.compile(pattern);
    return { size: compiled.programSize(), test: (text) => compiled.matcher(text).find() };
  } catch {
    return undefined;
  }
};
