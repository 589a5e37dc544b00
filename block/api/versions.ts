import type { HttpRequest } from "../../common/http/route.ts";
import { formatMicroversion, MICROVERSION_MAX, MICROVERSION_MIN } from "../core/microversion.ts";
import type { BlockContext, BlockRoute } from "./block-route.ts";

/** When 3.71 was added to the real service. */
const UPDATED = "2023-08-31T00:00:00Z";

const v3 = (request: Pick<HttpRequest, "origin">, context: BlockContext) => ({
  id: "v3.0",
  status: "CURRENT",
  version: formatMicroversion(MICROVERSION_MAX),
  min_version: formatMicroversion(MICROVERSION_MIN),
  updated: UPDATED,
  links: [
    { rel: "describedby", type: "text/html", href: "https://docs.openstack.org/" },
    { rel: "self", href: `${request.origin ?? context.publicEndpoint}/v3/` },
  ],
  "media-types": [{ base: "application/json", type: "application/vnd.openstack.volume+json;version=3" }],
});

/** What there is, for those who have no token yet. */
export const VERSION_ROUTES: readonly BlockRoute[] = [
  {
    method: "GET",
    path: "/",
    request: {},
    handler: (request, context) => ({ status: 300, body: { versions: [v3(request, context)] } }),
  },
  // The link that the version has of itself ends with a slash; clients ask for either.
  ...["/v3", "/v3/"].map(
    (path): BlockRoute => ({
      method: "GET",
      path,
      request: {},
      handler: (request, context) => ({ status: 200, body: { versions: [v3(request, context)] } }),
    }),
  ),
  {
    method: "GET",
    path: "/healthcheck",
    request: {},
    handler: async (_request, { database }) => {
      await database.selectFrom("volume_types").select("id").limit(1).execute();
      return { status: 200, body: "OK" };
    },
  },
];
