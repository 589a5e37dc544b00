import { randomUUID } from "node:crypto";
import { type RevocationEvent, RevocationList } from "./core/revocation.ts";
import { type Changes, storedRevocations } from "./store/changes.ts";
import type { IdentityDatabase } from "./store/records.ts";
import type { RevocationFeedResponse } from "./wire.ts";

/** What a waiting listener waits for news at most. */
const WAIT_MS = 5_000;
/** Events of one answer; more come with the next request. */
const EVENTS_PER_ANSWER = 5_000;

type Told = { readonly id: number; readonly event: RevocationEvent };

export type RevocationFeed = {
  /** For this process's own verifier. */
  readonly list: RevocationList;
  /** See `IdentityClient.revocations`. */
  after(instance: string, id: number): Promise<RevocationFeedResponse>;
  /** All that may still matter, for `GET /v3/OS-REVOKE/events`. */
  events(): readonly RevocationEvent[];
  /** Forgets what no living token can fit. */
  prune(nowMs: number): void;
  /** Answers who waits, so that a server can end. */
  close(): void;
};

/**
 * What happened to tokens, from memory: it is told on while the database is away. `retentionMs`: how long a token lives at most. Filled from
 * the changes that the database still has, then by each commit.
 */
export const openRevocationFeed = async (
  database: IdentityDatabase,
  changes: Changes,
  retentionMs: number,
): Promise<RevocationFeed> => {
  const instance = randomUUID();
  const list = new RevocationList(retentionMs);
  let told: Told[] = [];
  let lastId = 0;
  const waiting = new Set<() => void>();
  let isClosed = false;

  const add = (events: readonly RevocationEvent[]): void => {
    for (const event of events) {
      lastId += 1;
      told.push({ id: lastId, event });
      list.add(event);
    }
    for (const wake of waiting) wake();
  };

  changes.onCommit(({ revocations }) => {
    if (revocations.length > 0) add(revocations);
  });
  const rows = await database
    .selectFrom("changes")
    .select("revocations")
    .where("revocations", "is not", null)
    .orderBy("id")
    .execute();
  for (const { revocations } of rows) add(storedRevocations(revocations));

  const answer = (id: number): RevocationFeedResponse => {
    // Ids ascend: the first one wanted is found from the end, where listeners usually are.
    let start = told.length;
    while (start > 0 && (told[start - 1]?.id ?? 0) > id) start -= 1;
    const events = told.slice(start, start + EVENTS_PER_ANSWER);
    return { instance, lastId: events.at(-1)?.id ?? lastId, events: events.map(({ event }) => event) };
  };

  return {
    list,
    events: () => told.map(({ event }) => event),
    prune: (nowMs) => {
      told = told.filter(({ event }) => event.issuedBeforeMs + retentionMs > nowMs);
      list.prune(nowMs);
    },
    close: () => {
      isClosed = true;
      for (const wake of waiting) wake();
    },
    after: async (asked, id) => {
      if (asked !== instance) return answer(0);
      if (id >= lastId && !isClosed) {
        await new Promise<void>((resolve) => {
          const wake = (): void => {
            clearTimeout(timer);
            waiting.delete(wake);
            resolve();
          };
          const timer = setTimeout(wake, WAIT_MS);
          waiting.add(wake);
        });
      }
      return answer(id);
    },
  };
};
