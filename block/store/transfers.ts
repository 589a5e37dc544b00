import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import type { Selectable } from "kysely";
import type { BlockDatabase, TransfersTable } from "./schema.ts";

export type Transfer = Selectable<TransfersTable>;

/** Cinder's volume_transfer_key_length and volume_transfer_salt_length: 64 and 32 random bits. */
const KEY_BYTES = 8;
const SALT_BYTES = 4;

const hashOf = (salt: string, key: string): string => createHmac("sha256", salt).update(key).digest("hex");

/** A key that only who made the transfer is told, and what is kept of it. */
export const newTransferKey = (): { readonly key: string; readonly salt: string; readonly hash: string } => {
  const key = randomBytes(KEY_BYTES).toString("hex");
  const salt = randomBytes(SALT_BYTES).toString("hex");
  return { key, salt, hash: hashOf(salt, key) };
};

export const isTransferKey = ({ salt, key_hash: hash }: Transfer, key: string): boolean =>
  timingSafeEqual(Buffer.from(hashOf(salt, key)), Buffer.from(hash));

export const findTransfer = (database: BlockDatabase, id: string): Promise<Transfer | undefined> =>
  database.selectFrom("transfers").selectAll().where("id", "=", id).executeTakeFirst();
