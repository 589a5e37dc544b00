import { element, type Xml } from "./xml.ts";

const SOAP = "http://schemas.xmlsoap.org/soap/envelope/";
const ECP = "urn:oasis:names:tc:SAML:2.0:profiles:SSO:ecp";
const NEXT_ACTOR = "http://schemas.xmlsoap.org/soap/actor/next";

/** A response as a program hands it to a service provider (SAML 2.0 profiles, section 4.2: Enhanced Client or Proxy). */
export const ecpEnvelope = (response: Xml, relayState: string): Xml =>
  element(
    "soap:Envelope",
    { "xmlns:soap": SOAP },
    element(
      "soap:Header",
      {},
      element("ecp:RelayState", { "xmlns:ecp": ECP, "soap:actor": NEXT_ACTOR, "soap:mustUnderstand": "1" }, relayState),
    ),
    element("soap:Body", {}, response),
  );
