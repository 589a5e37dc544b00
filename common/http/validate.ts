import type { TSchema } from "typebox";
import { Compile } from "typebox/compile";
import { RingsteadError } from "../errors.ts";

/** Longest part of a refusal's message that quotes the request. */
const MESSAGE_MAX = 500;

const compiledSchemas = new WeakMap<TSchema, ReturnType<typeof Compile>>();

/** Compiled when it is first asked for: an API has hundreds of schemas, and most processes meet a few of them. */
const compiledOf = (schema: TSchema): ReturnType<typeof Compile> => {
  let compiled = compiledSchemas.get(schema);
  if (compiled === undefined) {
    compiled = Compile(schema);
    compiledSchemas.set(schema, compiled);
  }
  return compiled;
};

/**
 * A compiled check of `schema` that passes the value on or throws RingsteadError `bad-request` with the first problem in
 * words. `part` names what is looked at when the problem is at the root.
 */
export const validator = (schema: TSchema, part: string): ((value: unknown) => unknown) => {
  return (value) => {
    const compiled = compiledOf(schema);
    if (compiled.Check(value)) return value;
    const [problem] = compiled.Errors(value);
    const where = problem?.instancePath ? problem.instancePath.slice(1) : part;
    const message = `Invalid input for field '${where}': ${problem?.message ?? "not acceptable"}`;
    throw new RingsteadError("bad-request", message.slice(0, MESSAGE_MAX), { field: where });
  };
};
