import { Type } from "typebox";
import type { PolicyTarget } from "../../common/policy/policy-engine.ts";
import { identityError, notFound } from "../core/identity-error.ts";
import type { DirectoryGroup, DirectoryUser } from "../store/directory.ts";
import { type Condition, findRecord } from "../store/records.ts";
import { assertWritable, confined } from "./directory-writes.ts";
import { baseUrl, guardedRoute, type IdentityContext, type IdentityRoute } from "./identity-route.ts";
import { anyQuery, flag, listBody, listQueryOf, plainQuery, text } from "./list-parameters.ts";
import { bareMicroseconds } from "./times.ts";
import { userBody } from "./user-body.ts";

const MEMBER_PATH = "/v3/groups/:group_id/users/:user_id";
const memberParameters = Type.Object({ group_id: Type.String(), user_id: Type.String() });
const groupParameters = Type.Object({ group_id: Type.String() });
const userParameters = Type.Object({ user_id: Type.String() });

type Pair = { readonly group_id: string; readonly user_id: string };

/** A group in Keystone's shape. */
export const groupBody = ({ id, name, domainId, description, extra }: DirectoryGroup) => ({
  ...extra,
  id,
  name,
  domain_id: domainId,
  description,
});

const existingGroup = async (id: string, { directory }: IdentityContext): Promise<DirectoryGroup> => {
  const group = await directory.findGroup(id);
  if (group === undefined) throw notFound("group", id);
  return group;
};

const existingUser = async (id: string, { directory }: IdentityContext): Promise<DirectoryUser> => {
  const user = await directory.findUser(id);
  if (user === undefined) throw notFound("user", id);
  return user;
};

const groupTarget = async (id: string, context: IdentityContext): Promise<PolicyTarget> => ({
  "target.group.domain_id": (await existingGroup(id, context)).domainId,
});

const pairTarget = async ({ group_id, user_id }: Pair, context: IdentityContext): Promise<PolicyTarget> => ({
  "target.group.domain_id": (await existingGroup(group_id, context)).domainId,
  "target.user.domain_id": (await existingUser(user_id, context)).domainId,
  "target.user.id": user_id,
});

const notMember = ({ group_id, user_id }: Pair) =>
  identityError("not-found", `User '${user_id}' not found in group '${group_id}'`);

const equals = (column: string, value: string): Condition => ({ column, comparison: "equals", value });

const listMembers = guardedRoute({
  method: "GET",
  path: "/v3/groups/:group_id/users",
  operation: "identity:list_users_in_group",
  request: { params: groupParameters, query: anyQuery },
  target: ({ params }, context) => groupTarget(params.group_id, context),
  handler: async (request, context, caller) => {
    const { group_id } = request.params;
    await existingGroup(group_id, context);
    const filters = {
      name: text("name"),
      domain_id: text("domain_id"),
      enabled: flag("enabled"),
      password_expires_at: { column: "password_expires_at_ms", kind: "time" } as const,
    };
    const query = listQueryOf(filters, plainQuery(request.query));
    const members = { ...query, conditions: [equals("group_id", group_id), ...query.conditions] };
    const users = await context.directory.listUsers(confined(members, caller));
    const base = baseUrl(request, context);
    const items = users.map((user) => ({ ...userBody(user), links: { self: `${base}/users/${user.id}` } }));
    return { status: 200, body: listBody(request, "users", items, query, base) };
  },
});

const listGroupsOfUser = guardedRoute({
  method: "GET",
  path: "/v3/users/:user_id/groups",
  operation: "identity:list_groups_for_user",
  request: { params: userParameters, query: anyQuery },
  target: async ({ params }, context) => {
    const { domainId } = await existingUser(params.user_id, context);
    return { user_id: params.user_id, "target.user.id": params.user_id, "target.user.domain_id": domainId };
  },
  handler: async (request, context, caller) => {
    const { user_id } = request.params;
    await existingUser(user_id, context);
    const query = listQueryOf({ name: text("name"), domain_id: text("domain_id") }, plainQuery(request.query));
    const memberships = { ...query, conditions: [equals("user_id", user_id), ...query.conditions] };
    const groups = await context.directory.listGroups(confined(memberships, caller));
    const rows = await context.database
      .selectFrom("group_members")
      .select(["group_id", "expires_at_ms"])
      .where("user_id", "=", user_id)
      .where("expires_at_ms", "is not", null)
      .execute();
    const ends = new Map(rows.map(({ group_id, expires_at_ms }) => [group_id, expires_at_ms]));
    const base = baseUrl(request, context);
    const items = groups.map((group) => {
      const endsAtMs = ends.get(group.id) ?? null;
      return {
        ...groupBody(group),
        membership_expires_at: endsAtMs === null ? null : bareMicroseconds(endsAtMs),
        links: { self: `${base}/groups/${group.id}` },
      };
    });
    return { status: 200, body: listBody(request, "groups", items, query, base) };
  },
});

const checkMember = guardedRoute({
  method: "GET",
  path: MEMBER_PATH,
  operation: "identity:check_user_in_group",
  request: { params: memberParameters },
  target: ({ params }, context) => pairTarget(params, context),
  handler: async ({ params }, context) => {
    await existingGroup(params.group_id, context);
    await existingUser(params.user_id, context);
    const groupIds = await context.directory.groupIdsOf(params.user_id);
    if (!groupIds.includes(params.group_id)) throw notMember(params);
    return { status: 204 };
  },
});

/** Throws `not-found`, and `forbidden` where either is kept elsewhere. */
const assertPairWritable = async (pair: Pair, context: IdentityContext): Promise<void> => {
  const group = await existingGroup(pair.group_id, context);
  const user = await existingUser(pair.user_id, context);
  const kept = await context.directory.isWritable(group.domainId);
  if (kept !== (await context.directory.isWritable(user.domainId))) {
    throw identityError(
      "forbidden",
      `Group membership across backend boundaries is not allowed. Group in question is ${group.id}, user is ${user.id}.`,
    );
  }
  await assertWritable(context, group.domainId);
};

const addMember = guardedRoute({
  method: "PUT",
  path: MEMBER_PATH,
  operation: "identity:add_user_to_group",
  request: { params: memberParameters },
  target: ({ params }, context) => pairTarget(params, context),
  handler: async ({ params: { group_id, user_id } }, context) => {
    await assertPairWritable({ group_id, user_id }, context);
    await context.changes.write(async (transaction, change) => {
      if ((await findRecord(transaction, "groups", group_id)) === undefined) throw notFound("group", group_id);
      if ((await findRecord(transaction, "users", user_id)) === undefined) throw notFound("user", user_id);
      await transaction
        .insertInto("group_members")
        .values({ group_id, user_id, expires_at_ms: null })
        // What ended with a provider's word stays from now on.
        .onConflict((conflict) => conflict.columns(["group_id", "user_id"]).doUpdateSet({ expires_at_ms: null }))
        .execute();
      change.revoke({ kind: "recheck", userId: user_id });
      change.notify({ action: "update", resource: "group", id: group_id, details: { added: user_id } });
    });
    return { status: 204 };
  },
});

const removeMember = guardedRoute({
  method: "DELETE",
  path: MEMBER_PATH,
  operation: "identity:remove_user_from_group",
  request: { params: memberParameters },
  target: ({ params }, context) => pairTarget(params, context),
  handler: async ({ params: { group_id, user_id } }, context) => {
    await assertPairWritable({ group_id, user_id }, context);
    await context.changes.write(async (transaction, change) => {
      const gone = await transaction
        .deleteFrom("group_members")
        .where("group_id", "=", group_id)
        .where("user_id", "=", user_id)
        .executeTakeFirst();
      if (gone.numDeletedRows === 0n) throw notMember({ group_id, user_id });
      change.revoke({ kind: "recheck", userId: user_id });
      change.notify({ action: "update", resource: "group", id: group_id, details: { removed: user_id } });
    });
    return { status: 204 };
  },
});

export const MEMBERSHIP_ROUTES: readonly IdentityRoute[] = [
  listMembers,
  listGroupsOfUser,
  checkMember,
  addMember,
  removeMember,
];
