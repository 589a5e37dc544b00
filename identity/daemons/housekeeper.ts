import type { Clock } from "../../common/clock.ts";
import { sleep, type Worker } from "../../common/worker.ts";
import type { RevocationFeed } from "../revocation-feed.ts";
import type { Changes } from "../store/changes.ts";
import type { IdentityTransaction } from "../store/records.ts";
import type { SamlKeys } from "../store/saml-keys.ts";
import type { SigningKeys } from "../store/signing-keys.ts";

const INTERVAL_MS = 60_000;

export type HousekeeperOptions = {
  readonly changes: Changes;
  readonly revocations: RevocationFeed;
  readonly signingKeys: Pick<SigningKeys, "retire">;
  readonly samlKeys: Pick<SamlKeys, "retire">;
  readonly clock: Clock;
  /** How long a token is of any use. */
  readonly tokensLiveMs: number;
};

/** Removes what has no meaning any more: changes that no living token is older than, tokens of OAuth that are over, keys that nothing is signed with. */
export const createHousekeeper = (options: HousekeeperOptions): Worker => {
  const { changes, revocations, signingKeys, samlKeys, clock, tokensLiveMs } = options;
  let removed = 0;
  return {
    name: "housekeeper",
    status: () => ({ removed }),
    work: async () => {
      const nowMs = clock.nowMs();
      revocations.prune(nowMs);
      signingKeys.retire(tokensLiveMs);
      samlKeys.retire();
      removed += await changes.record(async (transaction) => {
        const old = await transaction
          .deleteFrom("changes")
          .where("at_ms", "<", nowMs - tokensLiveMs)
          .executeTakeFirst();
        const requests = await transaction
          .deleteFrom("request_tokens")
          .where("expires_at_ms", "<", nowMs)
          .executeTakeFirst();
        return Number(old.numDeletedRows + requests.numDeletedRows);
      });
      removed += await endMemberships(changes, nowMs);
      return "idle";
    },
    waitForWork: (signal) => sleep(INTERVAL_MS, signal),
  };
};

/** Takes federated users out of groups when their time is over, tells so, and has their tokens looked at again. */
const endMemberships = async (changes: Changes, nowMs: number): Promise<number> => {
  const over = (transaction: IdentityTransaction) =>
    transaction.selectFrom("group_members").select(["group_id", "user_id"]).where("expires_at_ms", "<", nowMs);
  const any = await changes.record((transaction) => over(transaction).limit(1).executeTakeFirst());
  if (any === undefined) return 0;
  return changes.write(async (transaction, change) => {
    const ended = await over(transaction).execute();
    await transaction.deleteFrom("group_members").where("expires_at_ms", "<", nowMs).execute();
    for (const userId of new Set(ended.map((row) => row.user_id))) change.revoke({ kind: "recheck", userId });
    for (const { group_id, user_id } of ended) {
      change.notify({ action: "update", resource: "group", id: group_id, details: { removed: user_id } });
    }
    return ended.length;
  });
};
