import { createHash } from "node:crypto";
import type { Changes } from "./changes.ts";
import type { IdentityDatabase } from "./records.ts";

export type MappedKind = "user" | "group";
export type Mapping = { readonly domainId: string; readonly localId: string; readonly kind: MappedKind };

const IDS_PER_QUERY = 500;
const ROWS_PER_INSERT = 100;
/** Ids known to be kept; beyond it the memory begins anew, at the cost of a look-up each. */
const KNOWN_MAX = 100_000;
const PUBLIC_ID = /^[0-9a-f]{64}$/;

/** The same for the same entry in every installation, as Keystone's generator `sha256` has it. */
export const publicIdOf = (domainId: string, kind: MappedKind, localId: string): string =>
  createHash("sha256").update(domainId).update(kind).update(localId).digest("hex");

/** Public ids of what directories know by ids of their own. */
export type IdMappings = {
  find(publicId: string): Promise<Mapping | undefined>;
  /** The public ids of these, in their order; from now on `find` knows them. Resolves once that is durable. */
  publicIds(domainId: string, kind: MappedKind, localIds: readonly string[]): Promise<string[]>;
};

export const createIdMappings = (database: IdentityDatabase, changes: Changes): IdMappings => {
  let known = new Set<string>();
  const remember = (id: string): void => {
    if (known.size >= KNOWN_MAX) known = new Set();
    known.add(id);
  };

  const missingOf = async (ids: readonly string[]): Promise<Set<string>> => {
    const missing = new Set(ids);
    for (let start = 0; start < ids.length; start += IDS_PER_QUERY) {
      const slice = ids.slice(start, start + IDS_PER_QUERY);
      const rows = await database
        .selectFrom("id_mappings")
        .select("public_id")
        .where("public_id", "in", slice)
        .execute();
      for (const { public_id } of rows) missing.delete(public_id);
    }
    return missing;
  };

  return {
    find: async (publicId) => {
      if (!PUBLIC_ID.test(publicId)) return undefined;
      const row = await database
        .selectFrom("id_mappings")
        .selectAll()
        .where("public_id", "=", publicId)
        .executeTakeFirst();
      return row && { domainId: row.domain_id, localId: row.local_id, kind: row.kind };
    },
    publicIds: async (domainId, kind, localIds) => {
      const rows = localIds.map((localId) => ({
        public_id: publicIdOf(domainId, kind, localId),
        domain_id: domainId,
        local_id: localId,
        kind,
      }));
      const missing = await missingOf(rows.map((row) => row.public_id).filter((id) => !known.has(id)));
      const added = rows.filter((row) => missing.has(row.public_id));
      for (let start = 0; start < added.length; start += ROWS_PER_INSERT) {
        await changes.record((transaction) =>
          transaction
            .insertInto("id_mappings")
            .values(added.slice(start, start + ROWS_PER_INSERT))
            .onConflict((conflict) => conflict.doNothing())
            .execute(),
        );
      }
      for (const row of rows) remember(row.public_id);
      return rows.map((row) => row.public_id);
    },
  };
};
