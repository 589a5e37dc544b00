import { parsed } from "../store/records.ts";
import type { Endpoint } from "../store/schema.ts";
import type { IdentityRoute } from "./identity-route.ts";
import { text } from "./list-parameters.ts";
import { resourceRoutes, tableReading } from "./resource-routes.ts";

export const endpointBody = (endpoint: Endpoint) => ({
  ...parsed(endpoint.extra),
  id: endpoint.id,
  interface: endpoint.interface,
  region: endpoint.region_id,
  region_id: endpoint.region_id,
  service_id: endpoint.service_id,
  url: endpoint.url,
  enabled: endpoint.enabled === 1,
});

export const ENDPOINT_ROUTES: readonly IdentityRoute[] = resourceRoutes({
  path: "/v3/endpoints",
  plural: "endpoints",
  singular: "endpoint",
  filters: { service_id: text("service_id"), region_id: text("region_id"), interface: text("interface") },
  reading: tableReading("endpoints"),
  present: endpointBody,
  list: { operation: "identity:list_endpoints" },
  show: { operation: "identity:get_endpoint" },
});
