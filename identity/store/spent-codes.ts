import { createHash } from "node:crypto";
import type { Changes } from "./changes.ts";

/**
 * Uses up something that is good for one use: true for the first who brings it. In the database, so that neither a restart nor another
 * process lets it pass twice. `code` begins with what it is; after `expiresAtMs` it must be worthless for another reason.
 */
export const spendOnce = (
  changes: Pick<Changes, "record">,
  code: string,
  nowMs: number,
  expiresAtMs: number,
): Promise<boolean> =>
  changes.record(async (transaction) => {
    await transaction.deleteFrom("spent_codes").where("expires_at_ms", "<=", nowMs).execute();
    const spent = await transaction
      .insertInto("spent_codes")
      // Of one length whatever a client invents, and no list of what was used.
      .values({ code: createHash("sha256").update(code).digest("base64url"), expires_at_ms: expiresAtMs })
      .onConflict((conflict) => conflict.column("code").doNothing())
      .executeTakeFirst();
    return spent.numInsertedOrUpdatedRows === 1n;
  });
