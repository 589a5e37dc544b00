import { randomBytes } from "node:crypto";
import type { Clock } from "../common/clock.ts";
import type { SamlConfig } from "./config.ts";
import { samlAssertion, type SamlEnvelope, samlResponse, type SamlSubject } from "./core/saml/assertion.ts";
import { samlMetadata } from "./core/saml/metadata.ts";
import type { Xml } from "./core/saml/xml.ts";
import type { SamlKeyRotation, SamlKeys } from "./store/saml-keys.ts";

/** This cloud as one whose word others take for its users. */
export type SamlProvider = {
  metadata(): Promise<Xml>;
  /** A signed response with a signed assertion, good for one place and until `limitMs` at most. Throws `bad-request` for names that XML cannot carry. */
  respond(subject: SamlSubject, recipient: string, limitMs: number): Promise<Xml>;
  rotateKey(atOnce: boolean): Promise<SamlKeyRotation>;
};

export type SamlProviderOptions = {
  readonly config: SamlConfig;
  readonly keys: SamlKeys;
  readonly clock: Clock;
  /** `http://HOST:PORT` of this service. */
  readonly publicEndpoint: string;
};

/** Begins as an XML id must. */
const newId = (): string => `_${randomBytes(16).toString("hex")}`;

export const createSamlProvider = ({ config, keys, clock, publicEndpoint }: SamlProviderOptions): SamlProvider => {
  // The addresses that Keystone's documentation has operators configure.
  const base = `${publicEndpoint}/v3/OS-FEDERATION/saml2`;
  const entityId = config.entityId ?? `${base}/idp`;
  return {
    metadata: async () =>
      samlMetadata({
        entityId,
        ssoEndpoint: config.ssoEndpoint ?? `${base}/sso`,
        language: config.language,
        certificates: (await keys.published()).map(({ certificate }) => certificate.raw.toString("base64")),
        organization: config.organization,
        contact: config.contact,
      }),
    respond: async (subject, recipient, limitMs) => {
      // Its library takes 8 MB and a tenth of a second, which most installations never need.
      const { signedXml } = await import("./saml-signature.ts");
      const key = await keys.current();
      const issuedAtMs = clock.nowMs();
      const endsAtMs = Math.min(issuedAtMs + config.assertionSeconds * 1000, limitMs);
      const envelope: SamlEnvelope = { issuer: entityId, recipient, issuedAtMs, endsAtMs };
      const ids = { id: newId(), session: newId() };
      const assertion = signedXml((signature) => samlAssertion(subject, envelope, ids, signature), ids.id, key);
      const id = newId();
      return signedXml((signature) => samlResponse(assertion, envelope, id, signature), id, key);
    },
    rotateKey: (atOnce) => keys.rotate(atOnce),
  };
};
