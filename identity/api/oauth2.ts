import { Type } from "typebox";
import { codeOf, messageOf } from "../../common/errors.ts";
import type { HttpMethod, HttpResponse } from "../../common/http/route.ts";
import { authenticationRequest } from "./authentication-body.ts";
import { baseUrl, type IdentityRoute, openRoute } from "./identity-route.ts";

/** RFC 6749, section 5.2; `other_error` is Keystone's. */
type OAuth2Error = "invalid_client" | "invalid_request" | "unsupported_grant_type" | "other_error";

const SECRET_MAX = 4096;

type Asked = Parameters<typeof baseUrl>;

/** OAuth's shape of an error, not Keystone's: clients of this call are OAuth's. */
const refusal = (asked: Asked, status: number, error: OAuth2Error, description: string): HttpResponse => ({
  status,
  headers: { ...NOT_KEPT, ...(status === 401 ? { "www-authenticate": `Keystone uri="${baseUrl(...asked)}"` } : {}) },
  body: { error, error_description: description },
});

/** RFC 6749, section 5.1. */
const NOT_KEPT = { "cache-control": "no-store", pragma: "no-cache" };

type Client = { readonly id: string; readonly secret: string };

/** HTTP Basic with both parts, or what is wrong. */
const clientOf = (authorization: string | undefined): Client | string => {
  if (authorization === undefined || authorization === "") return "OAuth2.0 client authorization is required.";
  const [type = "", encoded = ""] = authorization.split(" ", 2);
  if (type.toLowerCase() !== "basic")
    return `OAuth2.0 client authorization type ${type.toLowerCase()} is not supported.`;
  const text = Buffer.from(encoded, "base64").toString("utf8");
  const colon = text.indexOf(":");
  const [id, secret] = colon < 0 ? [text, ""] : [text.slice(0, colon), text.slice(colon + 1)];
  return id === "" || secret === "" ? "OAuth2.0 client authorization is invalid." : { id, secret };
};

/** What keeps a token from an application credential, in OAuth's words. */
const refusalOf = (asked: Asked, thrown: unknown): HttpResponse => {
  const code = codeOf(thrown);
  if (code === "unauthorized") return refusal(asked, 401, "invalid_client", messageOf(thrown));
  if (code === "bad-request") return refusal(asked, 400, "invalid_request", messageOf(thrown));
  throw thrown;
};

/** RFC 6749, section 4.4: an application credential is a client, its id and secret are the client's, and the token is one like any other. */
const issueAccessToken = openRoute({
  method: "POST",
  path: "/v3/OS-OAUTH2/token",
  takesForm: true,
  request: {
    body: Type.Optional(Type.Object({ grant_type: Type.Optional(Type.String({ maxLength: 255 })) })),
  },
  handler: async (request, context) => {
    const asked: Asked = [request, context];
    const client = clientOf(request.header("authorization"));
    if (typeof client === "string") return refusal(asked, 401, "invalid_client", client);
    const { grant_type: grant } = request.body ?? {};
    if (grant === undefined) return refusal(asked, 400, "invalid_request", "The parameter grant_type is required.");
    if (grant !== "client_credentials")
      return refusal(asked, 400, "unsupported_grant_type", `The parameter grant_type ${grant} is not supported.`);
    if (client.secret.length > SECRET_MAX) return refusal(asked, 400, "invalid_request", "The secret is too long.");
    const identity = { methods: ["application_credential"], application_credential: client };
    try {
      const wanted = authenticationRequest({ ...request, body: { auth: { identity } } });
      const { token, details } = await context.tokens.authenticate(wanted);
      const seconds = Math.floor((details.expiresAtMs - context.clock.nowMs()) / 1000);
      return {
        status: 200,
        headers: NOT_KEPT,
        body: { access_token: token, token_type: "Bearer", expires_in: seconds },
      };
    } catch (thrown) {
      return refusalOf(asked, thrown);
    }
  },
});

const notAllowed = (method: HttpMethod): IdentityRoute =>
  openRoute({
    method,
    path: "/v3/OS-OAUTH2/token",
    request: {},
    handler: (request, context) =>
      refusal([request, context], 405, "other_error", "The method is not allowed for the requested URL."),
  });

export const OAUTH2_ROUTES: readonly IdentityRoute[] = [
  issueAccessToken,
  ...(["GET", "PUT", "PATCH", "DELETE"] as const).map(notAllowed),
];
