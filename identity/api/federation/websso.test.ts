import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { createBrowser } from "../../oidc-fixture.ts";
import { at, textAt } from "../../test-client.ts";
import { WEBSSO, DASHBOARD, PERSON, GROUPS, createFederationFixture } from "./federation-fixture.ts";

const federation = createFederationFixture();
const { call, send, setRules } = federation;

beforeAll(() => federation.start());
beforeEach(() => federation.reset());
afterAll(() => federation[Symbol.asyncDispose]());

test("a browser goes to the provider, logs in there and comes back to the dashboard with a token", async () => {
  await setRules(PERSON, GROUPS);
  const browser = createBrowser();
  const start = new URL(`${federation.base}${WEBSSO}?origin=${encodeURIComponent(DASHBOARD)}`);
  const { response } = await browser.walk(start, "alice");
  const page = await response.text();
  expect([response.status, response.headers.get("content-type")]).toEqual([200, "text/html; charset=utf-8"]);
  expect(page).toContain(`action="${DASHBOARD}"`);
  expect(response.headers.get("content-security-policy")).toContain("form-action https://dashboard.example;");
  expect(response.headers.get("cache-control")).toBe("no-store");
  const [, token = ""] = /name="token" id="token" value="([^"]+)"/.exec(page) ?? [];
  const own = await call("GET", "/v3/auth/tokens", { token, subject: token });
  expect(own.body["token"]).toMatchObject({ methods: ["openid"], user: { name: "alice" } });
  // Claims that only the provider's userinfo has.
  const user = await send("GET", `/v3/users/${textAt(own, "token.user.id")}`);
  expect(at(user, "user.email")).toBe("alice@example.com");
});

test("without a provider's name a browser goes to the only one that has the protocol", async () => {
  const path = `${federation.base}/v3/auth/OS-FEDERATION/websso/openid?origin=${encodeURIComponent(DASHBOARD)}`;
  const response = await createBrowser().visit(new URL(path));
  expect([
    response.status,
    response.headers.get("location")?.startsWith(`${federation.provider.issuer}/auth?`),
  ]).toEqual([302, true]);
  const other = await fetch(`${federation.base}/v3/auth/OS-FEDERATION/websso/saml2?origin=x`, { redirect: "manual" });
  expect(other.status).toBe(401);
});

test("only pages on the list are handed a token", async () => {
  const statusFor = async (query: string): Promise<number> =>
    (await fetch(`${federation.base}${WEBSSO}${query}`, { redirect: "manual" })).status;
  for (const origin of [
    "https://evil.example/",
    "https://dashboard.example",
    "https://dashboard.example.evil.example/auth/websso/",
    `${DASHBOARD}../evil`,
    `${DASHBOARD}?x`,
    "javascript:alert(1)",
    "nonsense",
  ]) {
    expect([origin, await statusFor(`?origin=${encodeURIComponent(origin)}`)]).toEqual([origin, 401]);
  }
  expect(await statusFor("")).toBe(400);
  expect(await statusFor(`?origin=${encodeURIComponent("HTTPS://Dashboard.Example/auth/websso/")}`)).toBe(302);
});

test("an answer that this browser did not ask for, or brings twice, is refused", async () => {
  const browser = createBrowser();
  const start = new URL(`${federation.base}${WEBSSO}?origin=${encodeURIComponent(DASHBOARD)}`);
  const isAnswer = (url: URL): boolean => url.pathname === WEBSSO && url.searchParams.has("code");
  const { url: answer } = await browser.walk(start, "alice", isAnswer);
  expect(isAnswer(answer)).toBe(true);
  // Another browser, or one that began another login.
  expect((await createBrowser().visit(answer)).status).toBe(401);
  const stranger = createBrowser();
  await stranger.visit(start);
  expect((await stranger.visit(answer)).status).toBe(401);
  for (const [name, value] of [
    ["state", "x"],
    ["code", "x"],
    ["iss", "https://evil.example"],
  ] as const) {
    const altered = new URL(answer);
    altered.searchParams.set(name, value);
    expect([name, (await browser.visit(altered)).status]).toEqual([name, 401]);
  }
  expect((await browser.visit(answer)).status).toBe(200);
  // The cookie went with it, and the provider's code is used up.
  expect((await browser.visit(answer)).status).toBe(401);
});

test("a login that takes longer than ten minutes begins anew, one that the provider refuses ends", async () => {
  const browser = createBrowser();
  const start = new URL(`${federation.base}${WEBSSO}?origin=${encodeURIComponent(DASHBOARD)}`);
  const isAnswer = (url: URL): boolean => url.searchParams.has("code");
  const { url: answer } = await browser.walk(start, "alice", isAnswer);
  const refused = new URL(federation.base + WEBSSO);
  refused.searchParams.set("state", answer.searchParams.get("state") ?? "");
  refused.searchParams.set("error", "access_denied");
  expect((await browser.visit(refused)).status).toBe(401);
  federation.advance(601_000);
  expect((await browser.visit(answer)).status).toBe(401);
});
