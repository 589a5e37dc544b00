import type { Clock } from "../../common/clock.ts";
import { RingsteadError } from "../../common/errors.ts";
import { sleep, type Worker } from "../../common/worker.ts";
import type { Row } from "../../storage-node/wire.ts";
import { dueObjectOf } from "../core/expiry.ts";

/** How often the index is asked; an object is 404 from its due time on, and gone from listings within about this. */
const ROUND_MS = 1000;
/** Objects of one shard in one round; the rest follow at once in the next. */
const PAGE_LIMIT = 100;
/** Deletions under way at once: more would take from clients. */
const CONCURRENCY = 8;

/** The index of due times, sharded. */
export type DueRows = {
  readonly shardCount: number;
  due(shard: number, nowMs: number, limit: number): Promise<readonly Row[]>;
  handled(shard: number, row: Row): Promise<void>;
};

/** Deletes an object if it is still due at exactly that time. Errors: "no-such-container", and whatever else says "not now". */
export type Expire = (account: string, container: string, name: string, deleteAt: number) => Promise<void>;

/**
 * Removes objects whose time has come, with their rows. Every proxy runs it: deleting is conditional on the due time, so that two of them, or
 * one that died and came back, do no harm. A row leaves the index only after its object was dealt with.
 */
export const expirer = (index: DueRows, expire: Expire, clock: Clock): Worker => {
  let handled = 0;
  let postponed = 0;
  let failure: unknown;
  const handle = async (shard: number, row: Row): Promise<void> => {
    const due = dueObjectOf(row);
    if (due !== undefined) {
      try {
        await expire(due.account, due.container, due.name, due.deleteAt);
      } catch (error) {
        // Without its container there is no object; anything else is tried again in the next round.
        if (!(error instanceof RingsteadError && error.code === "no-such-container")) throw error;
      }
    }
    await index.handled(shard, row);
    handled += 1;
  };
  /** One object that cannot be dealt with keeps no other from its end. */
  const handleAll = async (shard: number, rows: readonly Row[]): Promise<void> => {
    for (const result of await Promise.allSettled(rows.map((row) => handle(shard, row)))) {
      if (result.status === "fulfilled") continue;
      postponed += 1;
      if (!(result.reason instanceof RingsteadError)) failure = result.reason;
    }
  };
  return {
    name: "expirer",
    status: () => ({ handled, postponed }),
    async work(signal) {
      let isFull = false;
      failure = undefined;
      for (let shard = 0; shard < index.shardCount && !signal.aborted; shard++) {
        const rows = await index.due(shard, clock.nowMs(), PAGE_LIMIT);
        const before = handled;
        for (let at = 0; at < rows.length && !signal.aborted; at += CONCURRENCY) {
          await handleAll(shard, rows.slice(at, at + CONCURRENCY));
        }
        isFull ||= rows.length === PAGE_LIMIT && handled > before;
      }
      if (failure !== undefined) throw failure;
      return isFull ? "busy" : "idle";
    },
    waitForWork: (signal) => sleep(ROUND_MS, signal),
  };
};
