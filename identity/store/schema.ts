import type { Generated, Selectable } from "kysely";

/** 0 or 1: a boolean that SQLite and PostgreSQL keep alike. */
type Flag = number;

type DomainTable = { id: string; name: string; description: string; enabled: Flag };

type ProjectTable = {
  id: string;
  domain_id: string;
  /** Null for a project directly beneath its domain. */
  parent_id: string | null;
  name: string;
  description: string;
  enabled: Flag;
};

type UserTable = {
  id: string;
  domain_id: string;
  name: string;
  description: string | null;
  email: string | null;
  default_project_id: string | null;
  enabled: Flag;
  created_at_ms: number;
};

/** A user's passwords, the newest counts; the older ones are the history. */
type PasswordTable = { id: Generated<number>; user_id: string; hash: string; created_at_ms: number };

type RoleTable = { id: string; name: string; description: string | null };

type RoleImplicationTable = { prior_role_id: string; implied_role_id: string };

/** `target_id` is a project's or domain's id, and `all` for the system. */
export type AssignmentTable = {
  actor_kind: "user" | "group";
  actor_id: string;
  target_kind: "project" | "domain" | "system";
  target_id: string;
  role_id: string;
};

/** `blob` is encrypted; `access` is the public half by which an EC2 credential is found. */
type CredentialTable = {
  id: string;
  type: "ec2";
  user_id: string;
  project_id: string;
  access: string;
  blob: Uint8Array;
};

type RegionTable = { id: string; description: string; parent_region_id: string | null };

type ServiceTable = { id: string; type: string; name: string; description: string; enabled: Flag };

export type EndpointInterface = "public" | "internal" | "admin";

type EndpointTable = {
  id: string;
  service_id: string;
  region_id: string;
  interface: EndpointInterface;
  url: string;
  enabled: Flag;
  /** 1: follows the running ports at each start. 0: belongs to the operator. */
  managed: Flag;
};

/** A revoked token, kept until it would have expired anyway. */
type RevokedTokenTable = { audit_id: string; expires_at_ms: number };

type SettingTable = { key: string; value: string };

export type IdentitySchema = {
  domains: DomainTable;
  projects: ProjectTable;
  users: UserTable;
  passwords: PasswordTable;
  roles: RoleTable;
  role_implications: RoleImplicationTable;
  assignments: AssignmentTable;
  credentials: CredentialTable;
  regions: RegionTable;
  services: ServiceTable;
  endpoints: EndpointTable;
  revoked_tokens: RevokedTokenTable;
  settings: SettingTable;
};

export type Domain = Selectable<DomainTable>;
export type Project = Selectable<ProjectTable>;
export type User = Selectable<UserTable>;
export type Role = Selectable<RoleTable>;
export type Region = Selectable<RegionTable>;
export type Service = Selectable<ServiceTable>;
export type Endpoint = Selectable<EndpointTable>;
