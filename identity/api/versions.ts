import type { HttpRequest } from "../../common/http/route.ts";
import { baseUrl, type IdentityContext, type IdentityRoute, openRoute } from "./identity-route.ts";

/** The version document of Keystone 2023.1 (Zed's successor says the same): clients read `id` and `links`. */
const versionDocument = (request: HttpRequest<object>, context: IdentityContext) => ({
  id: "v3.14",
  status: "stable",
  updated: "2020-04-07T00:00:00Z",
  links: [{ rel: "self", href: `${baseUrl(request, context)}/` }],
  "media-types": [{ base: "application/json", type: "application/vnd.openstack.identity-v3+json" }],
});

export const VERSION_ROUTES: readonly IdentityRoute[] = [
  openRoute({
    method: "GET",
    path: "/",
    request: {},
    handler: (request, context) => ({
      status: 300,
      headers: { location: `${baseUrl(request, context)}/` },
      body: { versions: { values: [versionDocument(request, context)] } },
    }),
  }),
  openRoute({
    method: "GET",
    path: "/v3",
    request: {},
    handler: (request, context) => ({ status: 200, body: { version: versionDocument(request, context) } }),
  }),
  openRoute({
    method: "GET",
    path: "/healthcheck",
    request: {},
    handler: async (_request, { database }) => {
      await database.selectFrom("settings").select("key").limit(1).execute();
      return { status: 200, body: "OK" };
    },
  }),
];
