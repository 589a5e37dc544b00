/** What a policy is for: an endpoint, a service, or a service in a region and those beneath it. What is not meant is an empty text. */
export type PolicyAssociation = {
  readonly policy_id: string;
  readonly endpoint_id: string;
  readonly service_id: string;
  readonly region_id: string;
};

type PlacedEndpoint = { readonly id: string; readonly service_id: string; readonly region_id: string | null };
type PlacedRegion = { readonly id: string; readonly parent_region_id: string | null };

/** The region and those above it, the nearest first; one that leads back ends it. */
const regionsFrom = (regionId: string | null, regions: ReadonlyMap<string, PlacedRegion>): string[] => {
  const chain: string[] = [];
  for (let next = regionId; next !== null && !chain.includes(next); ) {
    chain.push(next);
    next = regions.get(next)?.parent_region_id ?? null;
  }
  return chain;
};

/** The policy for an endpoint: its own, else that of its service in its region or the nearest above, else that of its service. */
export const policyFor = (
  endpoint: PlacedEndpoint,
  associations: readonly PolicyAssociation[],
  regions: ReadonlyMap<string, PlacedRegion>,
): string | undefined => {
  const own = associations.find(({ endpoint_id }) => endpoint_id === endpoint.id);
  if (own !== undefined) return own.policy_id;
  const ofService = associations.filter(({ service_id }) => service_id === endpoint.service_id);
  for (const regionId of [...regionsFrom(endpoint.region_id, regions), ""]) {
    const found = ofService.find(({ region_id }) => region_id === regionId);
    if (found !== undefined) return found.policy_id;
  }
  return undefined;
};

/** Whether an association is for an endpoint, directly or not. */
export const concerns = (
  { endpoint_id, service_id, region_id }: PolicyAssociation,
  endpoint: PlacedEndpoint,
  regions: ReadonlyMap<string, PlacedRegion>,
): boolean => {
  if (endpoint_id !== "") return endpoint_id === endpoint.id;
  if (service_id !== endpoint.service_id) return false;
  return region_id === "" || regionsFrom(endpoint.region_id, regions).includes(region_id);
};
