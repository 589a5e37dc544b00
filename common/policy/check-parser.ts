import type { Check, Template } from "./check.ts";
import { policyError } from "./policy-error.ts";

/** Longest text of one check, in characters. The longest of OpenStack's own has a thousand. */
export const MAX_CHECK_CHARACTERS = 16_384;
/** Parentheses and `not`s inside each other; bounds the stack of parser, compiler and evaluation. */
export const MAX_CHECK_NESTING = 64;

/** Kinds of other engines. As names of credentials they would be false without a word, and true behind a `not`. */
const UNSUPPORTED_KINDS: ReadonlyMap<string, string> = new Map([
  ["http", "checks that ask another server are not supported"],
  ["https", "checks that ask another server are not supported"],
  ["opa", "checks that ask another server are not supported"],
  ["field", "field: checks are not supported"],
]);

type Operator = "(" | ")" | "and" | "or" | "not";
type Token = { readonly operator: Operator | undefined; readonly word: string; readonly column: number };

const OPERATOR_WORDS: ReadonlyMap<string, Operator> = new Map([
  ["and", "and"],
  ["or", "or"],
  ["not", "not"],
]);

const refuse = (column: number, message: string): never => {
  throw policyError(`column ${column}: ${message}`, { column });
};

/** Blanks separate words; parentheses count at the ends of a word only, since `%(key)s` has some inside. */
const tokensOf = (text: string): Token[] => {
  const tokens: Token[] = [];
  for (const match of text.matchAll(/\S+/g)) {
    const [whole] = match;
    const body = whole.replace(/^\(+/, "");
    const opened = whole.length - body.length;
    const word = body.replace(/\)+$/, "");
    const column = match.index + 1;
    for (let index = 0; index < opened; index += 1) tokens.push({ operator: "(", word: "(", column: column + index });
    if (word !== "") tokens.push({ operator: OPERATOR_WORDS.get(word.toLowerCase()), word, column: column + opened });
    for (let index = word.length; index < body.length; index += 1)
      tokens.push({ operator: ")", word: ")", column: column + opened + index });
  }
  return tokens;
};

const unquoted = (text: string): string => {
  const quote = text.at(0);
  return text.length >= 2 && (quote === "'" || quote === '"') && text.at(-1) === quote ? text.slice(1, -1) : text;
};

/** Python's `%` formatting as far as policies use it: `%(key)s` and `%%`. */
const parseTemplate = (text: string, column: number): Template => {
  const parts: (string | { key: string })[] = [];
  let constant = "";
  for (let index = 0; index < text.length; ) {
    const percent = text.indexOf("%", index);
    const end = percent < 0 ? text.length : percent;
    constant += text.slice(index, end);
    index = end;
    if (percent < 0) break;
    if (text.startsWith("%%", percent)) {
      constant += "%";
      index += 2;
      continue;
    }
    const [whole, key] = /^%\(([^()%]+)\)s/.exec(text.slice(percent)) ?? refuse(column + percent, "% is no %(key)s");
    if (constant !== "") parts.push(constant);
    constant = "";
    parts.push({ key: key ?? "" });
    index += whole.length;
  }
  if (constant !== "") parts.push(constant);
  return parts;
};

/** Where the colon is that ends the left side. */
const leftLength = (word: string, column: number): number => {
  const quote = word.at(0);
  if (quote !== "'" && quote !== '"') {
    const colon = word.indexOf(":");
    return colon < 0 ? refuse(column, `"${word}" is no check: it needs the form kind:match`) : colon;
  }
  const end = word.indexOf(quote, 1);
  if (end < 0) refuse(column, "the quote does not end before the next blank");
  return word.at(end + 1) === ":" ? end + 1 : refuse(column + end + 1, "a colon has to follow the quoted text");
};

const literalOf = (left: string, column: number): string | undefined => {
  const text = unquoted(left);
  if (text !== left) return text.includes("\\") ? refuse(column, "quoted text has no escapes here") : text;
  return /^(?:True|False|None|0|-?[1-9][0-9]*)$/.test(left) ? left : undefined;
};

const parseWord = (word: string, column: number): Check => {
  if (word === "@") return { kind: "always" };
  if (word === "!") return { kind: "never" };
  const length = leftLength(word, column);
  const left = word.slice(0, length);
  const match = word.slice(length + 1);
  if (match === "") refuse(column + length + 1, "nothing follows the colon");
  const unsupported = UNSUPPORTED_KINDS.get(left);
  if (unsupported !== undefined) refuse(column, unsupported);
  if (left === "rule") return { kind: "rule", name: match };
  const skipped = unquoted(match) === match ? 1 : 2;
  const right = parseTemplate(unquoted(match), column + length + skipped);
  if (left === "role") return { kind: "role", role: right };
  const text = literalOf(left, column);
  if (text !== undefined) return { kind: "literal", text, right };
  if (!/^[^()'"%.]+(?:\.[^()'"%.]+)*$/.test(left)) refuse(column, `"${left}" is no name of a credential`);
  return { kind: "credential", key: left, right };
};

/** Recursive descent: `or` of `and`s of `not`s, as upstream binds them. */
class Parser {
  readonly #tokens: readonly Token[];
  readonly #endColumn: number;
  #position = 0;

  constructor(tokens: readonly Token[], endColumn: number) {
    this.#tokens = tokens;
    this.#endColumn = endColumn;
  }

  whole(): Check {
    const check = this.#joined("or", 0);
    const token = this.#tokens[this.#position];
    if (token !== undefined) refuse(token.column, `"and" or "or" has to come before "${token.word}"`);
    return check;
  }

  #joined(operator: "or" | "and", nesting: number): Check {
    const next = (): Check => (operator === "or" ? this.#joined("and", nesting) : this.#single(nesting));
    const first = next();
    const checks = [first];
    while (this.#tokens[this.#position]?.operator === operator) {
      this.#position += 1;
      checks.push(next());
    }
    return checks.length === 1 ? first : { kind: operator, checks };
  }

  #single(nesting: number): Check {
    const token = this.#tokens[this.#position] ?? refuse(this.#endColumn, "a check is missing at the end");
    this.#position += 1;
    if (nesting >= MAX_CHECK_NESTING) refuse(token.column, `nested more than ${MAX_CHECK_NESTING} deep`);
    switch (token.operator) {
      case undefined:
        return parseWord(token.word, token.column);
      case "not":
        return { kind: "not", check: this.#single(nesting + 1) };
      case "(": {
        const inner = this.#joined("or", nesting + 1);
        const closing = this.#tokens[this.#position];
        if (closing?.operator !== ")") refuse(closing?.column ?? this.#endColumn, '")" is missing');
        this.#position += 1;
        return inner;
      }
      case ")":
      case "and":
      case "or":
        return refuse(token.column, `a check has to come before "${token.word}"`);
    }
  }
}

/**
 * Parses a check string of the policy language (README.md). The empty text always allows, as upstream has it; one of blanks
 * only is refused. Throws `invalid-policy` with the column.
 */
export const parseCheck = (text: string): Check => {
  if (text === "") return { kind: "always" };
  if (text.length > MAX_CHECK_CHARACTERS) refuse(1, `longer than ${MAX_CHECK_CHARACTERS} characters`);
  const tokens = tokensOf(text);
  if (tokens.length === 0) refuse(1, "only blanks: write @ for always or ! for never");
  return new Parser(tokens, text.length + 1).whole();
};
