import { expect, test } from "vitest";
import { parseIdentityConfig } from "./config.ts";

const saml = (table: object) => parseIdentityConfig({ saml: table }).saml;

test("an identity provider of SAML needs no configuration, and says nothing of an operator that was not named", () => {
  expect(parseIdentityConfig(undefined).saml).toEqual({
    entityId: undefined,
    ssoEndpoint: undefined,
    language: "en",
    organization: undefined,
    contact: undefined,
    assertionSeconds: 3_600,
    keyFiles: undefined,
    relayStatePrefix: "ss:mem:",
    keyAnnouncementSeconds: 604_800,
  });
});

test("an organization has a name and an address, a contact whatever is known, and a key its certificate", () => {
  const organization = { idp_organization_name: "n", idp_organization_url: "https://o.example" };
  expect(saml(organization).organization).toEqual({ name: "n", displayName: "n", url: "https://o.example" });
  expect(saml({ ...organization, idp_organization_display_name: "d" }).organization?.displayName).toBe("d");
  expect(saml({ idp_contact_email: "a@example.org" }).contact).toMatchObject({ type: "other", email: "a@example.org" });
  expect(saml({ idp_contact_type: "support" }).contact).toBeUndefined();
  expect(saml({ certfile: "/c", keyfile: "/k" }).keyFiles).toEqual({ certfile: "/c", keyfile: "/k" });
});

test("what cannot be meant is refused with its name", () => {
  const wrong: readonly [table: object, said: string][] = [
    [{ idp_organization_name: "n" }, "idp_organization_url"],
    [{ idp_organization_display_name: "n" }, "idp_organization_name"],
    [{ idp_organization_url: "https://o.example" }, "idp_organization_name"],
    [{ certfile: "/c" }, "certfile and keyfile go together"],
    [{ keyfile: "/k" }, "certfile and keyfile go together"],
    [{ certfile: "c", keyfile: "/k" }, "certfile"],
    [{ idp_entity_id: "no address" }, "idp_entity_id"],
    [{ idp_entity_id: `https://${"x".repeat(1_024)}` }, "idp_entity_id"],
    [{ idp_lang: "<de>" }, "idp_lang"],
    [{ idp_contact_type: "owner" }, "idp_contact_type"],
    [{ assertion_expiration_time: 0 }, "assertion_expiration_time"],
    [{ assertion_expiration_time: 86_401 }, "assertion_expiration_time"],
    [{ key_announcement_seconds: -1 }, "key_announcement_seconds"],
    [{ xmlsec1_binary: "xmlsec1" }, "saml"],
  ];
  for (const [table, said] of wrong) {
    expect(() => saml(table)).toThrow(expect.objectContaining({ code: "invalid-config" }));
    expect(() => saml(table)).toThrow(said);
  }
});
