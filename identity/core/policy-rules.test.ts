import { expect, test } from "vitest";
import { parseCheck } from "../../common/policy/check-parser.ts";
import { createPolicyEngine, type PolicyCredentials, type PolicyTarget } from "../../common/policy/policy-engine.ts";
import { IDENTITY_OPERATIONS } from "../api/operations.ts";
import { IDENTITY_POLICY_RULES } from "./policy-rules.ts";

const engine = createPolicyEngine(IDENTITY_POLICY_RULES);

const ADMIN_ROLES = ["admin", "manager", "member", "reader"];
const MANAGER_ROLES = ["manager", "member", "reader"];
const user = { user_id: "caller", user_domain_id: "home" };

/** Tokens, each with the roles that its assignment implies. */
const CALLERS = {
  /** Administrator in some project. */
  admin: { ...user, project_id: "admin-project", project_domain_id: "default", roles: ADMIN_ROLES },
  systemAdmin: { ...user, system_scope: "all", roles: ADMIN_ROLES },
  systemReader: { ...user, system_scope: "all", roles: ["reader"] },
  domainAdmin: { ...user, domain_id: "home", roles: ADMIN_ROLES },
  domainManager: { ...user, domain_id: "home", roles: MANAGER_ROLES },
  domainReader: { ...user, domain_id: "home", roles: ["reader"] },
  projectManager: { ...user, project_id: "own", project_domain_id: "home", domain_id: null, roles: MANAGER_ROLES },
  member: { ...user, project_id: "own", project_domain_id: "home", domain_id: null, roles: ["member", "reader"] },
  service: { ...user, project_id: "service", project_domain_id: "default", roles: ["service"] },
  unscoped: { ...user, roles: [] },
} as const satisfies Record<string, PolicyCredentials>;

type Caller = keyof typeof CALLERS;
const EVERYBODY = Object.keys(CALLERS) as Caller[];
const ADMINS: readonly Caller[] = ["admin", "systemAdmin"];
const ALL_ADMINS: readonly Caller[] = [...ADMINS, "domainAdmin"];
const READERS: readonly Caller[] = [...ADMINS, "systemReader"];
const ALL_READERS: readonly Caller[] = [...ALL_ADMINS, "systemReader"];
const HOME_READERS: readonly Caller[] = [...ALL_READERS, "domainManager", "domainReader"];
const HOME_MANAGERS: readonly Caller[] = [...ALL_ADMINS, "domainManager"];

const inDomain = (domainId: string | null) => ({
  user: { user_id: "somebody", target: { user: { id: "somebody", domain_id: domainId } } },
  group: { target: { group: { domain_id: domainId } } },
  project: { target: { project: { id: "some-project", domain_id: domainId } } },
  domain: { target: { domain: { id: domainId } } },
  list: { target: { domain_id: domainId } },
});
const home = inDomain("home");
const away = inDomain("away");
const domainless = inDomain(null);
const self = { user_id: "caller", target: { user: { id: "caller", domain_id: "home" } } };
const credentialOf = (owner: string): PolicyTarget => ({ target: { credential: { user_id: owner } }, user_id: owner });
const tokenOf = (subject: string): PolicyTarget => ({ "target.token.user_id": subject });
const trustOf = (trustor: string, trustee: string): PolicyTarget => ({
  target: { trust: { trustor_user_id: trustor, trustee_user_id: trustee } },
});
/** A grant of a role to a user or group of one domain on a project or domain of another. */
const grant = (actor: "user" | "group", actorDomain: string, scopeDomain: string, role: object): PolicyTarget => ({
  target: { [actor]: { domain_id: actorDomain }, project: { domain_id: scopeDomain }, role },
});
const MEMBER_ROLE = { name: "member", domain_id: null };
const ADMIN_ROLE = { name: "admin", domain_id: null };
const nothing: PolicyTarget = {};

test.each<[rule: string, about: string, target: PolicyTarget, may: readonly Caller[]]>([
  ["get_user", "one of the caller's domain", home.user, HOME_READERS],
  ["get_user", "one of another domain", away.user, ALL_READERS],
  ["get_user", "the caller", self, EVERYBODY],
  ["list_users", "of the caller's domain", home.list, HOME_READERS],
  ["list_users", "of another domain", away.list, ALL_READERS],
  ["list_users", "of all domains", nothing, ALL_READERS],
  ["create_user", "in the caller's domain", home.user, HOME_MANAGERS],
  ["create_user", "in another domain", away.user, ALL_ADMINS],
  ["update_user", "one of the caller's domain", home.user, HOME_MANAGERS],
  ["update_user", "the caller", { ...self, target: { user: { id: "caller", domain_id: "away" } } }, ALL_ADMINS],
  ["delete_user", "one of another domain", away.user, ALL_ADMINS],
  ["list_user_projects", "of the caller", self, EVERYBODY],
  ["list_user_projects", "of another user", away.user, ALL_READERS],
  ["list_groups_for_user", "of the caller", self, EVERYBODY],
  ["list_groups_for_user", "of another user", home.user, HOME_READERS],
  ["create_group", "in the caller's domain", home.group, HOME_MANAGERS],
  ["create_group", "in another domain", away.group, ALL_ADMINS],
  [
    "add_user_to_group",
    "both of the caller's domain",
    { target: { ...home.group.target, ...home.user.target } },
    HOME_MANAGERS,
  ],
  [
    "add_user_to_group",
    "a user of another domain",
    { target: { ...home.group.target, ...away.user.target } },
    ALL_ADMINS,
  ],
  [
    "add_user_to_group",
    "a group of another domain",
    { target: { ...away.group.target, ...home.user.target } },
    ALL_ADMINS,
  ],
  ["get_project", "one of the caller's domain", home.project, HOME_READERS],
  [
    "get_project",
    "the project of the token",
    { target: { project: { id: "own", domain_id: "away" } } },
    [...ALL_READERS, "projectManager", "member"],
  ],
  ["get_project", "a domain's own project, without a domain", domainless.project, ALL_READERS],
  ["create_project", "in the caller's domain", home.project, HOME_MANAGERS],
  ["create_project", "in another domain", away.project, ALL_ADMINS],
  ["create_project", "without a domain", domainless.project, ALL_ADMINS],
  [
    "update_project_tags",
    "the project of the token",
    { target: { project: { id: "own", domain_id: "away" } } },
    ALL_ADMINS,
  ],
  ["get_domain", "the caller's", home.domain, [...HOME_READERS, "projectManager", "member"]],
  ["get_domain", "another", away.domain, ALL_READERS],
  ["list_domains", "the caller's", home.domain, HOME_READERS],
  ["create_domain", "", nothing, ADMINS],
  ["get_domain_config", "", home.domain, READERS],
  ["get_security_compliance_domain_config", "", home.domain, EVERYBODY],
  ["list_roles", "", nothing, HOME_READERS.filter((caller) => caller !== "domainReader")],
  [
    "get_role",
    "one that managers hand out",
    { target: { role: MEMBER_ROLE } },
    [...HOME_MANAGERS, "systemReader", "projectManager"],
  ],
  ["get_role", "the administrator's", { target: { role: ADMIN_ROLE } }, ALL_READERS],
  ["create_role", "", nothing, ADMINS],
  ["create_implied_role", "", nothing, ADMINS],
  ["list_role_inference_rules", "", nothing, READERS],
  ["create_grant", "member to a user, all at home", grant("user", "home", "home", MEMBER_ROLE), HOME_MANAGERS],
  ["create_grant", "member to a group, all at home", grant("group", "home", "home", MEMBER_ROLE), HOME_MANAGERS],
  ["create_grant", "admin to a user, all at home", grant("user", "home", "home", ADMIN_ROLE), ALL_ADMINS],
  ["create_grant", "member to a user of another domain", grant("user", "away", "home", MEMBER_ROLE), ALL_ADMINS],
  ["revoke_grant", "member on a project of another domain", grant("user", "home", "away", MEMBER_ROLE), ALL_ADMINS],
  ["check_grant", "all at home", grant("user", "home", "home", ADMIN_ROLE), HOME_READERS],
  [
    "check_grant",
    "a role of another domain",
    grant("user", "home", "home", { name: "x", domain_id: "away" }),
    ALL_READERS,
  ],
  ["list_grants", "at home", grant("group", "home", "home", {}), HOME_READERS],
  ["create_system_grant_for_user", "", home.user, ADMINS],
  ["list_system_grants_for_group", "", home.group, READERS],
  ["list_role_assignments", "of the caller's domain", home.list, HOME_READERS],
  ["list_role_assignments", "of all domains", nothing, ALL_READERS],
  ["list_role_assignments_for_tree", "of another domain", away.list, ALL_READERS],
  ["validate_token", "the caller's", tokenOf("caller"), EVERYBODY],
  ["validate_token", "another's", tokenOf("somebody"), [...ALL_READERS, "service"]],
  ["check_token", "another's", tokenOf("somebody"), ALL_READERS],
  ["revoke_token", "the caller's", tokenOf("caller"), EVERYBODY],
  ["revoke_token", "another's", tokenOf("somebody"), ALL_ADMINS],
  ["ec2tokens_validate", "", nothing, [...ALL_ADMINS, "service"]],
  ["list_revoke_events", "", nothing, [...ADMINS, "service"]],
  ["get_auth_catalog", "", nothing, EVERYBODY],
  ["get_auth_projects", "", nothing, EVERYBODY],
  ["get_credential", "the caller's", credentialOf("caller"), EVERYBODY],
  ["get_credential", "another's", credentialOf("somebody"), ALL_READERS],
  ["create_credential", "another's", credentialOf("somebody"), ALL_ADMINS],
  ["ec2_create_credential", "the caller's", credentialOf("caller"), [...ADMINS, "projectManager", "member"]],
  ["ec2_list_credentials", "another's", credentialOf("somebody"), READERS],
  ["create_application_credential", "the caller's", self, ["admin", "projectManager", "member", "service", "unscoped"]],
  ["create_application_credential", "another's", home.user, []],
  ["delete_application_credential", "another's", home.user, ADMINS],
  ["list_access_rules", "another's", home.user, ["systemAdmin", "systemReader"]],
  ["delete_access_rule", "another's", home.user, ["systemAdmin"]],
  [
    "create_trust",
    "by the caller",
    trustOf("caller", "somebody"),
    ["admin", "projectManager", "member", "service", "unscoped"],
  ],
  ["create_trust", "in another's name", trustOf("somebody", "caller"), []],
  [
    "get_trust",
    "given to the caller",
    trustOf("somebody", "caller"),
    EVERYBODY.filter((caller) => !caller.startsWith("domain")),
  ],
  ["get_trust", "among others", trustOf("somebody", "nobody"), READERS],
  ["delete_trust", "given to the caller", trustOf("somebody", "caller"), ADMINS],
  ["list_trusts", "", nothing, READERS],
  ["authorize_request_token", "", nothing, ["admin"]],
  ["get_region", "", nothing, EVERYBODY],
  ["create_region", "", nothing, ADMINS],
  ["list_endpoints", "", nothing, READERS],
  ["delete_service", "", nothing, ADMINS],
  ["add_endpoint_to_project", "", nothing, ADMINS],
  ["check_policy_association_for_endpoint", "", nothing, READERS],
  ["list_registered_limits", "", nothing, EVERYBODY],
  ["get_limit_model", "", nothing, EVERYBODY],
  [
    "get_limit",
    "of the token's project",
    { target: { limit: { project_id: "own", project: { domain_id: "away" }, domain: { id: null } } } },
    [...ALL_READERS, "projectManager", "member"],
  ],
  [
    "get_limit",
    "of a project in the caller's domain",
    { target: { limit: { project_id: "p", project: { domain_id: "home" }, domain: { id: null } } } },
    HOME_READERS,
  ],
  [
    "get_limit",
    "of another domain",
    { target: { limit: { project_id: null, project: { domain_id: null }, domain: { id: "away" } } } },
    ALL_READERS,
  ],
  ["create_limits", "", nothing, ADMINS],
  ["list_identity_providers", "", nothing, READERS],
  ["update_mapping", "", nothing, ADMINS],
])("%s, %s: exactly those may who should", (rule, _about, target, may) => {
  const allowed = EVERYBODY.filter((caller) => engine.allows(`identity:${rule}`, CALLERS[caller], target));
  expect(allowed).toEqual(EVERYBODY.filter((caller) => may.includes(caller)));
});

test("every rule parses, has a description, and every one of the API its operations", () => {
  expect(IDENTITY_POLICY_RULES.length).toBeGreaterThan(200);
  for (const { name, check, description, operations } of IDENTITY_POLICY_RULES) {
    expect(parseCheck(check).kind).toBeTypeOf("string");
    expect(description).toMatch(/^[A-Z].*\.$/);
    if (!name.startsWith("identity:")) continue;
    expect(operations?.length).toBeGreaterThan(0);
    for (const operation of operations ?? []) expect(operation).toMatch(/^(?:GET|HEAD|POST|PUT|PATCH|DELETE) \/v3\//);
  }
});

test("rules look at those keys of targets only that handlers are told to give", () => {
  const keys = new Set(
    IDENTITY_POLICY_RULES.flatMap(({ check }) => [...check.matchAll(/%\((.*?)\)s/g)].map(([, key = ""]) => key)),
  );
  const told = [
    "target.credential.user_id",
    "target.domain.id",
    "target.domain_id",
    "target.group.domain_id",
    "target.limit.domain.id",
    "target.limit.project.domain_id",
    "target.limit.project_id",
    "target.project.domain_id",
    "target.project.id",
    "target.role.domain_id",
    "target.role.name",
    "target.token.user_id",
    "target.trust.trustee_user_id",
    "target.trust.trustor_user_id",
    "target.user.domain_id",
    "target.user.id",
    "user_id",
  ];
  expect(keys).toEqual(new Set(told));
});

/** Operations that prove who calls by something else than a token, or that Keystone lets every token do. */
const WITHOUT_RULE = [
  "/v3",
  "/v3/OS-FEDERATION/identity_providers/:idp_id/protocols/:protocol_id/auth",
  "/v3/OS-FEDERATION/saml2/metadata",
  "/v3/OS-OAUTH1/access_token",
  "/v3/OS-OAUTH1/request_token",
  "/v3/OS-OAUTH2/token",
  "/v3/OS-SIMPLE-CERT/ca",
  "/v3/OS-SIMPLE-CERT/certificates",
  "/v3/auth/OS-FEDERATION/identity_providers/:idp_id/protocols/:protocol_id/websso",
  "/v3/auth/OS-FEDERATION/saml2",
  "/v3/auth/OS-FEDERATION/saml2/ecp",
  "/v3/auth/OS-FEDERATION/websso/:protocol_id",
  "/v3/users/:user_id/password",
];

test("every path of the API has a rule, but for those that need none", () => {
  const ruled = new Set(
    IDENTITY_POLICY_RULES.flatMap(({ operations = [] }) => operations).map((operation) =>
      operation
        .replace(/^\S+ /, "")
        .replace(/\?.*/, "")
        .replaceAll(/\{(.*?)\}/g, ":$1"),
    ),
  );
  const paths = [...new Set(IDENTITY_OPERATIONS.map(({ path }) => path))];
  expect(paths.length).toBeGreaterThan(90);
  expect(paths.filter((path) => !ruled.has(path))).toEqual(WITHOUT_RULE);
  const unknown = [...ruled].filter((path) => !paths.includes(path));
  expect(unknown).toEqual([
    "/v3/domains/:domain_id/config/security_compliance",
    "/v3/domains/:domain_id/config/security_compliance/:option",
  ]);
});
