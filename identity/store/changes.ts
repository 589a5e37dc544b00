import { sql } from "kysely";
import { Type } from "typebox";
import { Value } from "typebox/value";
import type { Clock } from "../../common/clock.ts";
import { messageOf } from "../../common/errors.ts";
import { isPostgres } from "../../common/sql/dialect.ts";
import { withTransaction } from "../../common/sql/transaction.ts";
import { sleep, type Worker } from "../../common/worker.ts";
import { type RevocationEvent, revocationEvent } from "../core/revocation.ts";
import type { IdentityDatabase, IdentityTransaction } from "./records.ts";

/** What was done to a thing, for the audit log and whoever listens on the bus. */
type Notification = {
  readonly action: "create" | "update" | "delete" | "disable" | "authenticate" | "revoke";
  /** `user`, `project`, `role_assignment`, …: Keystone's resource types. */
  readonly resource: string;
  readonly id: string;
  readonly details?: Readonly<Record<string, unknown>>;
};

/** A revocation without its time, which is that of the write. */
type Revocation = Omit<RevocationEvent, "issuedBeforeMs">;

/** What a write collects beside its rows. */
export type ChangeSet = {
  /** Tokens issued until now that fit are void, or are looked at again; see core/revocation.ts. */
  revoke(revocation: Revocation): void;
  notify(notification: Notification): void;
  /** Runs once the write is durable, for what is not in the database. */
  afterwards(work: () => void): void;
};

export type CommittedChange = {
  /** Grows from write to write. */
  readonly id: number;
  readonly revocations: readonly RevocationEvent[];
  readonly notifications: readonly Notification[];
};

export type Changes = {
  /**
   * Does `work` in one transaction, together with the row that tells other processes. Resolves when it is durable. Nothing is told
   * of a write that failed. On PostgreSQL `work` may run more than once.
   */
  write<Result>(work: (transaction: IdentityTransaction, change: ChangeSet) => Promise<Result>): Promise<Result>;
  /** Does `work` in one transaction that nobody needs to hear of: counters, times of logins. Caches keep what they have. */
  record<Result>(work: (transaction: IdentityTransaction) => Promise<Result>): Promise<Result>;
  /** `listener` is called in the turn in which a write became durable, in the order of the writes. */
  onCommit(listener: (change: CommittedChange) => void): void;
  /**
   * Tells listeners of what other processes wrote, some 250 ms later at most. Undefined on SQLite, where nobody else writes.
   */
  readonly follower: Worker | undefined;
  /** A time for a token: later than every revocation that was written before. Milliseconds. */
  issueTimeMs(): number;
};

export type ChangesOptions = {
  /** The handle that writes, which nobody else has. */
  readonly database: IdentityDatabase;
  readonly clock: Clock;
  /** Told what a listener threw; the write holds all the same. */
  readonly onListenerError: (error: unknown) => void;
};

const FOLLOW_INTERVAL_MS = 250;
const FOLLOWED_AT_ONCE = 1_000;

/**
 * A revocation's time lies this far ahead, and tokens that are issued after it lie behind it: one that was issued between the write's last
 * statement and its commit, from what was there before, is revoked too.
 */
const COMMIT_MARGIN_MS = 500;

/**
 * The one way to write. Writes of all processes follow one another, so that ids of changes are in the order in which they became visible:
 * who has read up to an id has missed none before it.
 */
export const createChanges = ({ database, clock, onListenerError }: ChangesOptions): Changes => {
  const listeners: ((change: CommittedChange) => void)[] = [];
  let revokedUntilMs = 0;

  const tell = (change: CommittedChange): void => {
    for (const listener of listeners) {
      try {
        listener(change);
      } catch (thrown) {
        onListenerError(new Error(`a listener of changes failed: ${messageOf(thrown)}`, { cause: thrown }));
      }
    }
  };

  /** Ids of own writes that the follower has not come to yet. */
  const own = new Set<number>();
  const isShared = isPostgres(database);
  let followedId: number | undefined;

  const follow = async (): Promise<void> => {
    const rows = await database
      .selectFrom("changes")
      .selectAll()
      .where("id", ">", followedId ?? 0)
      .orderBy("id")
      .limit(FOLLOWED_AT_ONCE)
      .execute();
    for (const row of rows) {
      followedId = row.id;
      revokedUntilMs = Math.max(revokedUntilMs, row.revocations === null ? 0 : row.at_ms);
      if (own.delete(row.id)) continue;
      tell({ id: row.id, revocations: storedRevocations(row.revocations), notifications: [] });
    }
  };

  const write: Changes["write"] = async (work) => {
    let collected = emptyCollection();
    let id = 0;
    let atMs = 0;
    const result = await withTransaction(database, async (transaction) => {
      collected = emptyCollection();
      await oneWriterAtATime(transaction);
      const done = await work(transaction, {
        revoke: (event) => void collected.revocations.push(event),
        notify: (notification) => void collected.notifications.push(notification),
        afterwards: (task) => void collected.later.push(task),
      });
      // Behind every token: those are issued behind the last event, also when the clock was set back or another node's is ahead.
      const known = isShared ? await latestTime(transaction) : 0;
      atMs = Math.max(clock.nowMs() + COMMIT_MARGIN_MS, revokedUntilMs + 1, known + 1);
      const { revocations } = collected;
      const timed = revocations.length === 0 ? null : JSON.stringify(withTime(revocations, atMs));
      const row = await transaction
        .insertInto("changes")
        .values({ at_ms: atMs, revocations: timed })
        .returning("id")
        .executeTakeFirstOrThrow();
      id = row.id;
      return done;
    });
    const { revocations, notifications, later } = collected;
    if (revocations.length > 0) revokedUntilMs = Math.max(revokedUntilMs, atMs);
    if (isShared) own.add(id);
    tell({ id, revocations: withTime(revocations, atMs), notifications });
    for (const task of later) task();
    // A commit that took longer than the margin: tokens issued meanwhile are caught by saying it once more.
    if (revocations.length > 0 && clock.nowMs() > atMs) {
      await write(async (_transaction, change) => {
        for (const event of revocations) change.revoke(event);
      });
    }
    return result;
  };

  return {
    onCommit: (listener) => void listeners.push(listener),
    follower: isShared
      ? {
          name: "changes-of-others",
          status: () => ({ followedId }),
          work: async () => {
            await follow();
            return "idle";
          },
          waitForWork: (signal) => sleep(FOLLOW_INTERVAL_MS, signal),
        }
      : undefined,
    record: (work) => withTransaction(database, work),
    issueTimeMs: () => Math.max(clock.nowMs(), revokedUntilMs + 1),
    write,
  };
};

/** SQLite has one writer by itself. On PostgreSQL the lock comes before the transaction's first look, so that it sees all writes before it. */
const oneWriterAtATime = async (transaction: IdentityTransaction): Promise<void> => {
  if (isPostgres(transaction)) await sql`LOCK TABLE changes IN EXCLUSIVE MODE`.execute(transaction);
};

const storedEvents = Type.Array(revocationEvent);

/** The revocations of a row of `changes`. */
export const storedRevocations = (text: string | null): RevocationEvent[] => {
  const value: unknown = text === null ? [] : JSON.parse(text);
  return Value.Check(storedEvents, value) ? value : [];
};

const latestTime = async (transaction: IdentityTransaction): Promise<number> => {
  const row = await transaction.selectFrom("changes").select("at_ms").orderBy("id", "desc").limit(1).executeTakeFirst();
  return row?.at_ms ?? 0;
};

type Collection = {
  readonly revocations: Revocation[];
  readonly notifications: Notification[];
  readonly later: (() => void)[];
};

const emptyCollection = (): Collection => ({ revocations: [], notifications: [], later: [] });

const withTime = (revocations: readonly Revocation[], issuedBeforeMs: number): RevocationEvent[] =>
  revocations.map((event) => ({ ...event, issuedBeforeMs }));
