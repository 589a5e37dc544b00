/** What tempest is told of an installation, as ready.json says it. */
export type TempestTarget = {
  readonly region: string;
  readonly identityUrl: string;
  readonly admin: {
    readonly username: string;
    readonly password: string;
    readonly project: string;
    readonly domain: string;
  };
  /** What tempest writes beside its answers. */
  readonly folder: string;
};

/** Tempest tests lock-out and password history only where it is told how they are set. */
const LOCKOUT_ATTEMPTS = 2;
const LOCKOUT_SECONDS = 5;
const UNIQUE_PASSWORDS = 2;

/** cluster.toml of the installation under test: the security-compliance settings that OpenStack's own gate tests with. */
export const CLUSTER_FILE_TEXT = `[identity]
lockout_failure_attempts = ${LOCKOUT_ATTEMPTS}
lockout_duration_seconds = ${LOCKOUT_SECONDS}
unique_last_password_count = ${UNIQUE_PASSWORDS}
`;

/** Services that tempest would otherwise take for granted. */
const OTHER_SERVICES = ["cinder", "glance", "horizon", "neutron", "nova", "swift"];

const sectionText = (name: string, keys: Readonly<Record<string, string | number | boolean>>): string =>
  [`[${name}]`, ...Object.entries(keys).map(([key, value]) => `${key} = ${value}`), ""].join("\n");

/** tempest.conf for `target`: Identity v3 alone, users and projects made for each test, and what is offered told as it is. */
export const tempestConfigurationText = ({ region, identityUrl, admin, folder }: TempestTarget): string =>
  [
    sectionText("DEFAULT", { log_dir: folder, log_file: "tempest.log" }),
    sectionText("oslo_concurrency", { lock_path: `${folder}/locks` }),
    sectionText("auth", {
      use_dynamic_credentials: true,
      create_isolated_networks: false,
      admin_username: admin.username,
      // oslo.config replaces `$name` in values.
      admin_password: admin.password.replaceAll("$", "$$$$"),
      admin_project_name: admin.project,
      admin_domain_name: admin.domain,
    }),
    sectionText("identity", {
      uri_v3: identityUrl,
      auth_version: "v3",
      region,
      v3_endpoint_type: "public",
      user_lockout_failure_attempts: LOCKOUT_ATTEMPTS,
      user_lockout_duration: LOCKOUT_SECONDS,
      user_unique_last_password_count: UNIQUE_PASSWORDS,
    }),
    sectionText("identity-feature-enabled", {
      api_v2: false,
      api_v3: true,
      trust: true,
      project_tags: true,
      application_credentials: true,
      access_rules: true,
      security_compliance: true,
      // A domain may have a directory of its own, but lists do not have to name a domain for that.
      domain_specific_drivers: false,
      immutable_user_source: false,
    }),
    sectionText("service_available", Object.fromEntries(OTHER_SERVICES.map((service) => [service, false]))),
  ].join("\n");
