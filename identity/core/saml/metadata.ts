import { SAML_PROTOCOL } from "./assertion.ts";
import { element, type Xml } from "./xml.ts";

export type SamlOrganization = { readonly name: string; readonly displayName: string; readonly url: string };

export type SamlContact = {
  readonly type: string;
  readonly company: string | undefined;
  readonly name: string | undefined;
  readonly surname: string | undefined;
  readonly email: string | undefined;
  readonly telephone: string | undefined;
};

/** What is told to those who are to take this provider's word. */
export type SamlMetadata = {
  readonly entityId: string;
  readonly ssoEndpoint: string;
  readonly language: string;
  /** DER as base64: first the one that signs now. */
  readonly certificates: readonly string[];
  readonly organization: SamlOrganization | undefined;
  readonly contact: SamlContact | undefined;
};

const METADATA = "urn:oasis:names:tc:SAML:2.0:metadata";
const SIGNATURE = "http://www.w3.org/2000/09/xmldsig#";
/** Keystone's: no browser is sent here, and receivers pick no other way from it. */
const URI_BINDING = "urn:oasis:names:tc:SAML:2.0:bindings:URI";
const UNSPECIFIED_NAME = "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified";
/** Often enough that a new key is known long before it signs. */
const CACHE_DURATION = "P1D";

const keyOf = (certificate: string): Xml =>
  element(
    "md:KeyDescriptor",
    { use: "signing" },
    element(
      "ds:KeyInfo",
      { "xmlns:ds": SIGNATURE },
      element("ds:X509Data", {}, element("ds:X509Certificate", {}, certificate)),
    ),
  );

const organizationOf = ({ name, displayName, url }: SamlOrganization, language: string): Xml =>
  element(
    "md:Organization",
    {},
    element("md:OrganizationName", { "xml:lang": language }, name),
    element("md:OrganizationDisplayName", { "xml:lang": language }, displayName),
    element("md:OrganizationURL", { "xml:lang": language }, url),
  );

const contactOf = ({ type, company, name, surname, email, telephone }: SamlContact): Xml => {
  const part = (tag: string, text: string | undefined): Xml | undefined =>
    text === undefined ? undefined : element(tag, {}, text);
  return element(
    "md:ContactPerson",
    { contactType: type },
    part("md:Company", company),
    part("md:GivenName", name),
    part("md:SurName", surname),
    part("md:EmailAddress", email),
    part("md:TelephoneNumber", telephone),
  );
};

/** The EntityDescriptor; the order of its parts is the schema's. */
export const samlMetadata = (metadata: SamlMetadata): Xml => {
  const { entityId, ssoEndpoint, language, certificates, organization, contact } = metadata;
  return element(
    "md:EntityDescriptor",
    { "xmlns:md": METADATA, cacheDuration: CACHE_DURATION, entityID: entityId },
    element(
      "md:IDPSSODescriptor",
      { protocolSupportEnumeration: SAML_PROTOCOL },
      ...certificates.map(keyOf),
      organization && organizationOf(organization, language),
      contact && contactOf(contact),
      element("md:NameIDFormat", {}, UNSPECIFIED_NAME),
      element("md:SingleSignOnService", { Binding: URI_BINDING, Location: ssoEndpoint }),
    ),
  );
};
