import { codeOf } from "../../common/errors.ts";
import { claimsAssertion } from "../core/claims-assertion.ts";
import { identityError, notFound, unauthorized } from "../core/identity-error.ts";
import { type Assertion, type MappedIdentity, mapIdentity } from "../core/mapping.ts";
import type { MappedDomain, MappingRules } from "../core/mapping-rules.ts";
import { rolesById } from "../store/assignments.ts";
import { findProtocol, type IdentityProvider, remoteIdsOf } from "../store/federation.ts";
import { findRecord, findRecords } from "../store/records.ts";
import { type ProvisionedProject, settleShadow } from "../store/shadow-users.ts";
import type { AuthenticationMethod, MethodContext, Recognized } from "./method.ts";
import type { OidcClient } from "./oidc-client.ts";
import { findDomain, findUser, requiredMember, textOf } from "./references.ts";
import { tokenMethod } from "./token.ts";

const TOKEN_MAX = 16_384;
const MINUTE_MS = 60_000;
const UNIQUE_ID_MAX = 255;
/** Where a protocol does not say which claim names the provider. */
const REMOTE_ID_ATTRIBUTE = "HTTP_OIDC_ISS";

type Place = { readonly idp: IdentityProvider; readonly protocolId: string; readonly rules: MappingRules };

/** Python's `quote`, with which Keystone makes the unique id of a federated user. */
const quoted = (text: string): string =>
  encodeURIComponent(text)
    .replaceAll(/[!'()*]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`)
    .replaceAll("%2F", "/");

/** The provider and the rules, both there and in use. Throws `not-found`, `forbidden`, `unauthorized`. */
const placeOf = async (
  { database }: MethodContext,
  idpId: string,
  protocolId: string,
): Promise<Place & { remoteIdAttribute: string }> => {
  const idp = await findRecord(database, "identity_providers", idpId);
  if (idp === undefined) throw notFound("Identity Provider", idpId);
  if (idp.enabled !== 1) throw identityError("forbidden", `Identity Provider ${idpId} is disabled`);
  const protocol = await findProtocol(database, idpId, protocolId);
  if (protocol === undefined) {
    const message = `Could not find federated protocol ${protocolId} for Identity Provider: ${idpId}.`;
    throw identityError("not-found", message);
  }
  const mapping = await findRecord(database, "federation_mappings", protocol.mapping_id);
  if (mapping === undefined) throw unauthorized(`mapping ${protocol.mapping_id} is gone`);
  const rules = JSON.parse(mapping.rules) as MappingRules;
  return { idp, protocolId, rules, remoteIdAttribute: protocol.remote_id_attribute ?? REMOTE_ID_ATTRIBUTE };
};

/** A provider with remote ids vouches only under one of them. Throws `forbidden`. */
const assertRemoteId = async (
  { database }: MethodContext,
  idpId: string,
  assertion: Assertion,
  attribute: string,
): Promise<void> => {
  const accepted = (await remoteIdsOf(database, [idpId])).get(idpId) ?? [];
  const said = assertion.get(attribute) ?? [];
  if (accepted.length === 0 || (said.length === 1 && said.every((id) => accepted.includes(id)))) return;
  throw identityError(
    "forbidden",
    "Incoming identity provider identifier not included among the accepted identifiers.",
  );
};

const domainIdOf = async (context: MethodContext, { id, name }: MappedDomain): Promise<string | undefined> => {
  if (id !== undefined) return id;
  return name === undefined ? undefined : (await findDomain(context, { name }))?.id;
};

/** Groups by id must be there; those by name are taken as far as they are. Throws `unauthorized`. */
const groupIdsOf = async (context: MethodContext, identity: MappedIdentity): Promise<string[]> => {
  const ids = new Set<string>();
  for (const id of identity.groupIds) {
    if ((await context.directory.findGroup(id)) === undefined) throw unauthorized(`mapped group ${id} is not there`);
    ids.add(id);
  }
  for (const { name, domain } of identity.groupNames) {
    const domainId = await domainIdOf(context, domain);
    const group = domainId === undefined ? undefined : await context.directory.findGroupByName(domainId, name);
    if (group !== undefined) ids.add(group.id);
  }
  return [...ids];
};

/** Roles by name: those of all domains, or of the provider's. Throws `unauthorized` where one is not there. */
const projectsOf = async (
  context: MethodContext,
  identity: MappedIdentity,
  domainId: string,
): Promise<ProvisionedProject[]> => {
  if (identity.projects.length === 0) return [];
  const roles = [...(await rolesById(context)).values()];
  const roleNamed = (name: string) => {
    const found = roles.filter((role) => role.name === name);
    const role = found.find(({ domain_id }) => domain_id === null) ?? found.find((one) => one.domain_id === domainId);
    if (role === undefined) throw unauthorized(`mapped role ${name} is not there`);
    return role;
  };
  return identity.projects.map((project) => {
    const name = project.name.trim();
    if (name === "" || name.length > 64) throw unauthorized("mapped project has no name that a project may have");
    return { name, roles: project.roles.map(roleNamed) };
  });
};

const localUser = async (context: MethodContext, { user: mapped }: MappedIdentity): Promise<Recognized> => {
  const { id, name } = mapped;
  const domainId = mapped.domain === undefined ? undefined : await domainIdOf(context, mapped.domain);
  const named = name === undefined || domainId === undefined ? undefined : { name, domain: { id: domainId } };
  const reference = id === undefined ? named : { id };
  const user = reference && (await findUser(context, context.directory, reference));
  if (user === undefined) throw unauthorized("mapped local user is not there");
  return { user };
};

const ephemeralUser = async (
  context: MethodContext,
  { idp, protocolId }: Place,
  identity: MappedIdentity,
  assertion: Assertion,
): Promise<Recognized> => {
  const { user: mapped } = identity;
  const displayName = mapped.name ?? assertion.get("REMOTE_USER")?.[0] ?? mapped.id;
  const uniqueId = quoted(mapped.id ?? displayName ?? "");
  if (displayName === undefined || uniqueId === "" || uniqueId.length > UNIQUE_ID_MAX) {
    throw unauthorized("the mapping names no user");
  }
  const groupIds = await groupIdsOf(context, identity);
  const nowMs = context.clock.nowMs();
  const lifetimeMs = (idp.authorization_ttl ?? 0) * MINUTE_MS;
  const own = lifetimeMs === 0 ? [] : await findRecords(context.database, "groups", groupIds);
  const shadow = {
    idpId: idp.id,
    protocolId,
    uniqueId,
    displayName,
    email: mapped.email,
    domainId: idp.domain_id,
    groupIds: own.map(({ id }) => id),
    membershipsUntilMs: lifetimeMs === 0 ? undefined : nowMs + lifetimeMs,
    projects: await projectsOf(context, identity, idp.domain_id),
  };
  const user = await context.directory.findUser(await settleShadow(context, shadow, nowMs));
  if (user === undefined) throw unauthorized("the user was removed meanwhile");
  return { user, federation: { idpId: idp.id, protocolId, groupIds } };
};

/** What the provider says: of the token, and where a browser logged in, of its userinfo too. The token's claims count before those. */
const assertionOf = async (client: OidcClient, payload: unknown): Promise<Assertion> => {
  const token = requiredMember(payload, "token", "identity");
  if (typeof token !== "string") throw identityError("bad-request", "Invalid input for field 'token'");
  const claims = await client.verify(token, textOf(payload, "nonce", "identity"));
  const accessToken = textOf(payload, "access_token", "identity", TOKEN_MAX);
  const more = accessToken === undefined ? {} : await client.userinfo(accessToken, claims.sub);
  return claimsAssertion({ ...more, ...claims });
};

/** Names of protocols that are OpenID Connect here. `mapped` is Keystone's own name for what mappings decide. */
const FEDERATED_METHODS = ["mapped", "openid"] as const;

/**
 * `{"identity_provider", "protocol", "token"}`: an ID or access token of a provider, which the mapping of its protocol makes a user of. Or
 * `{"id": TOKEN}`: another scope for who has a token, as Keystone's clients once asked for it.
 */
const federatedMethod = (name: string, clients: ReadonlyMap<string, OidcClient>): AuthenticationMethod => ({
  name,
  recognize: async (payload, context, attempt) => {
    if (textOf(payload, "id", name, TOKEN_MAX) !== undefined) return tokenMethod.recognize(payload, context, attempt);
    const idpId = textOf(payload, "identity_provider", name);
    const protocolId = textOf(payload, "protocol", name);
    if (idpId === undefined || protocolId === undefined) {
      throw identityError("bad-request", `Expecting to find identity_provider and protocol in ${name}.`);
    }
    const keys = [`address ${attempt.remoteAddress}`];
    using login = await context.limiter.begin(keys);
    const { remoteIdAttribute, ...place } = await placeOf(context, idpId, protocolId);
    const client = clients.get(idpId);
    if (client === undefined) throw unauthorized(`cluster.toml has no table [identity.oidc.${idpId}]`);
    let assertion: Assertion;
    try {
      assertion = await assertionOf(client, payload);
    } catch (thrown) {
      // A provider that is away is nobody's wrong guess.
      if (codeOf(thrown) === "unauthorized") login.failed();
      throw thrown;
    }
    await assertRemoteId(context, idpId, assertion, remoteIdAttribute);
    const outcome = mapIdentity(place.rules, assertion);
    if (outcome.kind === "refused") throw unauthorized(`mapping: ${outcome.reason}`);
    const { identity } = outcome;
    return identity.user.type === "local"
      ? localUser(context, identity)
      : ephemeralUser(context, place, identity, assertion);
  },
});

export const federatedMethods = (clients: ReadonlyMap<string, OidcClient>): AuthenticationMethod[] =>
  FEDERATED_METHODS.map((name) => federatedMethod(name, clients));
