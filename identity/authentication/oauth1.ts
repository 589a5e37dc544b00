import type { SignedRequest } from "../core/authentication-request.ts";
import { identityError, unauthorized } from "../core/identity-error.ts";
import { findAccessToken, findConsumer, openSecret } from "../store/oauth1.ts";
import { spendOnce } from "../store/spent-codes.ts";
import { loadDelegation } from "./load-delegation.ts";
import type { AuthenticationMethod, MethodContext } from "./method.ts";
import { isSignedWith, type OauthParameters, oauthParameters } from "./oauth1-signature.ts";

/** How far a client's clock may be off; nonces are remembered for as long as their timestamps pass. */
const TIMESTAMP_WINDOW_MS = 300_000;
const NONCE_MAX = 256;

const MALFORMED =
  "The server could not comply with the request since it is either malformed or otherwise incorrect. The client is assumed to be in error.";

export const missingParameter = (name: string) =>
  identityError("bad-request", `Expecting to find ${name} in request. ${MALFORMED}`);

/** The parameters of the request's header. Throws `bad-request`. */
export const parametersOf = ({ authorization }: Pick<SignedRequest, "authorization">): OauthParameters => {
  const parameters = oauthParameters(authorization);
  if (parameters === undefined) throw identityError("bad-request", `Error retrieving OAuth headers. ${MALFORMED}`);
  return parameters;
};

/** Throws `bad-request` where the parameter is absent or empty. */
export const requiredParameter = (parameters: OauthParameters, name: string): string => {
  const value = parameters.get(name);
  if (value === undefined || value === "") throw missingParameter(name);
  return value;
};

export type Signer = {
  readonly consumerId: string;
  /** Of the request or access token; undefined where there is none yet. */
  readonly token: { readonly id: string; readonly secret: string } | undefined;
};

/** Signed by consumer and token, now, and for the first time. Throws `bad-request`, `unauthorized`. */
export const assertSigned = async (
  context: Pick<MethodContext, "database" | "cipher" | "changes" | "clock">,
  request: SignedRequest,
  parameters: OauthParameters,
  { consumerId, token }: Signer,
): Promise<void> => {
  const { cipher, clock } = context;
  const timestamp = requiredParameter(parameters, "oauth_timestamp");
  const nonce = requiredParameter(parameters, "oauth_nonce");
  const version = parameters.get("oauth_version") ?? "1.0";
  if (version !== "1.0" || !/^\d{1,12}$/.test(timestamp) || nonce.length > NONCE_MAX) {
    throw identityError("bad-request", `oauth_version, oauth_timestamp or oauth_nonce is malformed. ${MALFORMED}`);
  }
  const consumer = await findConsumer(context.database, consumerId);
  if (consumer === undefined) throw unauthorized(`consumer ${consumerId} does not exist`);
  const secrets = {
    consumer: openSecret(cipher, consumer),
    token: token === undefined ? "" : openSecret(cipher, token),
  };
  if (!isSignedWith(request, parameters, secrets)) throw unauthorized("invalid signature");
  const signedAtMs = Number(timestamp) * 1000;
  const nowMs = clock.nowMs();
  if (Math.abs(nowMs - signedAtMs) > TIMESTAMP_WINDOW_MS) throw unauthorized("signed too long ago, or ahead of time");
  const code = `oauth1 ${consumerId} ${token?.id ?? ""} ${timestamp} ${nonce}`;
  if (!(await spendOnce(context.changes, code, nowMs, signedAtMs + TIMESTAMP_WINDOW_MS + 1_000))) {
    throw unauthorized("nonce was used before");
  }
};

/** `{}`: the request itself is signed with an access token of OAuth 1.0a. */
export const oauth1Method: AuthenticationMethod = {
  name: "oauth1",
  recognize: async (_payload, context, { remoteAddress, signed }) => {
    if (signed === undefined) throw missingParameter("oauth_token");
    const parameters = parametersOf(signed);
    const consumerId = requiredParameter(parameters, "oauth_consumer_key");
    const tokenId = requiredParameter(parameters, "oauth_token");
    const keys = [`consumer ${consumerId}`, `address ${remoteAddress}`];
    using attempt = await context.limiter.begin(keys);
    const token = await findAccessToken(context.database, tokenId);
    try {
      if (token?.consumer_id !== consumerId) throw unauthorized("access token is not the consumer's");
      await assertSigned(context, signed, parameters, { consumerId, token });
    } catch (thrown) {
      attempt.failed();
      throw thrown;
    }
    const delegation = await loadDelegation(context, { accessTokenId: tokenId });
    if (delegation === undefined) throw unauthorized("access token is over");
    const user = await context.directory.findUser(token.authorizing_user_id);
    if (user === undefined) throw unauthorized(`user ${token.authorizing_user_id} is gone`);
    return { user, delegation };
  },
};
