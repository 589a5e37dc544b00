import { type Static, Type } from "typebox";

const RULES_MAX = 64;
const METHOD_MAX = 255;

const switchable = Type.Optional(Type.Union([Type.Boolean(), Type.Null()]));

/** Keystone's resource options of a user, as a body gives them: `null` takes one back. */
export const userOptions = Type.Object(
  {
    ignore_change_password_upon_first_use: switchable,
    ignore_password_expiry: switchable,
    ignore_lockout_failure_attempts: switchable,
    ignore_user_inactivity: switchable,
    lock_password: switchable,
    multi_factor_auth_enabled: switchable,
    /** Lists of methods, each of which is enough. */
    multi_factor_auth_rules: Type.Optional(
      Type.Union([
        Type.Array(
          Type.Array(Type.String({ minLength: 1, maxLength: METHOD_MAX }), {
            minItems: 1,
            maxItems: RULES_MAX,
            uniqueItems: true,
          }),
          { maxItems: RULES_MAX, uniqueItems: true },
        ),
        Type.Null(),
      ]),
    ),
    immutable: switchable,
  },
  { additionalProperties: false },
);

export type UserOptions = Readonly<Record<string, unknown>>;

/** `before` with what `given` sets, without what it takes back. */
export const mergedOptions = (before: UserOptions, given: Static<typeof userOptions> | undefined): UserOptions => {
  const merged: Record<string, unknown> = { ...before };
  for (const [name, value] of Object.entries(given ?? {})) {
    if (value === null) Reflect.deleteProperty(merged, name);
    else merged[name] = value;
  }
  return merged;
};

/** Whether a change that sets `fields` and `options` may be made to what has the options `before`: an immutable thing only stops being so. */
export const mayChange = (before: UserOptions, fields: object): boolean => {
  if (before["immutable"] !== true) return true;
  const options: unknown = "options" in fields ? fields.options : undefined;
  const released =
    typeof options === "object" && options !== null && "immutable" in options && options.immutable !== true;
  return released && Object.keys(fields).length === 1;
};
