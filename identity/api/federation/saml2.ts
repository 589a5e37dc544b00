import { randomBytes } from "node:crypto";
import { Type } from "typebox";
import { codeOf } from "../../../common/errors.ts";
import type { HttpRequest, HttpResponse } from "../../../common/http/route.ts";
import { ecpEnvelope } from "../../core/saml/ecp-envelope.ts";
import { type Xml, XML_DECLARATION } from "../../core/saml/xml.ts";
import { identityError, notFound } from "../../core/identity-error.ts";
import { samlSubjectOf } from "../../saml-subject.ts";
import type { ServiceProvider } from "../../store/federation.ts";
import { findRecord } from "../../store/records.ts";
import type { TokenDetails } from "../../token-service.ts";
import { refuseDelegated } from "../delegated-tokens.ts";
import { type IdentityContext, type IdentityRoute, openRoute } from "../identity-route.ts";

const closed = { additionalProperties: false };

/** Keystone's, which looks at no other method than a token. */
const body = Type.Object({
  auth: Type.Object(
    {
      identity: Type.Object(
        {
          token: Type.Object({ id: Type.String() }, closed),
          methods: Type.Optional(Type.Array(Type.Unknown())),
        },
        closed,
      ),
      scope: Type.Object({ service_provider: Type.Object({ id: Type.String() }, closed) }, closed),
    },
    closed,
  ),
});

type SamlRequest = HttpRequest<{ readonly body: typeof body }>;

const xmlAnswer = ({ xml }: Xml, headers: Readonly<Record<string, string>> = {}): HttpResponse => ({
  status: 200,
  headers: { "content-type": "text/xml", ...headers },
  body: `${XML_DECLARATION}${xml}`,
});

/** The token's state; throws `not-found` where it does not hold, as the method `token` of a login does. */
const describeToken = async (
  token: string,
  { tokens, audit }: IdentityContext,
  remoteAddress: string,
): Promise<TokenDetails> => {
  try {
    return await tokens.describe(token);
  } catch (thrown) {
    if (codeOf(thrown) !== "unauthorized") throw thrown;
    audit.loginFailed({ user: "unknown", error: thrown, remoteAddress });
    throw identityError("not-found", "Failed to validate token");
  }
};

const enabledServiceProvider = async (id: string, { database }: IdentityContext): Promise<ServiceProvider> => {
  const provider = await findRecord(database, "service_providers", id);
  if (provider === undefined) throw notFound("Service Provider", id);
  if (provider.enabled !== 1) throw identityError("forbidden", `Service Provider ${id} is disabled`);
  return provider;
};

/** An administrator's URL may hold what a header must not. */
const headerText = (url: string): string => url.toWellFormed().replace(/[^!-~]/gu, encodeURIComponent);

/** A response for the service provider that is asked for, about whoever the token in the body is of. */
const respond = async (
  { body: { auth }, remoteAddress }: SamlRequest,
  context: IdentityContext,
): Promise<{ response: Xml; provider: ServiceProvider; headers: Record<string, string> }> => {
  const token = await describeToken(auth.identity.token.id, context, remoteAddress);
  // As when a token is exchanged for another: groups and what the other cloud makes of a name would be more than was handed on.
  refuseDelegated({ token }, "be turned into assertions");
  const provider = await enabledServiceProvider(auth.scope.service_provider.id, context);
  const subject = await samlSubjectOf(context, token);
  return {
    // Who has a token for a minute more has the other cloud for no longer.
    response: await context.saml.respond(subject, provider.sp_url, token.expiresAtMs),
    provider,
    headers: { "x-sp-url": headerText(provider.sp_url), "x-auth-url": headerText(provider.auth_url) },
  };
};

const showMetadata = openRoute({
  method: "GET",
  path: "/v3/OS-FEDERATION/saml2/metadata",
  request: {},
  handler: async (_request, { saml }) => xmlAnswer(await saml.metadata()),
});

const makeAssertion = openRoute({
  method: "POST",
  path: "/v3/auth/OS-FEDERATION/saml2",
  request: { body },
  handler: async (request, context) => {
    const { response, headers } = await respond(request, context);
    return xmlAnswer(response, headers);
  },
});

const makeEcpAssertion = openRoute({
  method: "POST",
  path: "/v3/auth/OS-FEDERATION/saml2/ecp",
  request: { body },
  handler: async (request, context) => {
    const { response, provider, headers } = await respond(request, context);
    const relayState = `${provider.relay_state_prefix}${randomBytes(16).toString("hex")}`;
    return xmlAnswer(ecpEnvelope(response, relayState), headers);
  },
});

/** This cloud as an identity provider of others (Keystone to Keystone): an assertion, bare or for a client that carries it (ECP). */
export const SAML_ROUTES: readonly IdentityRoute[] = [showMetadata, makeAssertion, makeEcpAssertion];
