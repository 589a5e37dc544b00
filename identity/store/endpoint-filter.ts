import { passesFilters } from "../core/endpoint-filter.ts";
import { type IdentityDatabase, parsed } from "./records.ts";
import type { Endpoint } from "./schema.ts";

type Filterable = Pick<Endpoint, "id" | "service_id" | "region_id" | "interface">;

/** Those of `endpoints` that were associated with the project, one by one or through groups. None: nobody filters for it. */
export const endpointsOfProject = async <Row extends Filterable>(
  database: IdentityDatabase,
  projectId: string,
  endpoints: readonly Row[],
): Promise<Row[]> => {
  const single = await database
    .selectFrom("project_endpoints")
    .select("endpoint_id")
    .where("project_id", "=", projectId)
    .execute();
  const groups = await database
    .selectFrom("project_endpoint_groups")
    .innerJoin("endpoint_groups", "endpoint_groups.id", "project_endpoint_groups.endpoint_group_id")
    .select("endpoint_groups.filters")
    .where("project_id", "=", projectId)
    .execute();
  const ids = new Set(single.map(({ endpoint_id }) => endpoint_id));
  const filters = groups.map((group) => parsed(group.filters));
  return endpoints.filter((endpoint) => ids.has(endpoint.id) || filters.some((one) => passesFilters(one, endpoint)));
};
