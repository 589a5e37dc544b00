import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { type ClusterConfig, publicEndpoint, SERVICES } from "../common/config.ts";
import { replaceFile } from "../common/replace-file.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import type { ProcessIdentity } from "../common/process-identity.ts";

/** Names of `endpoints` and of `unavailable`. */
export type EndpointName = (typeof SERVICES)[number] | "s3";

export type Unavailable = { readonly service: EndpointName; readonly reason: string; readonly remedy: string };

/** DIR/ready.json; DESIGN section 2 is its contract. */
export type ReadyFile = {
  readonly version: string;
  readonly pid: number;
  readonly region: string;
  readonly endpoints: Readonly<Partial<Record<EndpointName, string>>>;
  readonly admin: {
    readonly username: "admin";
    readonly password: string;
    readonly project: "admin";
    readonly domain: "Default";
  };
  readonly swiftAuthV1: { readonly url: string; readonly user: "admin:admin"; readonly key: string };
  readonly s3: { readonly accessKey: string; readonly secretKey: string };
  readonly processes: readonly ({ readonly role: string } & ProcessIdentity)[];
  readonly unavailable: readonly Unavailable[];
};

export type ReadyFacts = {
  readonly version: string;
  readonly config: ClusterConfig;
  readonly adminPassword: string;
  readonly s3: ReadyFile["s3"];
  readonly processes: ReadyFile["processes"];
  /** Services that do not run here. */
  readonly unavailable: readonly Unavailable[];
  /** Services that run, but refuse some of what they are there for. */
  readonly limited: readonly Unavailable[];
};

const endpointOf = (config: ClusterConfig, name: EndpointName): string => {
  switch (name) {
    case "identity":
      return `${publicEndpoint(config, "identity")}/v3`;
    case "object":
      return `${publicEndpoint(config, "object")}/v1`;
    case "s3":
      return publicEndpoint(config, "object");
    case "block":
      return `${publicEndpoint(config, "block")}/v3`;
    case "compute":
      return `${publicEndpoint(config, "compute")}/v2.1`;
    case "image":
    case "network":
      return publicEndpoint(config, name);
  }
};

/** The contents of ready.json. `processes` begins with the supervisor. */
export const readyFile = (facts: ReadyFacts): ReadyFile => {
  const { config, adminPassword } = facts;
  const missing = new Set(facts.unavailable.map(({ service }) => service));
  const names: EndpointName[] = ["identity", "object", "s3", "block", "image", "compute", "network"];
  return {
    version: facts.version,
    pid: process.pid,
    region: config.region,
    endpoints: Object.fromEntries(
      names.filter((name) => !missing.has(name)).map((name) => [name, endpointOf(config, name)]),
    ),
    admin: { username: "admin", password: adminPassword, project: "admin", domain: "Default" },
    swiftAuthV1: { url: `${publicEndpoint(config, "object")}/auth/v1.0`, user: "admin:admin", key: adminPassword },
    s3: facts.s3,
    processes: facts.processes,
    unavailable: [...facts.unavailable, ...facts.limited],
  };
};

/** A certificate that signed itself is its own authority; with any other, clients need their system's or the operator's bundle. */
const ownAuthority = (config: ClusterConfig): string | undefined => {
  if (config.tlsCert === undefined) return undefined;
  const certificate = new X509Certificate(readFileSync(config.tlsCert));
  return certificate.checkIssued(certificate) ? config.tlsCert : undefined;
};

const shellQuoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

/**
 * `openstack volume create` of Debian 12 wants an address of the image service before anything else, and asks nothing there unless it is to copy an
 * image: as long as there is no such service it gets one where nobody listens.
 */
const imageSettings = ({ endpoints }: ReadyFile): Readonly<Record<string, string>> =>
  endpoints.image === undefined && endpoints.block !== undefined
    ? { image_endpoint_override: "http://127.0.0.1:9/v2", image_api_version: "2" }
    : {};

const CLOUD = "ringstead";

/** The lines of DIR/openrc. */
export const openrcText = (ready: ReadyFile, authority: string | undefined, cloudsYaml: string): string => {
  const variables: Record<string, string> = {
    OS_AUTH_TYPE: "password",
    OS_AUTH_URL: ready.endpoints.identity ?? "",
    OS_IDENTITY_API_VERSION: "3",
    OS_USERNAME: ready.admin.username,
    OS_PASSWORD: ready.admin.password,
    OS_PROJECT_NAME: ready.admin.project,
    OS_USER_DOMAIN_NAME: ready.admin.domain,
    OS_PROJECT_DOMAIN_NAME: ready.admin.domain,
    OS_REGION_NAME: ready.region,
    OS_INTERFACE: "public",
    // Some settings of the openstack command have no variable of their own.
    OS_CLIENT_CONFIG_FILE: cloudsYaml,
    OS_CLOUD: CLOUD,
    ...(authority === undefined ? {} : { OS_CACERT: authority }),
  };
  const lines = Object.entries(variables).map(([name, value]) => `export ${name}=${shellQuoted(value)}`);
  // A token or system scope left over from another cloud would win over the password.
  return `${["unset OS_TOKEN OS_SYSTEM_SCOPE", ...lines].join("\n")}\n`;
};

/** The text of DIR/clouds.yaml: cloud `ringstead`. JSON strings are YAML strings. */
export const cloudsYamlText = (ready: ReadyFile, authority: string | undefined): string =>
  [
    "clouds:",
    `  ${CLOUD}:`,
    "    auth_type: password",
    "    auth:",
    `      auth_url: ${JSON.stringify(ready.endpoints.identity)}`,
    `      username: ${JSON.stringify(ready.admin.username)}`,
    `      password: ${JSON.stringify(ready.admin.password)}`,
    `      project_name: ${JSON.stringify(ready.admin.project)}`,
    `      user_domain_name: ${JSON.stringify(ready.admin.domain)}`,
    `      project_domain_name: ${JSON.stringify(ready.admin.domain)}`,
    `    region_name: ${JSON.stringify(ready.region)}`,
    "    interface: public",
    '    identity_api_version: "3"',
    ...Object.entries(imageSettings(ready)).map(([name, value]) => `    ${name}: ${JSON.stringify(value)}`),
    ...(authority === undefined ? [] : [`    cacert: ${JSON.stringify(authority)}`]),
    "",
  ].join("\n");

/** Writes openrc, clouds.yaml and then ready.json, each atomically, all with mode 0600: they hold the password. */
export const writeReadyFiles = (paths: RuntimePaths, config: ClusterConfig, ready: ReadyFile): void => {
  const authority = ownAuthority(config);
  replaceFile(paths.openrc, openrcText(ready, authority, paths.cloudsYaml), 0o600);
  replaceFile(paths.cloudsYaml, cloudsYamlText(ready, authority), 0o600);
  replaceFile(paths.readyJson, `${JSON.stringify(ready, undefined, 2)}\n`, 0o600);
};
