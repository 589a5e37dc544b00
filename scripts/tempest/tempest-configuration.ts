/** Services that tempest can be run against, by its own names for them. */
export const TEMPEST_SERVICES = ["identity", "object_storage", "volume"] as const;
export type TempestService = (typeof TEMPEST_SERVICES)[number];

/** What tempest is told of an installation, as ready.json says it. */
export type TempestTarget = {
  readonly service: TempestService;
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

/** How an installation for tempest is started. */
export type TempestInstallation = {
  /** What `--only` gets: backups of volumes are objects. */
  readonly only: string;
  readonly clusterFileText: string;
};

/** Identity: the security-compliance settings that OpenStack's own gate tests with. */
const IDENTITY_TEXT = `[identity]
lockout_failure_attempts = ${LOCKOUT_ATTEMPTS}
lockout_duration_seconds = ${LOCKOUT_SECONDS}
unique_last_password_count = ${UNIQUE_PASSWORDS}
`;

export const TEMPEST_INSTALLATIONS: Readonly<Record<TempestService, TempestInstallation>> = {
  identity: { only: "identity", clusterFileText: IDENTITY_TEXT },
  object_storage: { only: "object", clusterFileText: "" },
  volume: { only: "block,object", clusterFileText: "" },
};

/** Services that tempest would otherwise take for granted. */
const AVAILABLE: Readonly<Record<TempestService, readonly string[]>> = {
  identity: [],
  object_storage: ["swift"],
  volume: ["cinder", "swift"],
};
const OTHER_SERVICES = ["cinder", "glance", "horizon", "neutron", "nova", "swift"];

/** What back-ends say of themselves in `get_pools`; tests that make types for one ask for it by these. */
const VENDOR = "Ringstead";
const STORAGE_PROTOCOL = "nbd";

type Section = readonly [name: string, keys: Readonly<Record<string, string | number | boolean>>];

const identitySections: readonly Section[] = [
  [
    "identity-feature-enabled",
    {
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
    },
  ],
];

const objectStorageSections: readonly Section[] = [
  ["object-storage", { operator_role: "member", reseller_admin_role: "ResellerAdmin" }],
  // None of Swift's optional middleware.
  ["object-storage-feature-enabled", { discoverable_apis: "", container_sync: false, object_versioning: false }],
];

const volumeSections: readonly Section[] = [
  [
    "volume",
    {
      catalog_type: "block-storage",
      min_microversion: "3.0",
      max_microversion: "latest",
      vendor_name: VENDOR,
      storage_protocol: STORAGE_PROTOCOL,
      manage_volume_ref: "source-name,volume-%s",
      manage_snapshot_ref: "source-name,snapshot-%s",
    },
  ],
  [
    "volume-feature-enabled",
    { backup: true, clone: true, snapshot: true, manage_volume: true, manage_snapshot: true, multi_backend: false },
  ],
];

const SECTIONS: Readonly<Record<TempestService, readonly Section[]>> = {
  identity: identitySections,
  object_storage: objectStorageSections,
  volume: volumeSections,
};

const sectionText = ([name, keys]: Section): string =>
  [`[${name}]`, ...Object.entries(keys).map(([key, value]) => `${key} = ${value}`), ""].join("\n");

/** tempest.conf for `target`: users and projects made for each test, and what is offered told as it is. */
export const tempestConfigurationText = ({ service, region, identityUrl, admin, folder }: TempestTarget): string => {
  const common: readonly Section[] = [
    ["DEFAULT", { log_dir: folder, log_file: "tempest.log" }],
    ["oslo_concurrency", { lock_path: `${folder}/locks` }],
    [
      "auth",
      {
        use_dynamic_credentials: true,
        create_isolated_networks: false,
        admin_username: admin.username,
        // oslo.config replaces `$name` in values.
        admin_password: admin.password.replaceAll("$", "$$$$"),
        admin_project_name: admin.project,
        admin_domain_name: admin.domain,
        // Users of identity's own tests have the roles that the tests give them.
        ...(service === "identity" ? {} : { tempest_roles: "member" }),
      },
    ],
    [
      "identity",
      {
        uri_v3: identityUrl,
        auth_version: "v3",
        region,
        v3_endpoint_type: "public",
        user_lockout_failure_attempts: LOCKOUT_ATTEMPTS,
        user_lockout_duration: LOCKOUT_SECONDS,
        user_unique_last_password_count: UNIQUE_PASSWORDS,
      },
    ],
    ["service_available", Object.fromEntries(OTHER_SERVICES.map((one) => [one, AVAILABLE[service].includes(one)]))],
  ];
  return [...common, ...SECTIONS[service]].map(sectionText).join("\n");
};
