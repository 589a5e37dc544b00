import { type Catalog, renderCatalog } from "../core/catalog.ts";
import { endpointsOfProject } from "./endpoint-filter.ts";
import type { IdentityDatabase } from "./records.ts";

/**
 * The catalog of a token: what is enabled, and of that only what is associated with its project where anything is
 * (OS-EP-FILTER).
 */
export const readCatalog = async (
  database: IdentityDatabase,
  userId: string,
  projectId: string | undefined,
): Promise<Catalog> => {
  const services = await database.selectFrom("services").selectAll().where("enabled", "=", 1).orderBy("type").execute();
  // Disabled ones too: a project whose only endpoint is disabled does not see all others instead.
  const all = await database.selectFrom("endpoints").selectAll().orderBy("id").execute();
  const associated = projectId === undefined ? [] : await endpointsOfProject(database, projectId, all);
  const endpoints = (associated.length === 0 ? all : associated)
    .filter(({ enabled }) => enabled === 1)
    .map(({ id, service_id, region_id, interface: face, url }) => ({
      id,
      serviceId: service_id,
      regionId: region_id,
      interface: face,
      url,
    }));
  // A service none of whose endpoints is enabled does not run.
  const running = services.filter((service) => endpoints.some(({ serviceId }) => serviceId === service.id));
  return renderCatalog(running, endpoints, { userId, projectId });
};
