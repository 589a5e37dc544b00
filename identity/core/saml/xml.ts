import { identityError } from "../identity-error.ts";

/** Well-formed XML. Only `element` makes it, so that no text of a client becomes markup. */
export type Xml = { readonly xml: string };

export const XML_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n';

/** What XML 1.0 cannot carry in any form: most control characters, halves of surrogate pairs, U+FFFE and U+FFFF. */
const UNWRITABLE = /[^\t\n\r\u{20}-\u{D7FF}\u{E000}-\u{FFFD}\u{10000}-\u{10FFFF}]/u;
const PLAIN = /[^ !#$%()*+,\-./0-9:;=?@A-Z[\\\]^_`a-z{|}~]/gu;
const NAMED: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

const reference = (character: string): string =>
  NAMED[character] ?? `&#x${(character.codePointAt(0) ?? 0).toString(16).toUpperCase()};`;

/**
 * Text as ASCII, everything else as references. Clients such as keystoneauth decode an answer of type text/xml as Latin-1 and send it on in
 * whatever encoding their HTTP library likes; and parsers change line ends that are not references, after which a signature does not hold.
 */
const written = (text: string): string => {
  if (UNWRITABLE.test(text)) {
    throw identityError("bad-request", `${JSON.stringify(text)} has characters that XML cannot carry.`);
  }
  return text.replace(PLAIN, reference);
};

/** Strings among `children` and all attributes are text, whatever they hold. Throws `bad-request` for characters that XML cannot carry. */
export const element = (
  name: string,
  attributes: Readonly<Record<string, string>>,
  ...children: readonly (Xml | string | undefined)[]
): Xml => {
  const pairs = Object.entries(attributes).map(([key, value]) => ` ${key}="${written(value)}"`);
  const inner = children.map((child) => (typeof child === "string" ? written(child) : (child?.xml ?? "")));
  return { xml: `<${name}${pairs.join("")}>${inner.join("")}</${name}>` };
};
