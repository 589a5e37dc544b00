import type { KeyObject } from "node:crypto";
import { SignedXml } from "xml-crypto";
import type { Xml } from "./core/saml/xml.ts";

const EXCLUSIVE_CANONICALIZATION = "http://www.w3.org/2001/10/xml-exc-c14n#";
const ENVELOPED_SIGNATURE = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";
const RSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256";
const SHA256 = "http://www.w3.org/2001/04/xmlenc#sha256";

/** An RSA key with its certificate. */
export type SamlSigner = { readonly privateKey: KeyObject; readonly certificatePem: string };

/**
 * What `build` makes, with the signature of it inside. Canonical forms are exclusive: the whole can stand in any other document.
 * Requires: the outermost element of what `build` makes has the attribute `ID="id"`, and it makes the same around any signature.
 */
export const signedXml = (build: (signature?: Xml) => Xml, id: string, signer: SamlSigner): Xml => {
  const signing = new SignedXml({
    privateKey: signer.privateKey,
    publicCert: signer.certificatePem,
    signatureAlgorithm: RSA_SHA256,
    canonicalizationAlgorithm: EXCLUSIVE_CANONICALIZATION,
  });
  signing.addReference({
    xpath: "/*",
    uri: `#${id}`,
    transforms: [ENVELOPED_SIGNATURE, EXCLUSIVE_CANONICALIZATION],
    digestAlgorithm: SHA256,
  });
  signing.computeSignature(build().xml, { prefix: "ds" });
  // Only the signature is taken from the library, not the document that it parsed and wrote anew.
  return build({ xml: signing.getSignatureXml() });
};
