import { RingsteadError } from "../errors.ts";

/** Code of every error in a policy that somebody wrote: a check, a rule, or the file that they are in. */
const INVALID_POLICY = "invalid-policy";

/** `fields` name what is known of the place: `column` (from 1, in the check), `rule`, `file`, `line`. */
export const policyError = (message: string, fields: Record<string, unknown>): RingsteadError =>
  new RingsteadError(INVALID_POLICY, message, fields);

export const isPolicyError = (thrown: unknown): thrown is RingsteadError =>
  thrown instanceof RingsteadError && thrown.code === INVALID_POLICY;
