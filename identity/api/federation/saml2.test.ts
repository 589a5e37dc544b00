import { randomUUID, X509Certificate } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { askSocket } from "../../client.ts";
import { startTestAdministrator, type TestAdministrator, USER_PASSWORD } from "../../test-administrator.ts";
import { ADMIN_SCOPE, ADMIN_USER, at, textAt, tokenOf } from "../../test-client.ts";
import {
  certificateOf,
  createServiceProviderFixture,
  isSigned,
  type ReadAssertion,
  readResponses,
  travel,
  whyNoSamlTools,
} from "../../saml-fixture.ts";

const METADATA = "/v3/OS-FEDERATION/saml2/metadata";
const SAML2 = "/v3/auth/OS-FEDERATION/saml2";
const SP_URL = "https://sp.example/Shibboleth.sso/SAML2/POST";
const AUTH_URL = "https://sp.example/v3/OS-FEDERATION/identity_providers/home/protocols/saml2/auth";
const reason = whyNoSamlTools();

let administrator: TestAdministrator;

beforeAll(async () => {
  administrator = await startTestAdministrator();
  await provide("sp", { enabled: true });
});

afterAll(() => administrator[Symbol.asyncDispose]());

const provide = async (id: string, change: object): Promise<void> => {
  const service_provider = { auth_url: AUTH_URL, sp_url: SP_URL, ...change };
  const answer = await administrator.asAdmin("PUT", `/OS-FEDERATION/service_providers/${id}`, { service_provider });
  expect(answer.status).toBe(201);
};

const send = async (path: string, body?: object, service = administrator) => {
  const response = await fetch(service.base + path, {
    method: body === undefined ? "GET" : "POST",
    ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
  });
  return { status: response.status, headers: response.headers, text: await response.text() };
};

const request = (token: string, provider = "sp") => ({
  auth: { identity: { methods: ["token"], token: { id: token } }, scope: { service_provider: { id: provider } } },
});

const ask = (token: string, provider = "sp", path = SAML2) => send(path, request(token, provider));
const messageOf = ({ text }: { readonly text: string }): unknown =>
  at({ body: JSON.parse(text) as Record<string, unknown> }, "error.message");
const metadata = async (): Promise<string> => (await send(METADATA)).text;
/** As a service provider reads them that knows the metadata. */
const readAll = async (responses: readonly string[], place = SP_URL) => {
  const bare = responses.map((response) => response.replace(/^<\?.*\?>\s*/, ""));
  return readResponses({ metadata: await metadata(), responses: bare, place });
};
const read = async (response: string): Promise<ReadAssertion> => {
  const [reading] = await readAll([response]);
  if (reading === undefined || "refusal" in reading) throw new Error(JSON.stringify(reading));
  return reading;
};

describe.skipIf(reason !== undefined)(`for other programs${reason === undefined ? "" : ` (${reason})`}`, () => {
  test("a service provider reads who a token is of, with its names, roles, project and groups", async () => {
    const { create, grant, asAdmin, login } = administrator;
    const project = await create("project", { name: "hall" });
    const domain = await create("domain", { name: "guilds" });
    const user = await create("user", { name: "ada", domain_id: domain, password: USER_PASSWORD });
    await grant(`/projects/${project}/users/${user}`, "member");
    for (const name of ["smiths", "bakers"]) {
      const group = await create("group", { name, domain_id: domain });
      expect((await asAdmin("PUT", `/groups/${group}/users/${user}`)).status).toBe(204);
    }
    const token = tokenOf(await login({ id: user, password: USER_PASSWORD }, { project: { id: project } }));
    const before = Date.now();
    const answer = await ask(token);
    expect([answer.status, answer.headers.get("content-type")]).toEqual([200, "text/xml"]);
    expect([answer.headers.get("x-sp-url"), answer.headers.get("x-auth-url")]).toEqual([SP_URL, AUTH_URL]);

    const certificate = certificateOf(await metadata());
    expect([isSigned(answer.text, "Response", certificate), isSigned(answer.text, "Assertion", certificate)]).toEqual([
      true,
      true,
    ]);
    const seen = await read(answer.text);
    expect(seen).toMatchObject({
      issuer: "http://127.0.0.1:5000/v3/OS-FEDERATION/saml2/idp",
      name: "ada",
      authenticated: "urn:oasis:names:tc:SAML:2.0:ac:classes:Password",
      attributes: {
        openstack_user: ["ada"],
        openstack_user_domain: ["guilds"],
        openstack_project: ["hall"],
        openstack_project_domain: ["Default"],
        openstack_groups: [
          'JSON:{"name":"bakers","domain":{"name":"guilds"}}',
          'JSON:{"name":"smiths","domain":{"name":"guilds"}}',
        ],
      },
    });
    expect(seen.attributes["openstack_roles"]?.toSorted()).toEqual(["member", "reader"]);
    // A minute for clocks that are behind, and an hour, which is what the token has left too.
    expect(Math.abs(Date.parse(seen.notBefore) - (before - 60_000))).toBeLessThan(10_000);
    expect(Math.abs(Date.parse(seen.notOnOrAfter) - (before + 3_600_000))).toBeLessThan(60_000);
    expect(seen.sessionEnds).toBe(seen.notOnOrAfter);
  });

  test("names with markup, quotes, line ends and letters of any script arrive as they are", async () => {
    const { create, grant, login } = administrator;
    const name = `a</saml:AttributeValue><!--&amp; "'é😀\r\n\tß]]>`;
    const project = await create("project", { name: name.slice(0, 60) });
    const user = await create("user", { name, password: USER_PASSWORD });
    await grant(`/projects/${project}/users/${user}`, "reader");
    const token = tokenOf(await login({ id: user, password: USER_PASSWORD }, { project: { id: project } }));
    const { text } = await ask(token);
    expect(text).toMatch(/^[\n -~]+$/);
    const certificate = certificateOf(await metadata());
    expect(isSigned(text, "Response", certificate) && isSigned(text, "Assertion", certificate)).toBe(true);
    expect(await read(text)).toMatchObject({ name, attributes: { openstack_user: [name], openstack_project: [name] } });
  });

  test("what is altered in any place is refused, and so is a response for another place", async () => {
    const { text } = await ask(await administrator.adminToken());
    const certificate = certificateOf(await metadata());
    const alterations = [
      text.replace("<saml:AttributeValue>reader<", "<saml:AttributeValue>owner<"),
      text.replace("<saml:NameID>admin<", "<saml:NameID>root<"),
      text.replace(/(<saml:Conditions [^>]*NotOnOrAfter=")\d{4}/, "$12999"),
      text.replace(/(<saml:SubjectConfirmationData [^>]*Recipient=")[^"]*/, "$1https://evil.example/"),
    ];
    for (const altered of alterations) {
      expect(altered).not.toBe(text);
      expect([isSigned(altered, "Assertion", certificate), isSigned(altered, "Response", certificate)]).toEqual([
        false,
        false,
      ]);
    }
    const redirected = text.replace(/(<samlp:Response [^>]*Destination=")[^"]*/, "$1https://evil.example/");
    expect([isSigned(redirected, "Assertion", certificate), isSigned(redirected, "Response", certificate)]).toEqual([
      true,
      false,
    ]);
    const readings = await readAll([text, ...alterations, redirected]);
    expect(readings.map((reading) => "refusal" in reading)).toEqual([false, true, true, true, true, true]);
    expect(await readAll([text], "https://elsewhere.example/acs")).toEqual([{ refusal: expect.any(String) as string }]);
  });

  test("keystoneauth's Keystone-to-Keystone plugin carries an assertion to another cloud and gets a token there", async () => {
    await using other = await createServiceProviderFixture(metadata);
    await provide("other", { enabled: true, sp_url: other.spUrl, auth_url: other.authUrl });
    const project = await administrator.create("project", { name: "journeys" });
    const user = await administrator.create("user", { name: "traveller é", password: USER_PASSWORD });
    await administrator.grant(`/projects/${project}/users/${user}`, "member");
    const home = `${administrator.base}/v3`;
    const journey = { home, user: "traveller é", password: USER_PASSWORD, project: "journeys" };
    expect(await travel({ ...journey, provider: "other" })).toEqual({ token: "of the other cloud", project: "theirs" });
    expect(other.accepted).toMatchObject([
      { name: "traveller é", attributes: { openstack_project: ["journeys"], openstack_user_domain: ["Default"] } },
    ]);
    expect(other.relayStates).toEqual([expect.stringMatching(/^ss:mem:[0-9a-f]{32}$/)]);
    await administrator.asAdmin("PATCH", "/OS-FEDERATION/service_providers/other", {
      service_provider: { enabled: false },
    });
    await expect(travel({ ...journey, provider: "other" })).rejects.toThrow();
  });

  test("metadata are what the schema says, with the operator's names, and without any", async () => {
    const valid = async (text: string) => readResponses({ metadata: text, responses: [], place: SP_URL });
    expect(await valid(await metadata())).toEqual([]);
    await expect(valid((await metadata()).replace("md:NameIDFormat>", "md:Odd>"))).rejects.toThrow();
    expect(await metadata()).not.toMatch(/Organization|ContactPerson/);
    await using configured = await startTestAdministrator({
      identity: {
        saml: {
          idp_entity_id: "https://cloud.example/idp",
          idp_sso_endpoint: "https://cloud.example/sso?a=1&b=2",
          idp_lang: "de",
          idp_organization_name: "Müller & Söhne",
          idp_organization_url: "https://example.org/",
          idp_contact_company: "<Müller>",
          idp_contact_name: "Ada",
          idp_contact_surname: "Müller",
          idp_contact_email: "ada@example.org",
          idp_contact_telephone: "+49 1",
          idp_contact_type: "technical",
        },
      },
    });
    const { text, status, headers } = await send(METADATA, undefined, configured);
    expect([status, headers.get("content-type")]).toEqual([200, "text/xml"]);
    expect(await valid(text)).toEqual([]);
    expect(text).toContain('entityID="https://cloud.example/idp"');
    expect(text).toContain('Location="https://cloud.example/sso?a=1&amp;b=2"');
    expect(text).toContain('<md:OrganizationDisplayName xml:lang="de">M&#xFC;ller &amp; S&#xF6;hne<');
    expect(text).toContain('<md:ContactPerson contactType="technical"><md:Company>&lt;M&#xFC;ller&gt;</md:Company>');
  });
});

/** As `ringstead identity rotate-saml-key` asks for it. The new certificate's fingerprint. */
const rotate = async (service: TestAdministrator, atOnce: boolean): Promise<unknown> => {
  const body = Buffer.from(JSON.stringify({ atOnce }));
  const socket = service.installation.paths.socket("control");
  const { status, text } = await askSocket(socket, "POST", "/internal/rotate-saml-key", body);
  expect(status).toBe(200);
  return at({ body: JSON.parse(text) as Record<string, unknown> }, "fingerprint");
};
const fingerprintOf = (certificate: string): string => new X509Certificate(certificate).fingerprint256;
const endOf = (xml: string): number =>
  Date.parse(/<saml:Conditions [^>]*NotOnOrAfter="([^"]+)"/.exec(xml)?.[1] ?? "no end");

test("an assertion is signed with the key of the metadata, where the next key stands before it signs", async () => {
  await using other = await startTestAdministrator();
  await other.asAdmin("PUT", "/OS-FEDERATION/service_providers/sp", {
    service_provider: { auth_url: AUTH_URL, sp_url: SP_URL, enabled: true },
  });
  const shown = async () => (await send(METADATA, undefined, other)).text;
  const signing = async () =>
    fingerprintOf(certificateOf((await send(SAML2, request(await other.adminToken()), other)).text));
  const first = fingerprintOf(certificateOf(await shown()));
  expect(await shown()).toBe(await shown());
  expect(await signing()).toBe(first);
  const next = await rotate(other, false);
  expect((await shown()).match(/<md:KeyDescriptor /g)).toHaveLength(2);
  expect([fingerprintOf(certificateOf(await shown())), await signing()]).toEqual([first, first]);
  const last = await rotate(other, true);
  expect(new Set([first, next, last]).size).toBe(3);
  expect((await shown()).match(/<md:KeyDescriptor /g)).toHaveLength(1);
  expect([fingerprintOf(certificateOf(await shown())), await signing()]).toEqual([last, last]);
});

test("an assertion ends with its token, and when the operator says", async () => {
  await using brief = await startTestAdministrator({
    identity: { token_lifetime_seconds: 60, saml: { relay_state_prefix: "own:" } },
  });
  await using short = await startTestAdministrator({ identity: { saml: { assertion_expiration_time: 20 } } });
  for (const service of [brief, short]) {
    const service_provider = { auth_url: AUTH_URL, sp_url: SP_URL, enabled: true };
    await service.asAdmin("PUT", "/OS-FEDERATION/service_providers/sp", { service_provider });
  }
  const login = await brief.login(ADMIN_USER, ADMIN_SCOPE);
  const ended = await send(`${SAML2}/ecp`, request(tokenOf(login)), brief);
  expect(endOf(ended.text)).toBe(Date.parse(textAt(login, "token.expires_at")));
  expect(ended.text).toMatch(/<ecp:RelayState [^>]*>own:[0-9a-f]{32}</);
  const early = await send(SAML2, request(await short.adminToken()), short);
  expect(Math.abs(endOf(early.text) - Date.now() - 20_000)).toBeLessThan(5_000);
});

test("a program gets the response in an envelope, whose relay state begins as the service provider wants it", async () => {
  await provide("prefixed", { enabled: true, relay_state_prefix: "<x>:" });
  const { status, text, headers } = await ask(await administrator.adminToken(), "prefixed", `${SAML2}/ecp`);
  expect([status, headers.get("content-type"), headers.get("x-sp-url")]).toEqual([200, "text/xml", SP_URL]);
  expect(text).toMatch(
    /^<\?xml [^>]*>\n<soap:Envelope [^>]*><soap:Header><ecp:RelayState [^>]*soap:mustUnderstand="1">&lt;x&gt;:[0-9a-f]{32}</,
  );
  expect(text).toMatch(
    /<\/soap:Header><soap:Body><samlp:Response [\s\S]*<\/samlp:Response><\/soap:Body><\/soap:Envelope>$/,
  );
});

test("who has no token of a project, or asks for an unknown or disabled service provider, gets no assertion", async () => {
  await provide("off", {});
  const { login, adminToken } = administrator;
  const token = await adminToken();
  const scopes = [undefined, { domain: { id: "default" } }, { system: { all: true } }];
  const { id } = await administrator.bearer("/domains/default", "admin");
  for (const path of [SAML2, `${SAML2}/ecp`]) {
    for (const scope of scopes) {
      const user = scope !== undefined && "domain" in scope ? { id, password: USER_PASSWORD } : ADMIN_USER;
      const other = tokenOf(await login(user, scope));
      const refused = await ask(other, "sp", path);
      expect([refused.status, messageOf(refused)]).toEqual([
        403,
        "You are not authorized to perform the requested action: Use a project scoped token when attempting to create a SAML assertion.",
      ]);
    }
    const unknown = await ask(token, "nowhere", path);
    expect([unknown.status, messageOf(unknown)]).toEqual([404, "Could not find Service Provider: nowhere."]);
    const disabled = await ask(token, "off", path);
    expect([disabled.status, messageOf(disabled)]).toEqual([403, "Service Provider off is disabled"]);
    for (const bad of ["nonsense", "", `${token.slice(0, -2)}AA`]) {
      expect([bad, (await ask(bad, "sp", path)).status]).toEqual([bad, 404]);
    }
  }
});

test("a revoked token and one whose user lost the role give no assertion", async () => {
  const { create, bearer, call, asAdmin } = administrator;
  const project = await create("project", { name: randomUUID() });
  const { id, token } = await bearer(`/projects/${project}`, "member");
  expect((await ask(token)).status).toBe(200);
  const role = textAt(await asAdmin("GET", "/roles?name=member"), "roles.0.id");
  expect((await asAdmin("DELETE", `/projects/${project}/users/${id}/roles/${role}`)).status).toBe(204);
  expect((await ask(token)).status).toBe(404);
  const own = await administrator.adminToken();
  expect((await call("DELETE", "/v3/auth/tokens", { token: own, subject: own })).status).toBe(204);
  expect((await ask(own)).status).toBe(404);
});

test("a right that was handed on does not become an assertion", async () => {
  const { create, bearer, call, authenticate } = administrator;
  const project = await create("project", { name: randomUUID() });
  const { id, token } = await bearer(`/projects/${project}`, "member");
  const made = await call("POST", `/v3/users/${id}/application_credentials`, {
    token,
    body: { application_credential: { name: "robot", unrestricted: true } },
  });
  const secret = textAt(made, "application_credential.secret");
  const credential = { id: textAt(made, "application_credential.id"), secret };
  const login = await authenticate({ methods: ["application_credential"], application_credential: credential });
  expect(login.status).toBe(201);
  const refused = await ask(tokenOf(login));
  expect([refused.status, messageOf(refused)]).toEqual([
    403,
    "You are not authorized to perform the requested action: Delegated tokens cannot be turned into assertions.",
  ]);
});

test("bodies that are not what is asked for are refused, and other methods too", async () => {
  const token = await administrator.adminToken();
  const good = request(token);
  const bodies = [
    {},
    { auth: {} },
    { auth: { ...good.auth, odd: 1 } },
    { auth: { identity: good.auth.identity } },
    { auth: { ...good.auth, scope: { service_provider: { id: 1 } } } },
    { auth: { ...good.auth, scope: { service_provider: { id: "sp" }, project: { id: "x" } } } },
    { auth: { ...good.auth, identity: { methods: ["token"], token: {} } } },
    { auth: { ...good.auth, identity: { methods: "token", token: { id: token } } } },
    { auth: { ...good.auth, identity: { ...good.auth.identity, password: {} } } },
  ];
  for (const path of [SAML2, `${SAML2}/ecp`]) {
    for (const body of bodies) expect([body, (await send(path, body)).status]).toEqual([body, 400]);
    const answer = await administrator.call("GET", path);
    expect([answer.status, answer.headers.get("allow")]).toEqual([405, "POST"]);
  }
  const identity = { token: { id: token } };
  expect((await send(SAML2, { auth: { ...good.auth, identity } })).status).toBe(200);
  expect((await administrator.call("HEAD", METADATA)).status).toBe(200);
});

test("names that XML cannot carry are told of, and addresses that a header cannot carry are encoded", async () => {
  const { create, bearer, asAdmin } = administrator;
  const project = await create("project", { name: `bell ${randomUUID()}` });
  const { token } = await bearer(`/projects/${project}`, "member");
  await provide("odd", { enabled: true, sp_url: 'https://sp.example/é\r\nx-evil: 1 <"&>' });
  const answer = await ask(token, "odd");
  expect([answer.status, answer.headers.get("x-evil")]).toEqual([200, null]);
  expect(answer.headers.get("x-sp-url")).toBe('https://sp.example/%C3%A9%0D%0Ax-evil:%201%20<"&>');
  expect(answer.text).toContain('Destination="https://sp.example/&#xE9;&#xD;&#xA;x-evil: 1 &lt;&quot;&amp;&gt;"');
  expect((await asAdmin("PATCH", `/projects/${project}`, { project: { name: "bell \u0007" } })).status).toBe(200);
  const refused = await ask(token);
  expect([refused.status, messageOf(refused)]).toEqual([
    400,
    String.raw`"bell \u0007" has characters that XML cannot carry.`,
  ]);
});

test("a key that cannot be read keeps nobody from logging in; what needs it answers 500", async () => {
  const saml = { certfile: "/nowhere/certificate.pem", keyfile: "/nowhere/key.pem" };
  await using keyless = await startTestAdministrator({ identity: { saml } });
  const service_provider = { auth_url: AUTH_URL, sp_url: SP_URL, enabled: true };
  expect((await keyless.asAdmin("PUT", "/OS-FEDERATION/service_providers/sp", { service_provider })).status).toBe(201);
  const answers = [
    await send(METADATA, undefined, keyless),
    await send(SAML2, request(await keyless.adminToken()), keyless),
  ];
  expect(answers.map(({ status }) => status)).toEqual([500, 500]);
  expect(answers.map(({ text }) => text).join()).not.toContain("nowhere");
});
