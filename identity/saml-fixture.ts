import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PYTHON = "/usr/bin/python3";
const XMLSEC = "/usr/bin/xmlsec1";
const PYSAML = "/usr/lib/python3/dist-packages/saml2";
const KEYSTONEAUTH = "/usr/lib/python3/dist-packages/keystoneauth1";
const RESPONSE = "urn:oasis:names:tc:SAML:2.0:protocol:Response";
const ASSERTION = "urn:oasis:names:tc:SAML:2.0:assertion:Assertion";

/** Why assertions cannot be looked at by other programs here; undefined where they can. Debian's packages are on the list of `scripts/`. */
export const whyNoSamlTools = (): string | undefined => {
  const absent = [PYTHON, XMLSEC, PYSAML, KEYSTONEAUTH].filter((path) => !existsSync(path));
  return absent.length === 0 ? undefined : `there is no ${absent.join(", ")}`;
};

/** Reads responses as the service provider `https://sp.example`, which wants everything signed, after it held them against OASIS' schemas. */
const READER = `
import base64, json, sys
from saml2 import BINDING_HTTP_POST
from saml2.client import Saml2Client
from saml2.config import SPConfig
from saml2.xml.schema import schema_saml_metadata, schema_saml_protocol
asked = json.load(sys.stdin)
schema_saml_metadata.validate(asked["metadata"])
config = SPConfig()
config.load({
    "entityid": "https://sp.example",
    "xmlsec_binary": "${XMLSEC}",
    "allow_unknown_attributes": True,
    "metadata": {"inline": [asked["metadata"]]},
    "service": {"sp": {
        "endpoints": {"assertion_consumer_service": [(asked["place"], BINDING_HTTP_POST)]},
        "allow_unsolicited": True,
        "want_response_signed": True,
        "want_assertions_signed": True,
    }},
})
def read(text):
    schema_saml_protocol.validate(text)
    encoded = base64.b64encode(text.encode()).decode()
    response = Saml2Client(config=config).parse_authn_request_response(encoded, BINDING_HTTP_POST)
    assertion = response.assertion
    return {
        "issuer": response.issuer(),
        "name": response.name_id.text,
        "attributes": response.ava,
        "notBefore": assertion.conditions.not_before,
        "notOnOrAfter": assertion.conditions.not_on_or_after,
        "sessionEnds": assertion.authn_statement[0].session_not_on_or_after,
        "authenticated": assertion.authn_statement[0].authn_context.authn_context_class_ref.text,
    }
answer = []
for text in asked["responses"]:
    try:
        answer.append(read(text))
    except Exception as problem:
        answer.append({"refusal": type(problem).__name__})
json.dump(answer, sys.stdout)
`;

export type ReadAssertion = {
  readonly issuer: string;
  readonly name: string;
  readonly attributes: Readonly<Record<string, readonly string[]>>;
  readonly notBefore: string;
  readonly notOnOrAfter: string;
  readonly sessionEnds: string;
  readonly authenticated: string;
};

/** What a program prints that is fed with `input`. Rejects with what it complains of where it fails. */
const run = (program: string, options: readonly string[], input: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const child = spawn(program, options);
    let output = "";
    let errors = "";
    child.stdout.on("data", (chunk: Buffer) => void (output += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => void (errors += chunk.toString()));
    child.once("error", reject);
    child.once("close", (code) => (code === 0 ? resolve(output) : reject(new Error(`${program}: ${code}\n${errors}`))));
    child.stdin.end(input);
  });

type Reading = ReadAssertion | { readonly refusal: string };

/** What pysaml2 makes of each response, as it would of one that was posted to `place`. Rejects where `metadata` are not what OASIS' schema says. */
export const readResponses = async (asked: {
  readonly metadata: string;
  readonly responses: readonly string[];
  readonly place: string;
}): Promise<readonly Reading[]> => JSON.parse(await run(PYTHON, ["-c", READER], JSON.stringify(asked))) as Reading[];

/** Whether xmlsec1 finds that the signature directly in the response, or in its assertion, was made over it with the certificate's key. */
export const isSigned = (xml: string, of: "Response" | "Assertion", certificatePem: string): boolean => {
  const folder = mkdtempSync(join(tmpdir(), "ringstead-xmlsec-"));
  try {
    const [certificate, document] = [join(folder, "certificate.pem"), join(folder, "document.xml")];
    writeFileSync(certificate, certificatePem);
    writeFileSync(document, xml);
    const node = `//*[local-name()='${of}']/*[local-name()='Signature']`;
    const ids = [RESPONSE, ASSERTION].flatMap((name) => ["--id-attr:ID", name]);
    const options = ["--verify", "--pubkey-cert-pem", certificate, "--enabled-key-data", "rsa", ...ids];
    execFileSync(XMLSEC, [...options, "--node-xpath", node, document], { stdio: "pipe" });
    return true;
  } catch {
    return false;
  } finally {
    rmSync(folder, { recursive: true });
  }
};

/** The first certificate of metadata, as PEM. */
export const certificateOf = (metadata: string): string => {
  const [, base64 = ""] = /<ds:X509Certificate>([^<]+)</.exec(metadata) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${base64.replaceAll(/.{64}/g, "$&\n")}\n-----END CERTIFICATE-----\n`;
};

/** Goes from one cloud to another as keystoneauth's plugin does, and prints the token and the project that it got there. */
const TRAVELLER = `
import json, sys
from keystoneauth1 import session
from keystoneauth1.identity.v3 import Password
from keystoneauth1.identity.v3.k2k import Keystone2Keystone
asked = json.load(sys.stdin)
home = Password(auth_url=asked["home"], username=asked["user"], password=asked["password"], user_domain_id="default",
                project_name=asked["project"], project_domain_id="default")
abroad = Keystone2Keystone(home, asked["provider"], project_name="theirs", project_domain_name="Default")
access = abroad.get_access(session.Session(auth=abroad))
json.dump({"token": access.auth_token, "project": access.project_name}, sys.stdout)
`;

export const travel = async (asked: {
  readonly home: string;
  readonly user: string;
  readonly password: string;
  readonly project: string;
  readonly provider: string;
}): Promise<{ readonly token: string; readonly project: string }> =>
  JSON.parse(await run(PYTHON, ["-c", TRAVELLER], JSON.stringify(asked))) as { token: string; project: string };

export type ServiceProviderFixture = AsyncDisposable & {
  /** Where it takes envelopes. */
  readonly spUrl: string;
  /** Where who brought a good one gets a token. */
  readonly authUrl: string;
  /** What it understood of them. */
  readonly accepted: ReadAssertion[];
  /** The relay states that came with them. */
  readonly relayStates: string[];
};

const AUTH_PATH = "/v3/OS-FEDERATION/identity_providers/home/protocols/saml2/auth";

const tokenBody = (more: object): string => {
  const times = { issued_at: "2026-01-01T00:00:00.000000Z", expires_at: "2099-01-01T00:00:00.000000Z" };
  const user = { id: "u", name: "u", domain: { id: "d", name: "d" } };
  return JSON.stringify({ token: { methods: ["saml2"], user, audit_ids: ["x"], ...times, ...more } });
};

/** A small cloud that takes another one's word: a service provider as Shibboleth is one (ECP), and behind it as much of Keystone as a client asks for. */
export const createServiceProviderFixture = async (
  metadata: () => Promise<string>,
): Promise<ServiceProviderFixture> => {
  const accepted: ReadAssertion[] = [];
  const relayStates: string[] = [];
  const take = async (envelope: string): Promise<boolean> => {
    const [, relayState] = /<ecp:RelayState [^>]*>([^<]*)</.exec(envelope) ?? [];
    const [response] = /<samlp:Response [\s\S]*<\/samlp:Response>/.exec(envelope) ?? [];
    if (relayState === undefined || response === undefined) return false;
    const [reading] = await readResponses({ metadata: await metadata(), responses: [response], place: spUrl });
    if (reading === undefined || "refusal" in reading) return false;
    accepted.push(reading);
    relayStates.push(relayState);
    return true;
  };
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => void chunks.push(chunk));
    request.on("end", () => {
      const token = { "x-subject-token": "of the other cloud", "content-type": "application/json" };
      const isPaos = request.headers["content-type"] === "application/vnd.paos+xml";
      switch (`${request.method} ${request.url}`) {
        case "POST /Shibboleth.sso/SAML2/ECP":
          void take(Buffer.concat(chunks).toString()).then((isGood) =>
            response.writeHead(isGood && isPaos ? 303 : 403, { location: authUrl }).end(),
          );
          return;
        case `GET ${AUTH_PATH}`:
          response.writeHead(accepted.length > 0 ? 201 : 401, token).end(tokenBody({}));
          return;
        case "POST /v3/auth/tokens":
          response
            .writeHead(201, token)
            .end(tokenBody({ project: { id: "p", name: "theirs", domain: { id: "d", name: "Default" } }, roles: [] }));
          return;
        default:
          response.writeHead(404).end();
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const spUrl = `${base}/Shibboleth.sso/SAML2/ECP`;
  const authUrl = base + AUTH_PATH;
  return {
    spUrl,
    authUrl,
    accepted,
    relayStates,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
};
