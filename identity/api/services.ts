import { parsed } from "../store/records.ts";
import type { IdentityRoute } from "./identity-route.ts";
import { text } from "./list-parameters.ts";
import { resourceRoutes, tableReading } from "./resource-routes.ts";

export const SERVICE_ROUTES: readonly IdentityRoute[] = resourceRoutes({
  path: "/v3/services",
  plural: "services",
  singular: "service",
  filters: { name: text("name"), type: text("type") },
  reading: tableReading("services"),
  present: ({ id, type, name, description, enabled, extra }) => ({
    ...parsed(extra),
    id,
    type,
    ...(name === null ? {} : { name }),
    ...(description === null ? {} : { description }),
    enabled: enabled === 1,
  }),
  list: { operation: "identity:list_services" },
  show: { operation: "identity:get_service" },
});
