import { findRecord, listRecords, parsed } from "../store/records.ts";
import type { Project } from "../store/schema.ts";
import type { IdentityRoute } from "./identity-route.ts";
import { flag, text } from "./list-parameters.ts";
import { resourceRoutes } from "./resource-routes.ts";

export const domainBody = ({ id, name, description, enabled, options, extra }: Project) => ({
  ...parsed(extra),
  id,
  name,
  description,
  enabled: enabled === 1,
  tags: [],
  options: parsed(options),
});

export const DOMAIN_ROUTES: readonly IdentityRoute[] = resourceRoutes({
  path: "/v3/domains",
  plural: "domains",
  singular: "domain",
  filters: { name: text("name"), enabled: flag("enabled") },
  reading: {
    find: async (id, { database }) => {
      const row = await findRecord(database, "projects", id);
      return row?.is_domain === 1 ? row : undefined;
    },
    list: (query, { database }) =>
      listRecords(database, "projects", {
        ...query,
        conditions: [...query.conditions, { column: "is_domain", comparison: "equals", value: 1 }],
      }),
  },
  present: domainBody,
  target: ({ id }) => ({ "target.domain.id": id }),
  list: { operation: "identity:list_domains" },
  show: { operation: "identity:get_domain" },
});
