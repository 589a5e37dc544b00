import type { Generated, Selectable } from "kysely";

/** 0 or 1: a boolean that SQLite and PostgreSQL keep alike. */
type Flag = number;

/** A JSON object as text. `extra`: members that a client gave and this service only keeps. `options`: Keystone's resource options. */
type JsonText = string;

/** A domain is a project without a domain, as in Keystone: it can be a parent, and roles are held on it. */
type ProjectTable = {
  id: string;
  /** Null for a domain. */
  domain_id: string | null;
  /** A project or a domain; null for a domain. */
  parent_id: string | null;
  is_domain: Flag;
  name: string;
  description: string;
  enabled: Flag;
  options: JsonText;
  extra: JsonText;
};

type ProjectTagTable = { project_id: string; name: string };

/** Users of the SQL driver, and the shadows of federated ones, which have no password. */
type UserTable = {
  id: string;
  domain_id: string;
  name: string;
  /** No reference: a project that goes leaves the name of what was. */
  default_project_id: string | null;
  enabled: Flag;
  options: JsonText;
  extra: JsonText;
  created_at_ms: number;
  /** The last login's; what `disable_user_account_days_inactive` counts from. */
  last_active_at_ms: number | null;
  failed_login_count: number;
  failed_login_at_ms: number | null;
};

/** A user's passwords, the newest counts; the older ones are the history. */
type PasswordTable = {
  id: Generated<number>;
  user_id: string;
  hash: string;
  created_at_ms: number;
  expires_at_ms: number | null;
  /** 1: its owner chose it. 0: an administrator did. */
  self_service: Flag;
};

type GroupTable = { id: string; domain_id: string; name: string; description: string; extra: JsonText };

/** `expires_at_ms`: a federated user's membership lives as long as what the provider said. */
type GroupMemberTable = { group_id: string; user_id: string; expires_at_ms: number | null };

/** The public id of what a directory (LDAP) knows by an id of its own. */
type IdMappingTable = { public_id: string; domain_id: string; local_id: string; kind: "user" | "group" };

type RoleTable = {
  id: string;
  name: string;
  /** Null for a role of all domains. */
  domain_id: string | null;
  description: string | null;
  options: JsonText;
  extra: JsonText;
};

type RoleImplicationTable = { prior_role_id: string; implied_role_id: string };

/** `target_id` is a project's or domain's id, and `all` for the system. */
export type AssignmentTable = {
  actor_kind: "user" | "group";
  actor_id: string;
  target_kind: "project" | "domain" | "system";
  target_id: string;
  role_id: string;
  /** 1: holds on the projects beneath the target, and not on it. */
  inherited: Flag;
};

/** `blob` is encrypted; `access` is the public half by which an EC2 credential is found. */
type CredentialTable = {
  id: string;
  type: string;
  user_id: string;
  project_id: string | null;
  access: string | null;
  blob: Uint8Array;
  extra: JsonText;
};

type ApplicationCredentialTable = {
  id: string;
  user_id: string;
  project_id: string;
  name: string;
  description: string | null;
  secret_hash: string;
  /** Microseconds: clients compare what they gave. */
  expires_at_us: number | null;
  unrestricted: Flag;
  system: string | null;
};

type ApplicationCredentialRoleTable = { application_credential_id: string; role_id: string };

type AccessRuleTable = { id: string; user_id: string; service: string; method: string; path: string };

type ApplicationCredentialRuleTable = { application_credential_id: string; access_rule_id: string };

type TrustTable = {
  id: string;
  trustor_user_id: string;
  trustee_user_id: string;
  project_id: string | null;
  impersonation: Flag;
  expires_at_ms: number | null;
  /** Null: without limit. */
  remaining_uses: number | null;
  /** Further steps of delegation that are allowed. */
  redelegation_count: number;
  redelegated_trust_id: string | null;
  deleted_at_ms: number | null;
  extra: JsonText;
};

type TrustRoleTable = { trust_id: string; role_id: string };

type RegionTable = { id: string; description: string; parent_region_id: string | null; extra: JsonText };

type ServiceTable = {
  id: string;
  type: string;
  /** Null: without one. */
  name: string | null;
  description: string | null;
  enabled: Flag;
  extra: JsonText;
};

export type EndpointInterface = "public" | "internal" | "admin";

type EndpointTable = {
  id: string;
  service_id: string;
  region_id: string | null;
  interface: EndpointInterface;
  url: string;
  enabled: Flag;
  /** 1: follows the running ports at each start. 0: belongs to the operator. */
  managed: Flag;
  extra: JsonText;
};

/** `filters`: JSON object of the endpoint's members that must be equal. */
type EndpointGroupTable = { id: string; name: string; description: string | null; filters: JsonText };

type ProjectEndpointTable = { project_id: string; endpoint_id: string };

type ProjectEndpointGroupTable = { project_id: string; endpoint_group_id: string };

type PolicyTable = { id: string; type: string; blob: string; extra: JsonText };

/** What a policy is for: an endpoint, a service, or a service in a region. The unused columns are empty texts. */
type PolicyAssociationTable = { policy_id: string; endpoint_id: string; service_id: string; region_id: string };

type RegisteredLimitTable = {
  id: string;
  service_id: string;
  region_id: string | null;
  resource_name: string;
  default_limit: number;
  description: string | null;
};

/** Exactly one of project and domain. */
type LimitTable = {
  id: string;
  registered_limit_id: string;
  project_id: string | null;
  domain_id: string | null;
  resource_limit: number;
  description: string | null;
};

/** `value`: JSON. A sensitive one is encrypted as credentials are, and then base64. */
type DomainConfigurationTable = {
  domain_id: string;
  group_name: string;
  option_name: string;
  value: string;
  sensitive: Flag;
};

/** OAuth 1.0a. */
type ConsumerTable = { id: string; description: string | null; secret: string; extra: JsonText };

type RequestTokenTable = {
  id: string;
  secret: string;
  verifier: string | null;
  authorizing_user_id: string | null;
  requested_project_id: string;
  /** JSON list of role ids, once authorized. */
  role_ids: string | null;
  consumer_id: string;
  expires_at_ms: number | null;
};

type AccessTokenTable = {
  id: string;
  secret: string;
  authorizing_user_id: string;
  project_id: string;
  /** JSON list. */
  role_ids: string;
  consumer_id: string;
  expires_at_ms: number | null;
};

type IdentityProviderTable = {
  id: string;
  enabled: Flag;
  description: string | null;
  domain_id: string;
  /** Minutes that a mapped group membership lives; null: for its token only. */
  authorization_ttl: number | null;
  extra: JsonText;
};

type RemoteIdTable = { remote_id: string; idp_id: string };

type FederationProtocolTable = {
  id: string;
  idp_id: string;
  mapping_id: string;
  remote_id_attribute: string | null;
};

/** `rules`: JSON list. */
type FederationMappingTable = { id: string; rules: string; schema_version: string };

type FederatedUserTable = {
  user_id: string;
  idp_id: string;
  protocol_id: string;
  /** What the provider calls the user. */
  unique_id: string;
  display_name: string;
};

type ServiceProviderTable = {
  id: string;
  auth_url: string;
  sp_url: string;
  enabled: Flag;
  description: string | null;
  relay_state_prefix: string;
};

/**
 * One row for each write that others must learn of, in the write's own transaction. `revocations` is JSON (core/revocation.ts), null where
 * only caches are concerned. Rows go when no token can be older.
 */
type ChangeTable = { id: Generated<number>; at_ms: number; revocations: string | null };

/** Hash of a code or nonce that may not come again before `expires_at_ms`. */
type SpentCodeTable = { code: string; expires_at_ms: number };

type SettingTable = { key: string; value: string };

export type IdentitySchema = {
  projects: ProjectTable;
  project_tags: ProjectTagTable;
  users: UserTable;
  passwords: PasswordTable;
  groups: GroupTable;
  group_members: GroupMemberTable;
  id_mappings: IdMappingTable;
  roles: RoleTable;
  role_implications: RoleImplicationTable;
  assignments: AssignmentTable;
  credentials: CredentialTable;
  application_credentials: ApplicationCredentialTable;
  application_credential_roles: ApplicationCredentialRoleTable;
  access_rules: AccessRuleTable;
  application_credential_rules: ApplicationCredentialRuleTable;
  trusts: TrustTable;
  trust_roles: TrustRoleTable;
  regions: RegionTable;
  services: ServiceTable;
  endpoints: EndpointTable;
  endpoint_groups: EndpointGroupTable;
  project_endpoints: ProjectEndpointTable;
  project_endpoint_groups: ProjectEndpointGroupTable;
  policies: PolicyTable;
  policy_associations: PolicyAssociationTable;
  registered_limits: RegisteredLimitTable;
  limits: LimitTable;
  domain_configurations: DomainConfigurationTable;
  consumers: ConsumerTable;
  request_tokens: RequestTokenTable;
  access_tokens: AccessTokenTable;
  identity_providers: IdentityProviderTable;
  identity_provider_remote_ids: RemoteIdTable;
  federation_protocols: FederationProtocolTable;
  federation_mappings: FederationMappingTable;
  federated_users: FederatedUserTable;
  service_providers: ServiceProviderTable;
  changes: ChangeTable;
  spent_codes: SpentCodeTable;
  settings: SettingTable;
};

export type Project = Selectable<ProjectTable>;
export type User = Selectable<UserTable>;
export type Group = Selectable<GroupTable>;
export type Role = Selectable<RoleTable>;
export type Region = Selectable<RegionTable>;
export type Service = Selectable<ServiceTable>;
export type Endpoint = Selectable<EndpointTable>;
export type Credential = Selectable<CredentialTable>;
export type ApplicationCredential = Selectable<ApplicationCredentialTable>;
export type AccessRule = Selectable<AccessRuleTable>;
export type Trust = Selectable<TrustTable>;
