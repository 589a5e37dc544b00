import type { Selectable } from "kysely";
import type { ChangeSet } from "./changes.ts";
import type { CredentialCipher } from "./credential-cipher.ts";
import { findRecord, type IdentityDatabase, type IdentityTransaction } from "./records.ts";
import type { IdentitySchema } from "./schema.ts";

export type Consumer = Selectable<IdentitySchema["consumers"]>;
export type RequestToken = Selectable<IdentitySchema["request_tokens"]>;
export type AccessToken = Selectable<IdentitySchema["access_tokens"]>;

const TABLES = ["consumers", "request_tokens", "access_tokens"] as const;

/** A secret for its column: sealed, in base64, and bound to whose it is. */
export const sealedSecret = (cipher: CredentialCipher, id: string, secret: string): string =>
  Buffer.from(cipher.seal(`oauth1 ${id}`, secret)).toString("base64");

export const openSecret = (cipher: CredentialCipher, { id, secret }: { id: string; secret: string }): string =>
  cipher.open(`oauth1 ${id}`, Buffer.from(secret, "base64"));

/** Seals every secret anew, after a rotation of keys. How many. */
export const sealOauthSecretsAnew = async (
  transaction: IdentityTransaction,
  cipher: CredentialCipher,
): Promise<number> => {
  let count = 0;
  for (const table of TABLES) {
    const rows = await transaction.selectFrom(table).select(["id", "secret"]).execute();
    for (const row of rows) {
      const secret = sealedSecret(cipher, row.id, openSecret(cipher, row));
      await transaction.updateTable(table).set({ secret }).where("id", "=", row.id).execute();
    }
    count += rows.length;
  }
  return count;
};

export const findConsumer = (database: IdentityDatabase, id: string): Promise<Consumer | undefined> =>
  findRecord(database, "consumers", id);

export const findRequestToken = (database: IdentityDatabase, id: string): Promise<RequestToken | undefined> =>
  findRecord(database, "request_tokens", id);

export const findAccessToken = (database: IdentityDatabase, id: string): Promise<AccessToken | undefined> =>
  findRecord(database, "access_tokens", id);

export const roleIdsOf = ({ role_ids }: Pick<AccessToken, "role_ids">): string[] => {
  const value: unknown = JSON.parse(role_ids);
  return Array.isArray(value) ? value.filter((id) => typeof id === "string") : [];
};

/** Removes an access token and voids what was got by it. */
export const removeAccessToken = async (
  transaction: IdentityTransaction,
  change: ChangeSet,
  id: string,
): Promise<void> => {
  await transaction.deleteFrom("access_tokens").where("id", "=", id).execute();
  change.revoke({ kind: "revoke", accessTokenId: id });
  change.notify({ action: "delete", resource: "OS-OAUTH1:access_token", id });
};

/** Removes a consumer with everything that was granted to it. */
export const removeConsumer = async (
  transaction: IdentityTransaction,
  change: ChangeSet,
  id: string,
): Promise<void> => {
  const granted = await transaction.selectFrom("access_tokens").select("id").where("consumer_id", "=", id).execute();
  for (const token of granted) await removeAccessToken(transaction, change, token.id);
  await transaction.deleteFrom("request_tokens").where("consumer_id", "=", id).execute();
  await transaction.deleteFrom("consumers").where("id", "=", id).execute();
  change.notify({ action: "delete", resource: "OS-OAUTH1:consumer", id });
};
