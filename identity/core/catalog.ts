export type CatalogService = { readonly id: string; readonly type: string; readonly name: string | null };

export type CatalogEndpoint = {
  readonly id: string;
  readonly serviceId: string;
  readonly regionId: string | null;
  readonly interface: string;
  /** With `$(project_id)s` and the like. */
  readonly url: string;
};

/** The catalog in the shape of tokens and `GET /v3/auth/catalog`. */
export type Catalog = readonly {
  readonly id: string;
  readonly type: string;
  readonly name: string;
  readonly endpoints: readonly {
    readonly id: string;
    readonly interface: string;
    readonly region: string | null;
    readonly region_id: string | null;
    readonly url: string;
  }[];
}[];

export type CatalogScope = { readonly userId: string; readonly projectId: string | undefined };

const VARIABLES: ReadonlySet<string> = new Set(["project_id", "tenant_id", "user_id"]);

/** A variable, a doubled percent sign, which stands for one, or a sign that stands for nothing. */
const VARIABLE = /[$%]\((\w+)\)s|%%|%|\$\(/g;

/** Whether catalogs can say `url`: whatever it leaves open is known when a token is issued. */
export const isRenderable = (url: string): boolean =>
  [...url.matchAll(VARIABLE)].every(([match, name]) => (name === undefined ? match === "%%" : VARIABLES.has(name)));

/** The URL for `scope`, or undefined where it names something that the scope has not. */
const render = (url: string, scope: CatalogScope): string | undefined => {
  const values: Record<string, string | undefined> = {
    project_id: scope.projectId,
    tenant_id: scope.projectId,
    user_id: scope.userId,
  };
  let complete = true;
  const rendered = url.replaceAll(VARIABLE, (match, name: string | undefined) => {
    if (name === undefined) return match === "%%" ? "%" : match;
    const value = Object.hasOwn(values, name) ? values[name] : undefined;
    if (value === undefined) complete = false;
    return value ?? "";
  });
  return complete ? rendered : undefined;
};

/** The services and the endpoints that `scope` can use; a project's endpoint is left out of tokens without a project. */
export const renderCatalog = (
  services: readonly CatalogService[],
  endpoints: readonly CatalogEndpoint[],
  scope: CatalogScope,
): Catalog =>
  services.map((service) => ({
    id: service.id,
    type: service.type,
    name: service.name ?? "",
    endpoints: endpoints
      .filter((endpoint) => endpoint.serviceId === service.id)
      .flatMap((endpoint) => {
        const url = render(endpoint.url, scope);
        if (url === undefined) return [];
        const { id, regionId } = endpoint;
        return [{ id, interface: endpoint.interface, region: regionId, region_id: regionId, url }];
      }),
  }));

/** Texts that stand for the ids in a catalog's text until it is filled in; nothing else may hold them. */
export type CatalogMarks = { readonly userId: string; readonly projectId: string };

/** What catalogs are made of. */
export type OfferedCatalog = {
  render(scope: CatalogScope): Catalog;
  /** The same as JSON. It is made once for all scopes of a kind: a token is answered with its catalog, which is most of the answer. */
  text(scope: CatalogScope): string;
};

/** Ids that stand in JSON as they are. */
const PLAIN = /^[A-Za-z0-9_-]*$/;

/** What stands between the quotes of a JSON string. */
const quoted = (id: string): string => (PLAIN.test(id) ? id : JSON.stringify(id).slice(1, -1));

export const offeredCatalog = (
  services: readonly CatalogService[],
  endpoints: readonly CatalogEndpoint[],
  marks: CatalogMarks,
): OfferedCatalog => {
  let ofProjects: string | undefined;
  let ofOthers: string | undefined;
  const textFor = (scope: CatalogScope): string => JSON.stringify(renderCatalog(services, endpoints, scope));
  const filled = (text: string, mark: string, id: string): string => text.split(mark).join(quoted(id));
  return {
    render: (scope) => renderCatalog(services, endpoints, scope),
    text: ({ userId, projectId }) => {
      if (projectId === undefined) {
        ofOthers ??= textFor({ ...marks, projectId });
        return filled(ofOthers, marks.userId, userId);
      }
      ofProjects ??= textFor(marks);
      return filled(filled(ofProjects, marks.userId, userId), marks.projectId, projectId);
    },
  };
};
