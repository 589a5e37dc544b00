import type { Clock } from "../common/clock.ts";
import { messageOf, RingsteadError } from "../common/errors.ts";
import { sleep, type Worker } from "../common/worker.ts";
import type { IdentityClient } from "./client.ts";
import { RevocationList } from "./core/revocation.ts";
import type { RevocationSource } from "./token-verifier.ts";

/** Longer than any token is of use: cluster.toml bounds its life by a day, and the window after it by seven. */
const RETENTION_MS = 8 * 24 * 3_600_000;
/** Between two attempts while the identity service does not answer. */
const RETRY_MS = 250;
/** It answers after 5 s at the latest, with news or without; who is silent for this long hangs. */
const ANSWER_WITHIN_MS = 8_000;
const PRUNE_INTERVAL_MS = 60_000;

/** What a follower knows, and how good its knowledge is. */
export type RevocationNews = RevocationSource & {
  /**
   * Grows each time the identity service is heard again after it was not: it forgets what no living token can fit, so that who keeps something
   * for longer may have missed an event.
   */
  readonly connection: number;
  /** Whether it was asked and did not answer: another question would wait in vain. */
  isSilent(): boolean;
  /** Whether what is known may be gone by: `assertFresh` without throwing. */
  isWithinGrace(): boolean;
};

export type RevocationFollower = {
  readonly source: RevocationNews;
  readonly worker: Worker;
  /** Seconds since the identity service was heard, for a metric and `status`. */
  silentSeconds(): number;
};

export type RevocationFollowerOptions = {
  readonly client: IdentityClient;
  readonly clock: Clock;
  /** Seconds without news during which tokens go on to be verified by what is known. */
  readonly graceSeconds: number;
};

/**
 * Learns what happens to tokens, from the identity process, within a fraction of a second: one request is always waiting there. It counts as
 * heard whenever it answers, news or not.
 */
export const createRevocationFollower = ({
  client,
  clock,
  graceSeconds,
}: RevocationFollowerOptions): RevocationFollower => {
  const list = new RevocationList(RETENTION_MS);
  let instance = "none";
  let lastId = 0;
  let heardAtMs = clock.nowMs();
  let prunedAtMs = heardAtMs;
  let isConnected = false;
  let connection = 0;
  let lastError: string | undefined;

  const sinceHeardMs = (): number => Math.max(0, clock.nowMs() - heardAtMs);
  const isHeard = (): boolean => isConnected && sinceHeardMs() <= ANSWER_WITHIN_MS;
  /** Since the identity service was heard last; 0 while it is there. */
  const silentMs = (): number => (isHeard() ? 0 : sinceHeardMs());
  const isWithinGrace = (): boolean => isHeard() || silentMs() < graceSeconds * 1000;
  const silentSeconds = (): number => Math.ceil(silentMs() / 1000);

  const listen = async (): Promise<void> => {
    const news = await client.revocations(instance, lastId);
    if (!isHeard() || news.instance !== instance) connection += 1;
    // An event that is told twice is judged twice, which is harmless.
    for (const event of news.events) list.add(event);
    instance = news.instance;
    lastId = news.lastId;
    heardAtMs = clock.nowMs();
    isConnected = true;
    lastError = undefined;
    if (heardAtMs - prunedAtMs > PRUNE_INTERVAL_MS) {
      prunedAtMs = heardAtMs;
      list.prune(prunedAtMs);
    }
  };

  return {
    silentSeconds,
    source: {
      list,
      get connection() {
        return connection;
      },
      isSilent: () => !isHeard() && (isConnected || lastError !== undefined),
      isWithinGrace,
      assertFresh: () => {
        if (isWithinGrace()) return;
        throw new RingsteadError("identity-unavailable", "Nothing was heard of revoked tokens for too long.", {
          silentSeconds: silentSeconds(),
        });
      },
      recheck: (token) => client.tokenState(token),
    },
    worker: {
      name: "token-revocations",
      status: () => ({ known: list.count, silentSeconds: silentSeconds(), lastError }),
      work: async (signal) => {
        const listening = listen().then(
          () => "busy" as const,
          (thrown: unknown) => {
            // Expected while the identity process restarts; `silentSeconds` is what an operator watches.
            isConnected = false;
            lastError = messageOf(thrown);
            return "idle" as const;
          },
        );
        // The request that waits for news must not hold up a process that ends.
        return Promise.race([listening, aborted(signal)]);
      },
      waitForWork: (signal) => sleep(RETRY_MS, signal),
    },
  };
};

const aborted = (signal: AbortSignal): Promise<"idle"> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve("idle");
    else signal.addEventListener("abort", () => resolve("idle"), { once: true });
  });
