import { element, type Xml } from "./xml.ts";

/** Whom an assertion is about, and what the token gave. Names, not ids: ids mean nothing in another cloud. */
export type SamlSubject = {
  readonly user: string;
  readonly userDomain: string;
  readonly roles: readonly string[];
  readonly project: string;
  readonly projectDomain: string;
  readonly groups: readonly { readonly name: string; readonly domain: string }[];
  /** Whether a password was among what the user proved. */
  readonly byPassword: boolean;
  readonly authenticatedAtMs: number;
};

/** What a response and its assertion have in common. */
export type SamlEnvelope = {
  readonly issuer: string;
  /** Where the response is to be posted, and the only place that may take it. */
  readonly recipient: string;
  readonly issuedAtMs: number;
  readonly endsAtMs: number;
};

export const SAML_PROTOCOL = "urn:oasis:names:tc:SAML:2.0:protocol";
const ASSERTION = "urn:oasis:names:tc:SAML:2.0:assertion";
const ENTITY_FORMAT = "urn:oasis:names:tc:SAML:2.0:nameid-format:entity";
const BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer";
const SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success";
const BY_PASSWORD = "urn:oasis:names:tc:SAML:2.0:ac:classes:Password";
const BY_WHATEVER = "urn:oasis:names:tc:SAML:2.0:ac:classes:unspecified";
/** A receiver whose clock is behind must not take a fresh assertion for one of the future. */
const EARLIER_MS = 60_000;

const iso = (ms: number): string => new Date(ms).toISOString();

const issuerOf = (issuer: string): Xml =>
  element("saml:Issuer", { "xmlns:saml": ASSERTION, Format: ENTITY_FORMAT }, issuer);

const attribute = (name: string, values: readonly string[]): Xml =>
  element("saml:Attribute", { Name: name }, ...values.map((value) => element("saml:AttributeValue", {}, value)));

/** Keystone's attributes; its mappings read a value that begins with `JSON:` as what stands behind that. */
const attributesOf = ({ user, userDomain, roles, project, projectDomain, groups }: SamlSubject): Xml =>
  element(
    "saml:AttributeStatement",
    {},
    attribute("openstack_user", [user]),
    attribute("openstack_roles", roles),
    attribute("openstack_project", [project]),
    attribute("openstack_project_domain", [projectDomain]),
    attribute("openstack_user_domain", [userDomain]),
    groups.length === 0
      ? undefined
      : attribute(
          "openstack_groups",
          groups.map(({ name, domain }) => `JSON:${JSON.stringify({ name, domain: { name: domain } })}`),
        ),
  );

const authenticationOf = (subject: SamlSubject, { issuer, endsAtMs }: SamlEnvelope, session: string): Xml =>
  element(
    "saml:AuthnStatement",
    { AuthnInstant: iso(subject.authenticatedAtMs), SessionIndex: session, SessionNotOnOrAfter: iso(endsAtMs) },
    element(
      "saml:AuthnContext",
      {},
      element("saml:AuthnContextClassRef", {}, subject.byPassword ? BY_PASSWORD : BY_WHATEVER),
      element("saml:AuthenticatingAuthority", {}, issuer),
    ),
  );

/**
 * An assertion, with the signature in its place where there is one. It names no audience: what a service provider calls itself is not known
 * here, only where it takes assertions, and for that the subject is confirmed. `id`, `session`: unguessable, beginning with a letter or `_`.
 */
export const samlAssertion = (
  subject: SamlSubject,
  envelope: SamlEnvelope,
  { id, session }: { readonly id: string; readonly session: string },
  signature?: Xml,
): Xml => {
  const { issuer, recipient, issuedAtMs, endsAtMs } = envelope;
  const end = iso(endsAtMs);
  return element(
    "saml:Assertion",
    { "xmlns:saml": ASSERTION, ID: id, IssueInstant: iso(issuedAtMs), Version: "2.0" },
    issuerOf(issuer),
    signature,
    element(
      "saml:Subject",
      {},
      element("saml:NameID", {}, subject.user),
      element(
        "saml:SubjectConfirmation",
        { Method: BEARER },
        element("saml:SubjectConfirmationData", { NotOnOrAfter: end, Recipient: recipient }),
      ),
    ),
    element("saml:Conditions", { NotBefore: iso(issuedAtMs - EARLIER_MS), NotOnOrAfter: end }),
    authenticationOf(subject, envelope, session),
    attributesOf(subject),
  );
};

/** A response that nobody asked for with a request: the answer to a token. */
export const samlResponse = (assertion: Xml, envelope: SamlEnvelope, id: string, signature?: Xml): Xml => {
  const { issuer, recipient, issuedAtMs } = envelope;
  return element(
    "samlp:Response",
    { "xmlns:samlp": SAML_PROTOCOL, Destination: recipient, ID: id, IssueInstant: iso(issuedAtMs), Version: "2.0" },
    issuerOf(issuer),
    signature,
    element("samlp:Status", {}, element("samlp:StatusCode", { Value: SUCCESS })),
    assertion,
  );
};
