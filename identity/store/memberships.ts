import type { Clock } from "../../common/clock.ts";
import type { Directory } from "./directory.ts";
import type { IdentityDatabase } from "./records.ts";
import type { MembershipSource } from "./role-assignments.ts";

const IDS_PER_QUERY = 500;

type MembershipOptions = {
  readonly database: IdentityDatabase;
  readonly directory: Pick<Directory, "groupIdsOf" | "userIdsIn">;
  readonly clock: Clock;
};

/** Memberships for lists: this database's groups in one query for many, those of other directories one by one. */
export const createMembershipSource = ({ database, directory, clock }: MembershipOptions): MembershipSource => {
  const readSlice = async (ids: readonly string[], found: Map<string, Set<string>>): Promise<void> => {
    const own = await database
      .selectFrom("groups")
      .select("id")
      .where("id", "in", [...ids])
      .execute();
    const rows = await database
      .selectFrom("group_members")
      .select(["group_id", "user_id"])
      .where("group_id", "in", [...ids])
      .where((where) => where.or([where("expires_at_ms", "is", null), where("expires_at_ms", ">", clock.nowMs())]))
      .execute();
    for (const { group_id, user_id } of rows) found.get(group_id)?.add(user_id);
    const kept = new Set(own.map(({ id }) => id));
    for (const id of ids) {
      if (kept.has(id)) continue;
      for (const userId of await directory.userIdsIn(id)) found.get(id)?.add(userId);
    }
  };
  return {
    groupIdsOf: (userId) => directory.groupIdsOf(userId),
    membersOf: async (groupIds) => {
      const found = new Map(groupIds.map((id) => [id, new Set<string>()]));
      for (let start = 0; start < groupIds.length; start += IDS_PER_QUERY) {
        await readSlice(groupIds.slice(start, start + IDS_PER_QUERY), found);
      }
      return new Map([...found].map(([id, members]) => [id, [...members].sort()]));
    },
  };
};
