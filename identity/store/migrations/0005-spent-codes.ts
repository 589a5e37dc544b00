import type { Kysely } from "kysely";

/** What may be used once: nonces of signed requests, codes of authenticators. */
export const spentCodes = async (database: Kysely<unknown>): Promise<void> => {
  await database.schema
    .createTable("spent_codes")
    .addColumn("code", "text", (column) => column.primaryKey())
    .addColumn("expires_at_ms", "bigint", (column) => column.notNull())
    .execute();
  await database.schema.createIndex("spent_code_expiry").on("spent_codes").column("expires_at_ms").execute();
};
