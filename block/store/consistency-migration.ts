import { randomUUID } from "node:crypto";
import type { Kysely } from "kysely";
import type { Migration } from "../../common/sql/migrations.ts";
import { CONSISTENCY_TYPE_NAME, ONE_INSTANT_SPEC } from "../core/consistency.ts";
import type { BlockSchema } from "./schema.ts";

/** The type of consistency groups, where nobody has one of its name. */
const consistencyType = async (untyped: Kysely<unknown>): Promise<void> => {
  // What is used of these tables was there in the migrations before.
  const database = untyped.withTables<Pick<BlockSchema, "group_types" | "group_specs">>();
  const there = database.selectFrom("group_types").select("id").where("name", "=", CONSISTENCY_TYPE_NAME);
  if ((await there.executeTakeFirst()) !== undefined) return;
  const id = randomUUID();
  await database
    .insertInto("group_types")
    .values({
      id,
      name: CONSISTENCY_TYPE_NAME,
      description: "The type of consistency groups",
      is_public: 1,
      created_at_ms: 0,
    })
    .execute();
  await database
    .insertInto("group_specs")
    .values({ group_type_id: id, key: ONE_INSTANT_SPEC, value: "<is> True" })
    .execute();
};

/** Part of `BLOCK_MIGRATIONS`. */
export const CONSISTENCY_MIGRATIONS: readonly Migration[] = [{ name: "0012-consistency-type", up: consistencyType }];
