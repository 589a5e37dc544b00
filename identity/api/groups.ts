import { Type } from "typebox";
import { newId } from "../store/records.ts";
import type { Group } from "../store/schema.ts";
import type { DirectoryGroup } from "../store/directory.ts";
import { removeGroup } from "../store/user-removal.ts";
import {
  assertDomain,
  assertNameFree,
  assertWritable,
  confined,
  confinement,
  currentGroup,
  domainOfNew,
} from "./directory-writes.ts";
import { groupBody, MEMBERSHIP_ROUTES } from "./group-members.ts";
import type { IdentityRoute } from "./identity-route.ts";
import { text } from "./list-parameters.ts";
import { extraOf, resourceRoutes } from "./resource-routes.ts";
import { identityError } from "../core/identity-error.ts";

const fields = {
  description: Type.Optional(Type.Union([Type.String({ maxLength: 65_535 }), Type.Null()])),
  domain_id: Type.Optional(Type.String({ minLength: 1, maxLength: 64, pattern: "^[a-zA-Z0-9-]+$" })),
};
const name = Type.String({ minLength: 1, maxLength: 255, pattern: "\\S" });
const createSchema = Type.Object({ ...fields, name });
const updateSchema = Type.Object({ ...fields, name: Type.Optional(name) }, { minProperties: 1 });

const fromRow = (row: Group, extra: Readonly<Record<string, unknown>>): DirectoryGroup => ({
  id: row.id,
  name: row.name,
  domainId: row.domain_id,
  description: row.description,
  extra,
});

/** Groups of users, and who is in them. */
export const GROUP_ROUTES: readonly IdentityRoute[] = [
  ...resourceRoutes({
    path: "/v3/groups",
    plural: "groups",
    singular: "group",
    filters: { name: text("name"), domain_id: text("domain_id") },
    reading: {
      find: (id, { directory }) => directory.findGroup(id),
      list: (query, { directory }, caller) => directory.listGroups(confined(query, caller)),
    },
    present: groupBody,
    target: ({ domainId }) => ({ "target.group.domain_id": domainId }),
    list: {
      operation: "identity:list_groups",
      target: (query, caller) => ({ "target.group.domain_id": confinement(query, caller) }),
    },
    show: { operation: "identity:get_group" },
    create: {
      operation: "identity:create_group",
      schema: createSchema,
      target: (given, caller) => ({ "target.group.domain_id": domainOfNew(given, caller) }),
      run: async (given, { context, caller, transaction, change }) => {
        const domainId = domainOfNew(given, caller);
        await assertWritable(context, domainId);
        await assertDomain(transaction, domainId);
        const row: Group = {
          id: newId(),
          domain_id: domainId,
          name: given.name.trim(),
          description: given.description ?? "",
          extra: extraOf(createSchema, given),
        };
        await assertNameFree(transaction, "group", { id: row.id, domainId, name: row.name });
        await transaction.insertInto("groups").values(row).execute();
        change.notify({ action: "create", resource: "group", id: row.id });
        return fromRow(row, JSON.parse(row.extra) as Record<string, unknown>);
      },
    },
    update: {
      operation: "identity:update_group",
      schema: updateSchema,
      run: async (group, given, write) => {
        if (given.domain_id !== undefined && given.domain_id !== group.domainId) {
          throw identityError("bad-request", "Cannot change Domain ID");
        }
        const { transaction, change } = write;
        const before = await currentGroup(group, write);
        const after: Group = {
          ...before,
          name: given.name?.trim() ?? before.name,
          description: given.description === undefined ? before.description : (given.description ?? ""),
          extra: extraOf(updateSchema, given, before.extra),
        };
        await assertNameFree(transaction, "group", { id: after.id, domainId: after.domain_id, name: after.name });
        await transaction.updateTable("groups").set(after).where("id", "=", after.id).execute();
        change.notify({ action: "update", resource: "group", id: after.id });
        return fromRow(after, JSON.parse(after.extra) as Record<string, unknown>);
      },
    },
    remove: {
      operation: "identity:delete_group",
      run: async (group, write) => {
        await currentGroup(group, write);
        await removeGroup(write.transaction, write.change, group.id);
      },
    },
  }),
  ...MEMBERSHIP_ROUTES,
];
