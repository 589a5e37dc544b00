import type { TSchema } from "typebox";
import { Compile } from "typebox/compile";
import { RingsteadError } from "../errors.ts";

/** Longest part of a refusal's message that quotes the request. */
const MESSAGE_MAX = 500;

/**
 * A compiled check of `schema` that passes the value on or throws RingsteadError `bad-request` with the first problem in
 * words. `part` names what is looked at when the problem is at the root.
 */
export const validator = (schema: TSchema, part: string): ((value: unknown) => unknown) => {
  const compiled = Compile(schema);
  return (value) => {
    if (compiled.Check(value)) return value;
    const [problem] = compiled.Errors(value);
    const where = problem?.instancePath ? problem.instancePath.slice(1) : part;
    const message = `Invalid input for field '${where}': ${problem?.message ?? "not acceptable"}`;
    throw new RingsteadError("bad-request", message.slice(0, MESSAGE_MAX), { field: where });
  };
};
