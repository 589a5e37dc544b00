import { sql } from "kysely";
import { codeOf } from "../../common/errors.ts";
import {
  type FailedLogins,
  inactiveSinceMs,
  isLocked,
  type PasswordState,
  passwordVerdict,
} from "../core/password-rules.ts";
import type { Directory } from "./directory.ts";
import { NO_PASSWORD } from "./passwords.ts";
import { parsed } from "./records.ts";
import type { SqlDirectoryOptions } from "./sql-directory.ts";

/** How exactly a user's last login is remembered: what counts in days need not be written at each login. */
const ACTIVITY_STEP_MS = 3_600_000;
/** The row that is written for failed logins of nobody. */
const NOBODY_FAILED_AT = "nobody_failed_at_ms";

/** A user with the newest password, whose times these are where nothing else is said. */
type Account = FailedLogins &
  PasswordState & {
    readonly id: string;
    readonly enabled: number;
    readonly options: string;
    readonly user_created_at_ms: number;
    readonly last_active_at_ms: number | null;
    readonly password_id: number;
    readonly hash: string;
  };

/**
 * Checks a password, counts what fails, and remembers logins. Whatever is named, existing or not, locked or not, it costs one hash and, where
 * failures are counted, one write, and only then does it matter what was found.
 */
export const createPasswordCheck = (options: SqlDirectoryOptions): Directory["verifyPassword"] => {
  const { database, changes, hasher, clock, config } = options;

  const accountOf = async (userId: string): Promise<Account | undefined> => {
    const rows = sql<Account>`
      SELECT u.id, u.enabled, u.options, u.failed_login_count, u.failed_login_at_ms, u.created_at_ms AS user_created_at_ms,
        u.last_active_at_ms, p.id AS password_id, p.hash, p.created_at_ms, p.expires_at_ms, p.self_service
      FROM users u JOIN passwords p ON p.id = (SELECT MAX(id) FROM passwords WHERE user_id = u.id)
      WHERE u.id = ${userId}`;
    return (await rows.execute(database)).rows[0];
  };

  const countFailure = async (userId: string | undefined): Promise<void> => {
    if (config.lockout.failureAttempts === 0) return;
    const nowMs = clock.nowMs();
    const expiredMs = nowMs - config.lockout.durationSeconds * 1000;
    await changes.record(async (transaction) => {
      if (userId === undefined) {
        await transaction
          .insertInto("settings")
          .values({ key: NOBODY_FAILED_AT, value: String(nowMs) })
          .onConflict((conflict) => conflict.column("key").doUpdateSet({ value: String(nowMs) }))
          .execute();
        return;
      }
      // What failed before a lock that is over does not count again.
      await sql`
        UPDATE users SET failed_login_at_ms = ${nowMs}, failed_login_count = CASE
          WHEN failed_login_count >= ${config.lockout.failureAttempts} AND failed_login_at_ms <= ${expiredMs} THEN 1
          ELSE failed_login_count + 1 END
        WHERE id = ${userId}`.execute(transaction);
    });
  };

  const rememberLogin = async (account: Account): Promise<void> => {
    const nowMs = clock.nowMs();
    const watched = inactiveSinceMs(config.passwords, nowMs) !== undefined;
    const isStale = watched && (account.last_active_at_ms ?? 0) + ACTIVITY_STEP_MS <= nowMs;
    if (!isStale && account.failed_login_count === 0) return;
    await changes.record((transaction) =>
      transaction
        .updateTable("users")
        .set({ failed_login_count: 0, failed_login_at_ms: null, ...(watched ? { last_active_at_ms: nowMs } : {}) })
        .where("id", "=", account.id)
        .execute(),
    );
  };

  /** Hashes anew what was hashed with less than is asked for now: only at a login is the password at hand. */
  const rehash = async (account: Account, password: string): Promise<void> => {
    if (!hasher.isOutdated(account.hash)) return;
    try {
      const hash = await hasher.hash(password);
      await changes.record((transaction) =>
        transaction.updateTable("passwords").set({ hash }).where("id", "=", account.password_id).execute(),
      );
    } catch (thrown) {
      // The next login does it.
      if (codeOf(thrown) !== "too-busy") throw thrown;
    }
  };

  const isDisabled = (account: Account, userOptions: Readonly<Record<string, unknown>>): boolean => {
    const sinceMs = inactiveSinceMs(config.passwords, clock.nowMs());
    if (account.enabled !== 1) return true;
    if (sinceMs === undefined || userOptions["ignore_user_inactivity"] === true) return false;
    return (account.last_active_at_ms ?? account.user_created_at_ms) <= sinceMs;
  };

  return async (userId, password) => {
    const first = userId === undefined ? undefined : await accountOf(userId);
    const stored = first === undefined || first.hash === NO_PASSWORD ? undefined : first.hash;
    const isRight = await hasher.verify(password, stored);
    // Looked at again: guesses that were made at the same time have counted meanwhile.
    const account = first && config.lockout.failureAttempts > 0 ? await accountOf(first.id) : first;
    const userOptions = account === undefined ? {} : parsed(account.options);
    const locked = account !== undefined && isLocked(config.lockout, userOptions, account, clock.nowMs());
    if (account === undefined || locked || !isRight) {
      await countFailure(locked ? undefined : account?.id);
      return locked ? "locked" : "wrong";
    }
    // Whoever is disabled is refused by others; that the password was right is no activity.
    if (isDisabled(account, userOptions)) return "right";
    await rehash(account, password);
    const verdict = passwordVerdict(account, userOptions, clock.nowMs());
    if (verdict === "right") await rememberLogin(account);
    return verdict;
  };
};
