import type { Clock } from "../../common/clock.ts";
import { messageOf, RingsteadError } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import { sleep, type Worker } from "../../common/worker.ts";
import type { BackupStore } from "../backup/backup-store.ts";
import { sweepStore } from "../backup/sweep.ts";
import { REQUEST_LIMIT_MS } from "../backup/swift-object-store.ts";
import { beginSweep, endSweep, renewSweep, type SweepLease as Lease } from "../store/backup-stores.ts";
import type { BlockDatabase } from "../store/schema.ts";

/**
 * A sweep that was killed holds backups up for so long at most. Longer than two requests with their repetitions, so that no removal that was
 * sent is under way any more when it is over.
 */
const LEASE_MS = 8 * REQUEST_LIMIT_MS;
const RENEW_WITHIN_MS = LEASE_MS - 3 * REQUEST_LIMIT_MS;
const LOOK_MS = 5_000;
/** After one that could not be done. */
const PAUSE_MS = 600_000;

export type SweeperOptions = {
  readonly database: BlockDatabase;
  storeOf(this: void, projectId: string): BackupStore;
  readonly graceMs: number;
  readonly clock: Clock;
  readonly log: Log;
  /** How often it looks; for tests. */
  readonly lookMs?: number;
};

/** Removes what no backup needs any more, of one project after the other, while none of its backups copies (`backup/sweep.ts`). */
export const createBackupSweeper = ({
  database,
  storeOf,
  graceMs,
  clock,
  log,
  lookMs = LOOK_MS,
}: SweeperOptions): Worker => {
  const total = { removed: 0, removedBytes: 0, sweeps: 0, lastFailure: "" };

  /** Keeps the lease as long as the sweep goes on. */
  const hold = (lease: Lease) => async (): Promise<void> => {
    const nowMs = clock.nowMs();
    if (lease.untilMs - nowMs >= RENEW_WITHIN_MS) return;
    const next = nowMs + LEASE_MS;
    if (nowMs >= lease.untilMs || !(await renewSweep(database, lease.projectId, lease.untilMs, next)))
      throw new RingsteadError("sweep-lost", "backups may have begun to copy meanwhile");
    lease.untilMs = next;
  };

  const sweep = async (lease: Lease): Promise<void> => {
    const { projectId: project } = lease;
    const nowMs = clock.nowMs();
    const figures = await sweepStore({ store: storeOf(project), nowMs, graceMs, hold: hold(lease) });
    total.removed += figures.removed;
    total.removedBytes += figures.removedBytes;
    await endSweep(database, lease, { garbageSinceMs: figures.young > 0 ? nowMs : null, nowMs, failure: null });
    log.info("a project's backups were swept", { project, ...figures });
  };

  return {
    name: "backup-sweeper",
    status: () => ({ ...total }),
    work: async () => {
      const nowMs = clock.nowMs();
      const lease = await beginSweep(database, nowMs - graceMs, nowMs, LEASE_MS);
      if (lease === undefined) return "idle";
      total.sweeps += 1;
      try {
        await sweep(lease);
      } catch (error) {
        total.lastFailure = messageOf(error);
        log.error("a project's backups are not swept", { project: lease.projectId, error });
        // Looked at again, and until then kept.
        const garbageSinceMs = clock.nowMs() - graceMs + PAUSE_MS;
        await endSweep(database, lease, {
          garbageSinceMs,
          nowMs: clock.nowMs(),
          failure: total.lastFailure.slice(0, 255),
        });
      }
      return "busy";
    },
    waitForWork: (signal) => sleep(lookMs, signal),
  };
};
