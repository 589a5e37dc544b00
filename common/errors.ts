/**
 * An operational error: expected, typed, answered. `code` is stable and is what edges translate into the status and shape of
 * their API; `fields` are for the log and for messages. Programmer errors are asserts, never this.
 */
export class RingsteadError extends Error {
  override readonly name = "RingsteadError";
  readonly code: string;
  readonly fields: Readonly<Record<string, unknown>>;

  constructor(code: string, message: string, fields: Record<string, unknown> = {}) {
    super(message);
    this.code = code;
    this.fields = fields;
  }
}

/** The text of anything thrown, for logs and one-line messages. */
export const messageOf = (thrown: unknown): string => (thrown instanceof Error ? thrown.message : String(thrown));

/** The `code` of a RingsteadError or of a Node system error (`ENOENT`, …); undefined for anything else. */
export const codeOf = (thrown: unknown): string | undefined => {
  if (!(thrown instanceof Error) || !("code" in thrown)) return undefined;
  return typeof thrown.code === "string" ? thrown.code : undefined;
};
