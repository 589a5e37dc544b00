import { randomUUID } from "node:crypto";
import { type OfferedCatalog, offeredCatalog } from "../core/catalog.ts";
import type { Reader } from "./assignments.ts";
import { endpointsOfProject } from "./endpoint-filter.ts";
import type { IdentityDatabase } from "./records.ts";
import type { Endpoint } from "./schema.ts";

/** Not to be guessed, so that no URL of an endpoint holds one. */
const MARKS = { userId: randomUUID(), projectId: randomUUID() };

type Offers = {
  /** Disabled ones too: a project whose only endpoint is disabled does not see all others instead. */
  readonly endpoints: readonly Endpoint[];
  readonly whole: OfferedCatalog;
  catalogOf(endpoints: readonly Endpoint[]): OfferedCatalog;
};

const readOffers = async (database: IdentityDatabase): Promise<Offers> => {
  const services = await database.selectFrom("services").selectAll().where("enabled", "=", 1).orderBy("type").execute();
  const all = await database.selectFrom("endpoints").selectAll().orderBy("id").execute();
  const catalogOf: Offers["catalogOf"] = (given) => {
    const endpoints = given
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
    return offeredCatalog(running, endpoints, MARKS);
  };
  return { endpoints: all, whole: catalogOf(all), catalogOf };
};

/**
 * The catalog of a token: what is enabled, and of that only what is associated with its project where anything is
 * (OS-EP-FILTER). Projects without associations, that is nearly all, share one.
 */
export const readCatalog = async (
  { database, cache }: Reader,
  projectId: string | undefined,
): Promise<OfferedCatalog> => {
  const offers = await cache.get("catalog", () => readOffers(database));
  if (projectId === undefined) return offers.whole;
  return cache.get(`catalog of ${projectId}`, async () => {
    const associated = await endpointsOfProject(database, projectId, offers.endpoints);
    return associated.length === 0 ? offers.whole : offers.catalogOf(associated);
  });
};
