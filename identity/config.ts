import { type Static, Type } from "typebox";
import { Compile } from "typebox/compile";
import { RingsteadError } from "../common/errors.ts";
import type { PasswordPattern } from "./core/password-rules.ts";
import { isSafeUrl } from "./core/safe-url.ts";
import type { SamlContact, SamlOrganization } from "./core/saml/metadata.ts";
import { createPasswordPattern } from "./password-pattern.ts";

/** Argon2id's floor, as OWASP's password storage cheat sheet has it. */
const MEMORY_KIB_MIN = 19_456;
const PASSES_MIN = 2;
const YEAR_DAYS = 365;

/** A table `[identity.oidc.IDP]`: how the provider with that id is spoken to. */
const oidcKeys = Type.Object(
  {
    /** What its tokens say they are of; its discovery document is beneath. https, but for loopback addresses. */
    issuer: Type.String({ minLength: 1, maxLength: 255 }),
    /** What this service is called there. */
    client_id: Type.String({ minLength: 1, maxLength: 255 }),
    /** Absolute path; a file of its own, so that the configuration can be the same everywhere and be read by many. */
    client_secret_file: Type.Optional(Type.String({ pattern: "^/" })),
    /** Audiences of access tokens that are for this service, besides `client_id`. */
    audiences: Type.Optional(Type.Array(Type.String({ minLength: 1, maxLength: 255 }), { maxItems: 16 })),
    /** What a browser's login asks for. */
    scopes: Type.Optional(Type.Array(Type.String({ pattern: "^[!#-\\[\\]-~]+$" }), { minItems: 1, maxItems: 32 })),
    /** The only pages that a browser's login hands a token to, whole URLs: `https://dashboard.example/auth/websso/`. */
    trusted_dashboards: Type.Optional(Type.Array(Type.String({ pattern: "^https?://" }), { maxItems: 64 })),
  },
  { additionalProperties: false },
);

const DAY_SECONDS = 86_400;
const samlUri = Type.String({ pattern: "^[A-Za-z][A-Za-z0-9+.-]*:[!-~]+$", maxLength: 1_024 });
const samlText = Type.String({ minLength: 1, maxLength: 255 });

/** The table `[identity.saml]`: this cloud as an identity provider of others. Names are those of Keystone's section `[saml]`. */
const samlKeys = Type.Object(
  {
    /** What this provider is called, for ever: receivers know it by that. `/v3/OS-FEDERATION/saml2/idp` of the public address where it is not given. */
    idp_entity_id: Type.Optional(samlUri),
    /** Where its metadata says that logins begin; nothing is there, since each begins with a token. */
    idp_sso_endpoint: Type.Optional(samlUri),
    /** Language of the organization's texts. */
    idp_lang: Type.Optional(Type.String({ pattern: "^[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*$" })),
    /** In the metadata only with `idp_organization_url`. */
    idp_organization_name: Type.Optional(samlText),
    /** The name where it is not given. */
    idp_organization_display_name: Type.Optional(samlText),
    idp_organization_url: Type.Optional(samlUri),
    idp_contact_company: Type.Optional(samlText),
    idp_contact_name: Type.Optional(samlText),
    idp_contact_surname: Type.Optional(samlText),
    idp_contact_email: Type.Optional(samlText),
    idp_contact_telephone: Type.Optional(samlText),
    idp_contact_type: Type.Optional(Type.Enum(["technical", "support", "administrative", "billing", "other"])),
    /** Seconds that an assertion is good for; never longer than its token. */
    assertion_expiration_time: Type.Optional(Type.Integer({ minimum: 10, maximum: DAY_SECONDS })),
    /** Absolute paths of a certificate and its RSA key, PEM; both or none. Own ones are made where they are not given. */
    certfile: Type.Optional(Type.String({ pattern: "^/" })),
    keyfile: Type.Optional(Type.String({ pattern: "^/" })),
    /** What relay states begin with, where a service provider does not say; shibd's way to say that it keeps them itself. */
    relay_state_prefix: Type.Optional(Type.String({ maxLength: 256 })),
    /** Seconds that a new key stands in the metadata before it signs. Long enough for receivers that look once a day, and for one bad weekend. */
    key_announcement_seconds: Type.Optional(Type.Integer({ minimum: 0, maximum: 365 * DAY_SECONDS })),
  },
  { additionalProperties: false },
);

/** The table `[identity]` of cluster.toml. */
const identityKeys = Type.Object(
  {
    /** Seconds that a token lives. Long enough for a client's session, short enough that an unseen revocation ends by itself. */
    token_lifetime_seconds: Type.Optional(Type.Integer({ minimum: 60, maximum: 86_400 })),
    /** Seconds beyond its end in which a service that proves itself may still use its caller's token for an operation under way. */
    allow_expired_window_seconds: Type.Optional(Type.Integer({ minimum: 0, maximum: 604_800 })),
    /** KiB of memory for one argon2id hash. */
    password_hash_memory_kib: Type.Optional(Type.Integer({ minimum: MEMORY_KIB_MIN, maximum: 1_048_576 })),
    /** Passes of argon2id over that memory. */
    password_hash_passes: Type.Optional(Type.Integer({ minimum: PASSES_MIN, maximum: 64 })),
    /** Failed logins in a row after which a user is locked out; 0: never. */
    lockout_failure_attempts: Type.Optional(Type.Integer({ minimum: 0, maximum: 1_000 })),
    /** Seconds of that. */
    lockout_duration_seconds: Type.Optional(Type.Integer({ minimum: 1, maximum: 31_536_000 })),
    /** Days without a login after which a user counts as disabled; 0: never. */
    disable_user_account_days_inactive: Type.Optional(Type.Integer({ minimum: 0, maximum: 10 * YEAR_DAYS })),
    /** Days that a password is good for; 0: for ever. */
    password_expires_days: Type.Optional(Type.Integer({ minimum: 0, maximum: 10 * YEAR_DAYS })),
    /** A new password must differ from this many before it; 0: from none. */
    unique_last_password_count: Type.Optional(Type.Integer({ minimum: 0, maximum: 24 })),
    /** Days that a user must keep a password; 0: none. */
    minimum_password_age_days: Type.Optional(Type.Integer({ minimum: 0, maximum: YEAR_DAYS })),
    /** What a new password must match. */
    password_regex: Type.Optional(Type.String({ maxLength: 1_024 })),
    /** The same in words, for the refusal. */
    password_regex_description: Type.Optional(Type.String({ maxLength: 1_024 })),
    /** A password that an administrator set is good for nothing but setting another. */
    change_password_upon_first_use: Type.Optional(Type.Boolean()),
    /** Failed logins from one address, or for one user, within a minute; beyond it 429. */
    login_failures_per_minute: Type.Optional(Type.Integer({ minimum: 1, maximum: 100_000 })),
    /** Projects beneath one another, the domain not counted. */
    max_project_tree_depth: Type.Optional(Type.Integer({ minimum: 1, maximum: 64 })),
    /** How limits of a domain and its projects bear on each other. */
    limit_model: Type.Optional(Type.Enum(["flat", "strict_two_level"])),
    /** Application credentials of one user. */
    application_credentials_per_user: Type.Optional(Type.Integer({ minimum: 1, maximum: 100_000 })),
    /** Further steps for which a trust may be handed on. */
    max_redelegation_count: Type.Optional(Type.Integer({ minimum: 0, maximum: 16 })),
    oidc: Type.Optional(Type.Record(Type.String({ pattern: "^.{1,64}$" }), oidcKeys)),
    saml: Type.Optional(samlKeys),
  },
  { additionalProperties: false },
);

export type OidcConfig = {
  readonly issuer: string;
  readonly clientId: string;
  readonly clientSecretFile: string | undefined;
  readonly audiences: readonly string[];
  readonly scopes: readonly string[];
  readonly trustedDashboards: readonly string[];
};

export type SamlConfig = {
  readonly entityId: string | undefined;
  readonly ssoEndpoint: string | undefined;
  readonly language: string;
  readonly organization: SamlOrganization | undefined;
  readonly contact: SamlContact | undefined;
  readonly assertionSeconds: number;
  readonly keyFiles: { readonly certfile: string; readonly keyfile: string } | undefined;
  readonly relayStatePrefix: string;
  readonly keyAnnouncementSeconds: number;
};

/** What the identity service is told, with its defaults. Frozen. */
export type IdentityConfig = {
  readonly tokenLifetimeSeconds: number;
  readonly allowExpiredWindowSeconds: number;
  readonly passwordHash: { readonly memoryKib: number; readonly passes: number };
  readonly lockout: { readonly failureAttempts: number; readonly durationSeconds: number };
  readonly passwords: {
    readonly inactiveDays: number;
    readonly expiresDays: number;
    readonly uniqueLastCount: number;
    readonly minimumAgeDays: number;
    readonly pattern: PasswordPattern | undefined;
    readonly changeUponFirstUse: boolean;
  };
  readonly loginFailuresPerMinute: number;
  readonly maxProjectTreeDepth: number;
  readonly limitModel: "flat" | "strict_two_level";
  readonly applicationCredentialsPerUser: number;
  readonly maxRedelegationCount: number;
  /** By the id of the identity provider. */
  readonly oidc: ReadonlyMap<string, OidcConfig>;
  readonly saml: SamlConfig;
};

const check = Compile(identityKeys);

const refuse = (message: string): never => {
  throw new RingsteadError("invalid-config", `cluster.toml: [identity]: ${message}`);
};

const patternOf = (text: string | undefined, description: string | undefined): PasswordPattern | undefined => {
  if (text === undefined) return undefined;
  try {
    return createPasswordPattern(text, description ?? text);
  } catch {
    return refuse("password_regex is no regular expression");
  }
};

const oidcOf = (idpId: string, keys: Static<typeof oidcKeys>): OidcConfig => {
  const issuer = URL.parse(keys.issuer);
  if (issuer === null || !isSafeUrl(issuer)) return refuse(`oidc.${idpId}.issuer is no https URL`);
  return Object.freeze({
    issuer: keys.issuer,
    clientId: keys.client_id,
    clientSecretFile: keys.client_secret_file,
    audiences: keys.audiences ?? [],
    scopes: [...new Set(["openid", ...(keys.scopes ?? ["email", "profile"])])],
    trustedDashboards: keys.trusted_dashboards ?? [],
  });
};

const organizationOf = (keys: Static<typeof samlKeys>): SamlOrganization | undefined => {
  const { idp_organization_name: name, idp_organization_url: url } = keys;
  if (name === undefined && url === undefined && keys.idp_organization_display_name === undefined) return undefined;
  if (name === undefined || url === undefined) {
    return refuse("saml: an organization has idp_organization_name and idp_organization_url");
  }
  return { name, displayName: keys.idp_organization_display_name ?? name, url };
};

const contactOf = (keys: Static<typeof samlKeys>): SamlContact | undefined => {
  const parts = {
    company: keys.idp_contact_company,
    name: keys.idp_contact_name,
    surname: keys.idp_contact_surname,
    email: keys.idp_contact_email,
    telephone: keys.idp_contact_telephone,
  };
  const isKnown = Object.values(parts).some((part) => part !== undefined);
  return isKnown ? { type: keys.idp_contact_type ?? "other", ...parts } : undefined;
};

const samlOf = (keys: Static<typeof samlKeys>): SamlConfig => {
  const { certfile, keyfile } = keys;
  if ((certfile === undefined) !== (keyfile === undefined)) refuse("saml: certfile and keyfile go together");
  return Object.freeze({
    entityId: keys.idp_entity_id,
    ssoEndpoint: keys.idp_sso_endpoint,
    language: keys.idp_lang ?? "en",
    organization: organizationOf(keys),
    contact: contactOf(keys),
    assertionSeconds: keys.assertion_expiration_time ?? 3_600,
    keyFiles: certfile === undefined || keyfile === undefined ? undefined : { certfile, keyfile },
    relayStatePrefix: keys.relay_state_prefix ?? "ss:mem:",
    keyAnnouncementSeconds: keys.key_announcement_seconds ?? 7 * DAY_SECONDS,
  });
};

/** The table `[identity]`, checked and completed. Throws RingsteadError `invalid-config`. */
export const parseIdentityConfig = (table: unknown): IdentityConfig => {
  const value: unknown = table ?? {};
  if (!check.Check(value)) {
    const [problem] = check.Errors(value);
    return refuse(`${problem?.instancePath.slice(1) ?? ""} ${problem?.message ?? "is not understood"}`.trim());
  }
  const keys: Static<typeof identityKeys> = value;
  const pattern = patternOf(keys.password_regex, keys.password_regex_description);
  return Object.freeze({
    tokenLifetimeSeconds: keys.token_lifetime_seconds ?? 3_600,
    allowExpiredWindowSeconds: keys.allow_expired_window_seconds ?? 172_800,
    passwordHash: {
      memoryKib: keys.password_hash_memory_kib ?? MEMORY_KIB_MIN,
      passes: keys.password_hash_passes ?? PASSES_MIN,
    },
    lockout: {
      failureAttempts: keys.lockout_failure_attempts ?? 0,
      durationSeconds: keys.lockout_duration_seconds ?? 1_800,
    },
    passwords: {
      inactiveDays: keys.disable_user_account_days_inactive ?? 0,
      expiresDays: keys.password_expires_days ?? 0,
      uniqueLastCount: keys.unique_last_password_count ?? 0,
      minimumAgeDays: keys.minimum_password_age_days ?? 0,
      pattern,
      changeUponFirstUse: keys.change_password_upon_first_use ?? false,
    },
    loginFailuresPerMinute: keys.login_failures_per_minute ?? 60,
    maxProjectTreeDepth: keys.max_project_tree_depth ?? 5,
    limitModel: keys.limit_model ?? "flat",
    applicationCredentialsPerUser: keys.application_credentials_per_user ?? 1_000,
    maxRedelegationCount: keys.max_redelegation_count ?? 3,
    oidc: new Map(Object.entries(keys.oidc ?? {}).map(([idpId, table]) => [idpId, oidcOf(idpId, table)])),
    saml: samlOf(keys.saml ?? {}),
  });
};
