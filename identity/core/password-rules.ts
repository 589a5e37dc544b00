import { identityError } from "./identity-error.ts";
import type { UserOptions } from "./user-options.ts";

/** Keystone's max_password_length: what is hashed is bounded. */
export const PASSWORD_MAX = 4_096;

const DAY_MS = 86_400_000;

/** The operator's expression, with what it is called in a refusal. `isMatchedBy` throws `bad-request` where that cannot be told in time. */
export type PasswordPattern = {
  readonly source: string;
  readonly description: string;
  isMatchedBy(password: string): boolean;
};

/** What the operator asks of passwords and their owners; 0 turns a rule off. Keystone's `[security_compliance]`. */
export type PasswordRules = {
  readonly inactiveDays: number;
  readonly expiresDays: number;
  readonly uniqueLastCount: number;
  readonly minimumAgeDays: number;
  /** What a new password must be like, beside its length. */
  readonly pattern: PasswordPattern | undefined;
  readonly changeUponFirstUse: boolean;
};

export type LockoutRule = { readonly failureAttempts: number; readonly durationSeconds: number };

/** What a user's row says about logins that failed. */
export type FailedLogins = { readonly failed_login_count: number; readonly failed_login_at_ms: number | null };

/** What a password's row says beside the hash. */
export type PasswordState = {
  readonly created_at_ms: number;
  readonly expires_at_ms: number | null;
  readonly self_service: number;
};

/** Throws `bad-request` for a password that the rules do not take, with the operator's description. */
export const assertAcceptable = (password: string, { pattern }: Pick<PasswordRules, "pattern">): void => {
  if (password.length > PASSWORD_MAX) {
    throw identityError("bad-request", `Invalid input for field 'password': longer than ${PASSWORD_MAX} characters`);
  }
  if (pattern !== undefined && !pattern.isMatchedBy(password)) {
    throw identityError("bad-request", `The password does not match the requirements: ${pattern.description}.`);
  }
};

/** When a password that is set now ends; null: never. One that an administrator set may have ended as soon as it is set. */
export const expiryOf = (
  { expiresDays, changeUponFirstUse }: PasswordRules,
  options: UserOptions,
  by: "owner" | "administrator",
  nowMs: number,
): number | null => {
  const mustChange = changeUponFirstUse && options["ignore_change_password_upon_first_use"] !== true;
  if (by === "administrator" && mustChange) return nowMs;
  if (expiresDays === 0 || options["ignore_password_expiry"] === true) return null;
  return Math.floor((nowMs + expiresDays * DAY_MS) / 1000) * 1000;
};

/** Whether a password that is right may be used to log in. */
export const passwordVerdict = (
  password: PasswordState,
  options: UserOptions,
  nowMs: number,
): "right" | "expired" | "must-change" => {
  const { created_at_ms, expires_at_ms, self_service } = password;
  if (expires_at_ms === null || expires_at_ms > nowMs || options["ignore_password_expiry"] === true) return "right";
  if (self_service !== 0 || created_at_ms !== expires_at_ms) return "expired";
  return options["ignore_change_password_upon_first_use"] === true ? "right" : "must-change";
};

/** Whether too many logins have failed of late. */
export const isLocked = (
  { failureAttempts, durationSeconds }: LockoutRule,
  options: UserOptions,
  { failed_login_count, failed_login_at_ms }: FailedLogins,
  nowMs: number,
): boolean => {
  if (failureAttempts === 0 || options["ignore_lockout_failure_attempts"] === true) return false;
  if (failed_login_count < failureAttempts || failed_login_at_ms === null) return false;
  return nowMs < failed_login_at_ms + durationSeconds * 1000;
};

/** Users who were active last before this are disabled; undefined where the rule is off. */
export const inactiveSinceMs = ({ inactiveDays }: PasswordRules, nowMs: number): number | undefined =>
  inactiveDays === 0 ? undefined : nowMs - inactiveDays * DAY_MS;

/** Throws `bad-request` where its owner chose the password too lately to choose another. */
export const assertOldEnough = ({ minimumAgeDays }: PasswordRules, password: PasswordState, nowMs: number): void => {
  if (minimumAgeDays === 0 || password.self_service === 0) return;
  const leftMs = password.created_at_ms + minimumAgeDays * DAY_MS - nowMs;
  if (leftMs <= 0) return;
  throw identityError(
    "bad-request",
    "You cannot change your password at this time due to the minimum password age. Once you change your password, it must be used " +
      `for ${minimumAgeDays} day(s) before it can be changed. Please try again in ${Math.floor(leftMs / DAY_MS)} day(s) or contact ` +
      "your administrator to reset your password.",
  );
};

/** Throws `bad-request` where its owner may not choose the password. */
export const assertOwnerMayChoose = (options: UserOptions): void => {
  if (options["lock_password"] !== true) return;
  throw identityError(
    "bad-request",
    "You cannot change your password at this time due to password policy disallowing password changes. Please contact your " +
      "administrator to reset your password.",
  );
};
