import type { HttpRequest } from "../../common/http/route.ts";
import { identityError } from "../core/identity-error.ts";
import { baseUrl, type IdentityContext, type IdentityRoute, openRoute } from "./identity-route.ts";

/** The version document of Keystone 2023.1 (Zed's successor says the same): clients read `id` and `links`. */
const versionDocument = (request: HttpRequest<object>, context: IdentityContext) => ({
  id: "v3.14",
  status: "stable",
  updated: "2020-04-07T00:00:00Z",
  links: [{ rel: "self", href: `${baseUrl(request, context)}/` }],
  "media-types": [{ base: "application/json", type: "application/vnd.openstack.identity-v3+json" }],
});

/** Which versions there are: v3 alone. */
const versionList = (path: string): IdentityRoute =>
  openRoute({
    method: "GET",
    path,
    request: {},
    handler: (request, context) => ({
      status: 300,
      headers: { location: `${baseUrl(request, context)}/` },
      body: { versions: { values: [versionDocument(request, context)] } },
    }),
  });

/** A call of v2.0: whoever makes it without having asked for versions learns where v3 is. */
const goneSinceV3 = (method: "GET" | "POST", path: string): IdentityRoute =>
  openRoute({
    method,
    path,
    request: {},
    handler: (request, context) => {
      throw identityError("gone", `Identity v2.0 is not offered any more: use v3 at ${baseUrl(request, context)}.`);
    },
  });

export const VERSION_ROUTES: readonly IdentityRoute[] = [
  versionList("/"),
  // Clients that were given a URL of v2.0 ask there first, and go on with what they find.
  versionList("/v2.0"),
  goneSinceV3("POST", "/v2.0/tokens"),
  goneSinceV3("GET", "/v2.0/tenants"),
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
