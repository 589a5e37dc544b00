import { Type } from "typebox";
import { isSignedBy, isTextSignedBy, type SignedRequest, signedAtMs } from "../authentication/ec2-signature.ts";
import { assertBearable } from "../bearable-token.ts";
import type { ScopeRequest } from "../core/authentication-request.ts";
import { unauthorized } from "../core/identity-error.ts";
import { type Ec2Credential, findEc2Credential } from "../store/credentials.ts";
import type { Issued } from "../token-service.ts";
import { guardedRoute, type IdentityContext, type IdentityRoute } from "./identity-route.ts";
import { tokenBody } from "./token-body.ts";

/** A signature is good for this long after it was made; Keystone's default. */
const SIGNATURE_LIFETIME_MS = 15 * 60_000;
const TEXT_MAX = 16_384;

const text = Type.String({ maxLength: TEXT_MAX });
const texts = Type.Record(Type.String(), Type.Union([text, Type.Number()]));
const signed = Type.Object({
  access: Type.Optional(text),
  signature: Type.Optional(text),
  verb: Type.Optional(text),
  host: Type.Optional(text),
  path: Type.Optional(text),
  params: Type.Optional(texts),
  headers: Type.Optional(texts),
  body_hash: Type.Optional(Type.Union([text, Type.Null()])),
  /** Of S3: what was signed, in base64. */
  token: Type.Optional(text),
});
const body = Type.Object({
  credentials: Type.Optional(signed),
  credential: Type.Optional(signed),
  ec2Credentials: Type.Optional(signed),
});

type Signed = {
  access?: string;
  signature?: string;
  verb?: string;
  host?: string;
  path?: string;
  params?: Record<string, string | number>;
  headers?: Record<string, string | number>;
  body_hash?: string | null;
  token?: string;
};

const asTexts = (record: Record<string, string | number> | undefined): Record<string, string> =>
  Object.fromEntries(Object.entries(record ?? {}).map(([name, value]) => [name, String(value)]));

const requestOf = (given: Signed): SignedRequest => ({
  signature: given.signature ?? "",
  verb: given.verb ?? "",
  host: given.host ?? "",
  path: given.path ?? "",
  params: asTexts(given.params),
  headers: asTexts(given.headers),
  bodyHash: given.body_hash ?? "",
});

const assertRecent = (given: Signed, { clock }: IdentityContext): void => {
  const atMs = signedAtMs(requestOf(given));
  if (atMs === undefined) return;
  if (Number.isNaN(atMs)) throw unauthorized("a timestamp that is no time");
  if (clock.nowMs() > atMs + SIGNATURE_LIFETIME_MS) throw unauthorized("a signature that is too old");
};

/** What a key is for: its project, or what the trust that it was made with gives. */
export const ec2ScopeOf = ({ projectId, trustId }: Ec2Credential): ScopeRequest =>
  trustId === undefined ? { kind: "project", project: { id: projectId } } : { kind: "trust", trustId };

type Check = (given: Signed, credential: Ec2Credential) => boolean;

const isEc2Signed: Check = (given, { secret }) => isSignedBy(requestOf(given), secret);
const isS3Signed: Check = (given, { secret }) =>
  isTextSignedBy(Buffer.from(given.token ?? "", "base64url"), given.signature ?? "", secret);

/** A token for the owner of the key that signed. Throws `unauthorized`. */
const authenticate = async (
  request: { readonly body: { credentials?: Signed; credential?: Signed; ec2Credentials?: Signed } },
  context: IdentityContext,
  isSigned: Check,
): Promise<Issued> => {
  const given = request.body.credentials ?? request.body.credential ?? request.body.ec2Credentials;
  if (given?.access === undefined) throw unauthorized("no signature");
  const credential = await findEc2Credential(context.database, context.cipher, given.access);
  if (credential === undefined || !given.signature || !isSigned(given, credential))
    throw unauthorized("wrong signature");
  assertRecent(given, context);
  const user = await context.directory.findUser(credential.userId);
  if (user === undefined) throw unauthorized(`user ${credential.userId} is gone`);
  return context.tokens.issueFor({ user }, ["ec2credential"], ec2ScopeOf(credential));
};

const answerOf = async ({ details }: Issued, { tokens }: IdentityContext): Promise<object> =>
  tokenBody(details, await tokens.catalog(details.user.id, details.scope));

/** Tokens for what an EC2 key signed: other services ask on behalf of their callers, whom they cannot check themselves. */
export const SIGNED_TOKEN_ROUTES: readonly IdentityRoute[] = [
  guardedRoute({
    method: "POST",
    path: "/v3/ec2tokens",
    operation: "identity:ec2tokens_validate",
    request: { body },
    handler: async (request, context) => {
      const issued = await authenticate(request, context, isEc2Signed);
      assertBearable(issued);
      return { status: 200, headers: { "x-subject-token": issued.token }, body: await answerOf(issued, context) };
    },
  }),
  guardedRoute({
    method: "POST",
    path: "/v3/s3tokens",
    operation: "identity:s3tokens_validate",
    request: { body },
    handler: async (request, context) => {
      const issued = await authenticate(request, context, isS3Signed);
      return { status: 200, body: await answerOf(issued, context) };
    },
  }),
];
