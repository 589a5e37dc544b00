import { type Kysely, sql } from "kysely";
import { columnTypes } from "../../../common/sql/dialect.ts";

/**
 * Tables that change their shape are made anew beside the old ones, filled from them, and the old ones dropped: SQLite cannot alter a
 * reference. Statements are separated by lines of their own.
 */
const RENAMED = [
  "passwords",
  "credentials",
  "users",
  "assignments",
  "role_implications",
  "roles",
  "endpoints",
  "services",
  "regions",
  "projects",
] as const;

const tables = (types: { blob: string; serial: string }): string => `
CREATE TABLE projects (
  id TEXT PRIMARY KEY, domain_id TEXT REFERENCES projects (id), parent_id TEXT REFERENCES projects (id),
  is_domain INTEGER NOT NULL, name TEXT NOT NULL, description TEXT NOT NULL, enabled INTEGER NOT NULL,
  options TEXT NOT NULL, extra TEXT NOT NULL)
;
CREATE UNIQUE INDEX project_names ON projects (domain_id, name) WHERE is_domain = 0
;
CREATE UNIQUE INDEX domain_names ON projects (name) WHERE is_domain = 1
;
CREATE INDEX project_parents ON projects (parent_id)
;
CREATE TABLE project_tags (
  project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE, name TEXT NOT NULL, PRIMARY KEY (project_id, name))
;
CREATE TABLE users (
  id TEXT PRIMARY KEY, domain_id TEXT NOT NULL REFERENCES projects (id), name TEXT NOT NULL, default_project_id TEXT,
  enabled INTEGER NOT NULL, options TEXT NOT NULL, extra TEXT NOT NULL, created_at_ms BIGINT NOT NULL,
  last_active_at_ms BIGINT, failed_login_count INTEGER NOT NULL, failed_login_at_ms BIGINT)
;
CREATE UNIQUE INDEX user_names ON users (domain_id, name)
;
CREATE TABLE passwords (
  id ${types.serial}, user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE, hash TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL, expires_at_ms BIGINT, self_service INTEGER NOT NULL)
;
CREATE INDEX password_users ON passwords (user_id, id)
;
CREATE TABLE groups (
  id TEXT PRIMARY KEY, domain_id TEXT NOT NULL REFERENCES projects (id), name TEXT NOT NULL, description TEXT NOT NULL, extra TEXT NOT NULL)
;
CREATE UNIQUE INDEX group_names ON groups (domain_id, name)
;
CREATE TABLE group_members (
  group_id TEXT NOT NULL, user_id TEXT NOT NULL, expires_at_ms BIGINT, PRIMARY KEY (group_id, user_id))
;
CREATE INDEX group_member_users ON group_members (user_id)
;
CREATE TABLE id_mappings (
  public_id TEXT PRIMARY KEY, domain_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE, local_id TEXT NOT NULL, kind TEXT NOT NULL)
;
CREATE UNIQUE INDEX id_mapping_locals ON id_mappings (domain_id, local_id, kind)
;
CREATE TABLE roles (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, domain_id TEXT REFERENCES projects (id) ON DELETE CASCADE, description TEXT,
  options TEXT NOT NULL, extra TEXT NOT NULL)
;
CREATE UNIQUE INDEX role_names ON roles (name) WHERE domain_id IS NULL
;
CREATE UNIQUE INDEX domain_role_names ON roles (domain_id, name) WHERE domain_id IS NOT NULL
;
CREATE TABLE role_implications (
  prior_role_id TEXT NOT NULL REFERENCES roles (id) ON DELETE CASCADE, implied_role_id TEXT NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
  PRIMARY KEY (prior_role_id, implied_role_id))
;
CREATE TABLE assignments (
  actor_kind TEXT NOT NULL, actor_id TEXT NOT NULL, target_kind TEXT NOT NULL, target_id TEXT NOT NULL,
  role_id TEXT NOT NULL REFERENCES roles (id) ON DELETE CASCADE, inherited INTEGER NOT NULL,
  PRIMARY KEY (actor_kind, actor_id, target_kind, target_id, role_id, inherited))
;
CREATE INDEX assignment_targets ON assignments (target_kind, target_id)
;
CREATE TABLE credentials (
  id TEXT PRIMARY KEY, type TEXT NOT NULL, user_id TEXT NOT NULL, project_id TEXT, access TEXT, blob ${types.blob} NOT NULL, extra TEXT NOT NULL)
;
CREATE UNIQUE INDEX credential_access ON credentials (access)
;
CREATE INDEX credential_users ON credentials (user_id)
;
CREATE TABLE application_credentials (
  id TEXT PRIMARY KEY, user_id TEXT NOT NULL, project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE, name TEXT NOT NULL,
  description TEXT, secret_hash TEXT NOT NULL, expires_at_us BIGINT, unrestricted INTEGER NOT NULL, system TEXT)
;
CREATE UNIQUE INDEX application_credential_names ON application_credentials (user_id, name)
;
CREATE TABLE application_credential_roles (
  application_credential_id TEXT NOT NULL REFERENCES application_credentials (id) ON DELETE CASCADE,
  role_id TEXT NOT NULL REFERENCES roles (id) ON DELETE CASCADE, PRIMARY KEY (application_credential_id, role_id))
;
CREATE TABLE access_rules (
  id TEXT PRIMARY KEY, user_id TEXT NOT NULL, service TEXT NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL)
;
CREATE UNIQUE INDEX access_rule_texts ON access_rules (user_id, service, method, path)
;
CREATE TABLE application_credential_rules (
  application_credential_id TEXT NOT NULL REFERENCES application_credentials (id) ON DELETE CASCADE,
  access_rule_id TEXT NOT NULL REFERENCES access_rules (id), PRIMARY KEY (application_credential_id, access_rule_id))
;
CREATE TABLE trusts (
  id TEXT PRIMARY KEY, trustor_user_id TEXT NOT NULL, trustee_user_id TEXT NOT NULL, project_id TEXT, impersonation INTEGER NOT NULL,
  expires_at_ms BIGINT, remaining_uses INTEGER, redelegation_count INTEGER NOT NULL, redelegated_trust_id TEXT,
  deleted_at_ms BIGINT, extra TEXT NOT NULL)
;
CREATE INDEX trust_trustors ON trusts (trustor_user_id)
;
CREATE INDEX trust_trustees ON trusts (trustee_user_id)
;
CREATE TABLE trust_roles (
  trust_id TEXT NOT NULL REFERENCES trusts (id) ON DELETE CASCADE, role_id TEXT NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
  PRIMARY KEY (trust_id, role_id))
;
CREATE TABLE regions (
  id TEXT PRIMARY KEY, description TEXT NOT NULL, parent_region_id TEXT REFERENCES regions (id), extra TEXT NOT NULL)
;
CREATE TABLE services (
  id TEXT PRIMARY KEY, type TEXT NOT NULL, name TEXT, description TEXT, enabled INTEGER NOT NULL, extra TEXT NOT NULL)
;
CREATE TABLE endpoints (
  id TEXT PRIMARY KEY, service_id TEXT NOT NULL REFERENCES services (id) ON DELETE CASCADE, region_id TEXT REFERENCES regions (id),
  interface TEXT NOT NULL, url TEXT NOT NULL, enabled INTEGER NOT NULL, managed INTEGER NOT NULL, extra TEXT NOT NULL)
;
CREATE TABLE endpoint_groups (id TEXT PRIMARY KEY, name TEXT NOT NULL, description TEXT, filters TEXT NOT NULL)
;
CREATE TABLE project_endpoints (
  project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE, endpoint_id TEXT NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
  PRIMARY KEY (project_id, endpoint_id))
;
CREATE TABLE project_endpoint_groups (
  project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
  endpoint_group_id TEXT NOT NULL REFERENCES endpoint_groups (id) ON DELETE CASCADE, PRIMARY KEY (project_id, endpoint_group_id))
;
CREATE TABLE policies (id TEXT PRIMARY KEY, type TEXT NOT NULL, blob TEXT NOT NULL, extra TEXT NOT NULL)
;
CREATE TABLE policy_associations (
  policy_id TEXT NOT NULL REFERENCES policies (id) ON DELETE CASCADE, endpoint_id TEXT NOT NULL, service_id TEXT NOT NULL, region_id TEXT NOT NULL,
  PRIMARY KEY (endpoint_id, service_id, region_id))
;
CREATE TABLE registered_limits (
  id TEXT PRIMARY KEY, service_id TEXT NOT NULL REFERENCES services (id), region_id TEXT REFERENCES regions (id),
  resource_name TEXT NOT NULL, default_limit INTEGER NOT NULL, description TEXT)
;
CREATE UNIQUE INDEX registered_limit_names ON registered_limits (service_id, COALESCE(region_id, ''), resource_name)
;
CREATE TABLE limits (
  id TEXT PRIMARY KEY, registered_limit_id TEXT NOT NULL REFERENCES registered_limits (id), project_id TEXT REFERENCES projects (id) ON DELETE CASCADE,
  domain_id TEXT REFERENCES projects (id) ON DELETE CASCADE, resource_limit INTEGER NOT NULL, description TEXT)
;
CREATE UNIQUE INDEX limit_owners ON limits (registered_limit_id, COALESCE(project_id, ''), COALESCE(domain_id, ''))
;
CREATE TABLE domain_configurations (
  domain_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE, group_name TEXT NOT NULL, option_name TEXT NOT NULL,
  value TEXT NOT NULL, sensitive INTEGER NOT NULL, PRIMARY KEY (domain_id, group_name, option_name))
;
CREATE TABLE consumers (id TEXT PRIMARY KEY, description TEXT, secret TEXT NOT NULL, extra TEXT NOT NULL)
;
CREATE TABLE request_tokens (
  id TEXT PRIMARY KEY, secret TEXT NOT NULL, verifier TEXT, authorizing_user_id TEXT, requested_project_id TEXT NOT NULL, role_ids TEXT,
  consumer_id TEXT NOT NULL REFERENCES consumers (id) ON DELETE CASCADE, expires_at_ms BIGINT)
;
CREATE TABLE access_tokens (
  id TEXT PRIMARY KEY, secret TEXT NOT NULL, authorizing_user_id TEXT NOT NULL, project_id TEXT NOT NULL, role_ids TEXT NOT NULL,
  consumer_id TEXT NOT NULL REFERENCES consumers (id) ON DELETE CASCADE, expires_at_ms BIGINT)
;
CREATE INDEX access_token_users ON access_tokens (authorizing_user_id)
;
CREATE TABLE identity_providers (
  id TEXT PRIMARY KEY, enabled INTEGER NOT NULL, description TEXT, domain_id TEXT NOT NULL REFERENCES projects (id),
  authorization_ttl INTEGER, extra TEXT NOT NULL)
;
CREATE TABLE identity_provider_remote_ids (
  remote_id TEXT PRIMARY KEY, idp_id TEXT NOT NULL REFERENCES identity_providers (id) ON DELETE CASCADE)
;
CREATE TABLE federation_mappings (id TEXT PRIMARY KEY, rules TEXT NOT NULL, schema_version TEXT NOT NULL)
;
CREATE TABLE federation_protocols (
  id TEXT NOT NULL, idp_id TEXT NOT NULL REFERENCES identity_providers (id) ON DELETE CASCADE, mapping_id TEXT NOT NULL,
  remote_id_attribute TEXT, PRIMARY KEY (idp_id, id))
;
CREATE TABLE federated_users (
  user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE, idp_id TEXT NOT NULL REFERENCES identity_providers (id) ON DELETE CASCADE,
  protocol_id TEXT NOT NULL, unique_id TEXT NOT NULL, display_name TEXT NOT NULL, PRIMARY KEY (idp_id, protocol_id, unique_id))
;
CREATE INDEX federated_user_ids ON federated_users (user_id)
;
CREATE TABLE service_providers (
  id TEXT PRIMARY KEY, auth_url TEXT NOT NULL, sp_url TEXT NOT NULL, enabled INTEGER NOT NULL, description TEXT, relay_state_prefix TEXT NOT NULL)
;
CREATE TABLE changes (id ${types.serial}, at_ms BIGINT NOT NULL, revocations TEXT)
`;

const COPIES = `
INSERT INTO projects SELECT id, NULL, NULL, 1, name, description, enabled, '{}', '{}' FROM domains
;
INSERT INTO projects
  SELECT id, domain_id, COALESCE(parent_id, domain_id), 0, name, description, enabled, '{}', '{}' FROM old_projects
;
INSERT INTO users
  SELECT id, domain_id, name, default_project_id, enabled, '{}', '{}', created_at_ms, NULL, 0, NULL FROM old_users
;
INSERT INTO passwords (user_id, hash, created_at_ms, expires_at_ms, self_service)
  SELECT user_id, hash, created_at_ms, NULL, 0 FROM old_passwords ORDER BY id
;
INSERT INTO roles SELECT id, name, NULL, description, '{}', '{}' FROM old_roles
;
INSERT INTO role_implications SELECT prior_role_id, implied_role_id FROM old_role_implications
;
INSERT INTO assignments SELECT actor_kind, actor_id, target_kind, target_id, role_id, 0 FROM old_assignments
;
INSERT INTO credentials SELECT id, type, user_id, project_id, access, blob, '{}' FROM old_credentials
;
INSERT INTO regions SELECT id, description, parent_region_id, '{}' FROM old_regions
;
INSERT INTO services SELECT id, type, name, description, enabled, '{}' FROM old_services
;
INSERT INTO endpoints SELECT id, service_id, region_id, interface, url, enabled, managed, '{}' FROM old_endpoints
`;

/** Before this step a revoked token was a row of its own; its audit id goes into the changes. */
const REVOKED = `
INSERT INTO changes (at_ms, revocations)
  SELECT expires_at_ms, '[{"kind":"revoke","auditId":"' || audit_id || '","issuedBeforeMs":' || expires_at_ms || '}]' FROM revoked_tokens
;
DROP TABLE revoked_tokens
;
DROP TABLE domains
`;

/** What the whole of Identity v3 keeps. */
export const wholeService = async (database: Kysely<unknown>): Promise<void> => {
  const run = async (script: string): Promise<void> => {
    for (const statement of script.split(/^;$/m)) await sql.raw(statement).execute(database);
  };
  for (const name of RENAMED) await run(`ALTER TABLE ${name} RENAME TO old_${name}`);
  await run(tables(columnTypes(database)));
  await run(COPIES);
  for (const name of RENAMED) await run(`DROP TABLE old_${name}`);
  await run(REVOKED);
};
