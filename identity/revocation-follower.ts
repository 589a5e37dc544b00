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

export type RevocationFollower = {
  readonly source: RevocationSource;
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
  let lastError: string | undefined;

  /** Since the identity service was heard last; 0 while it is there. */
  const silentMs = (): number => {
    const sinceMs = Math.max(0, clock.nowMs() - heardAtMs);
    return isConnected && sinceMs <= ANSWER_WITHIN_MS ? 0 : sinceMs;
  };
  const silentSeconds = (): number => Math.ceil(silentMs() / 1000);

  const listen = async (): Promise<void> => {
    const news = await client.revocations(instance, lastId);
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
      assertFresh: () => {
        if (isConnected && clock.nowMs() - heardAtMs <= ANSWER_WITHIN_MS) return;
        if (silentMs() < graceSeconds * 1000) return;
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
