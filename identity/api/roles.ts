import { listRecords, parsed, findRecord } from "../store/records.ts";
import type { Role } from "../store/schema.ts";
import type { IdentityRoute } from "./identity-route.ts";
import { text } from "./list-parameters.ts";
import { resourceRoutes } from "./resource-routes.ts";

export const roleBody = ({ id, name, domain_id, description, options, extra }: Role) => ({
  ...parsed(extra),
  id,
  name,
  domain_id,
  description,
  options: parsed(options),
});

export const ROLE_ROUTES: readonly IdentityRoute[] = resourceRoutes({
  path: "/v3/roles",
  plural: "roles",
  singular: "role",
  filters: { name: text("name"), domain_id: text("domain_id") },
  reading: {
    find: (id, { database }) => findRecord(database, "roles", id),
    list: (query, { database }) => {
      const isAsked = query.conditions.some(({ column }) => column === "domain_id");
      const globalOnly = { column: "domain_id", comparison: "equals", value: null } as const;
      return listRecords(database, "roles", {
        ...query,
        conditions: isAsked ? query.conditions : [...query.conditions, globalOnly],
      });
    },
  },
  present: roleBody,
  target: ({ domain_id }) => ({ "target.role.domain_id": domain_id }),
  list: { operation: "identity:list_roles" },
  show: { operation: "identity:get_role" },
});
