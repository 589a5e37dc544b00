import type { IdentityDatabase, IdentityTransaction } from "./records.ts";

/** A password that nobody can give: what is left where an administrator takes a user's password away. */
export const NO_PASSWORD = "";

export type StoredPassword = {
  readonly id: number;
  readonly hash: string;
  readonly created_at_ms: number;
  readonly expires_at_ms: number | null;
  readonly self_service: number;
};

export type NewPassword = {
  readonly userId: string;
  /** NO_PASSWORD for none. */
  readonly hash: string;
  readonly atMs: number;
  readonly expiresAtMs: number | null;
  /** Its owner chose it. */
  readonly selfService: boolean;
};

/** A user's newest passwords, the newest first. */
export const latestPasswords = (database: IdentityDatabase, userId: string, count: number): Promise<StoredPassword[]> =>
  database
    .selectFrom("passwords")
    .select(["id", "hash", "created_at_ms", "expires_at_ms", "self_service"])
    .where("user_id", "=", userId)
    .orderBy("id", "desc")
    .limit(count)
    .execute();

/** Makes this the user's password. Of those before it, `historyCount` less one stay, for later ones to be compared with. */
export const storePassword = async (
  transaction: IdentityTransaction,
  { userId, hash, atMs, expiresAtMs, selfService }: NewPassword,
  historyCount: number,
): Promise<void> => {
  await transaction
    .insertInto("passwords")
    .values({
      user_id: userId,
      hash,
      created_at_ms: atMs,
      expires_at_ms: expiresAtMs,
      self_service: Number(selfService),
    })
    .execute();
  const kept = (await latestPasswords(transaction, userId, Math.max(historyCount, 1))).map(({ id }) => id);
  await transaction.deleteFrom("passwords").where("user_id", "=", userId).where("id", "not in", kept).execute();
};
