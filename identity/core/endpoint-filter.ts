/** The members of an endpoint that a group's filters look at. */
export const FILTERABLE = ["service_id", "region_id", "interface"] as const;

type Filterable = { readonly [Name in (typeof FILTERABLE)[number]]: unknown };

/** What of an endpoint must be equal; nothing at all lets every endpoint through. */
export type EndpointFilters = Readonly<Record<string, unknown>>;

/** The name of a filter that no endpoint has, if there is one. */
export const unknownFilter = (filters: EndpointFilters): string | undefined =>
  Object.keys(filters).find((name) => !FILTERABLE.some((known) => known === name));

export const passesFilters = (filters: EndpointFilters, endpoint: Filterable): boolean =>
  FILTERABLE.every((name) => !Object.hasOwn(filters, name) || filters[name] === endpoint[name]);
