import { RingsteadError } from "../errors.ts";

/** Names through which a parsed object could change what other objects inherit. */
const isPoison = (key: string, value: unknown): boolean =>
  key === "__proto__" || (key === "constructor" && typeof value === "object" && value !== null && "prototype" in value);

/** Deeper than any request of our APIs, and shallow enough for every recursion that looks at the value later. */
const DEPTH_MAX = 64;

/** Strips poison in place without recursion, so that nesting cannot exhaust the stack. */
const disarm = (root: object): void => {
  let level: object[] = [root];
  for (let depth = 1; level.length > 0; depth += 1) {
    if (depth > DEPTH_MAX) throw new RingsteadError("bad-request", `JSON nested deeper than ${DEPTH_MAX} levels.`);
    const next: object[] = [];
    for (const node of level) {
      for (const [key, value] of Object.entries(node)) {
        if (isPoison(key, value)) Reflect.deleteProperty(node, key);
        else if (typeof value === "object" && value !== null) next.push(value);
      }
    }
    level = next;
  }
};

/**
 * The value of a JSON body; `undefined` for an empty one. Keys that would reach a prototype are dropped, of duplicate
 * keys the last one counts. Throws RingsteadError `bad-request`.
 */
export const parseJsonBody = (text: string): unknown => {
  if (text.trim() === "") return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new RingsteadError("bad-request", "The request body is not valid JSON.");
  }
  if (typeof value === "object" && value !== null) disarm(value);
  return value;
};
