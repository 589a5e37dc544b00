import type { PolicyRule } from "../../common/policy/policy-engine.ts";

/*
 * Who may do what, with the names of Keystone's rules and the meaning of its secure defaults (2025.1). A role grants its rights
 * through what it implies: admin → manager → member → reader, so every administrator passes wherever a reader does.
 *
 * Targets. A rule sees what the request is about under these keys, flat or nested; a handler gives those that its rule names, null
 * where the thing has no such value (a global role, a project that is a domain), and leaves out what the request is not about:
 *
 *   user_id                              the user of the path, or the owner of what a body creates
 *   target.user.{id,domain_id}           the user of the path or body; `target.user.domain_id` of a new one
 *   target.group.domain_id               likewise
 *   target.project.{id,domain_id}        likewise
 *   target.domain.id                     likewise; in `list_domains` the domain of the caller's token
 *   target.role.{name,domain_id}         the role of a grant, or the one that is read
 *   target.domain_id                     in `list_users`, `list_projects` and lists of assignments: the domain that the
 *                                        answer is confined to, by a filter or else because the caller's token is for it
 *   target.credential.user_id            the owner of a credential, EC2 ones too
 *   target.token.user_id                 whom the token speaks for that is looked at
 *   target.trust.{trustor,trustee}_user_id
 *   target.limit.project_id, target.limit.project.domain_id, target.limit.domain.id   null where a limit has none
 *
 * Operations with GET can be asked with HEAD too.
 */

type Scopes = PolicyRule["scopes"];
const SYSTEM_PROJECT: Scopes = ["system", "project"];
const PROJECT: Scopes = ["project"];
const ANY: Scopes = ["system", "domain", "project"];

/** A check and the scopes of tokens that may come with it. Without scopes, unscoped and all others may. */
type Guard = Pick<PolicyRule, "check" | "scopes">;

const guard = (scopes: Scopes, ...alternatives: readonly string[]): Guard => ({
  check: alternatives.join(" or "),
  ...(scopes === undefined ? {} : { scopes }),
});

const ADMIN = "rule:admin_required";
const SYSTEM_READER = "(role:reader and system_scope:all)";
const readerOf = (key: string): string => `(role:reader and domain_id:%(${key})s)`;
const managerOf = (key: string): string => `(role:manager and domain_id:%(${key})s)`;

const everyone = guard(undefined, "");
const everyToken = guard(ANY, "");
const admin = guard(SYSTEM_PROJECT, ADMIN);
const projectAdmin = guard(PROJECT, ADMIN);
const reader = guard(SYSTEM_PROJECT, ADMIN, SYSTEM_READER);
const serviceOrAdmin = guard(SYSTEM_PROJECT, "rule:service_or_admin");
const anyServiceOrAdmin = guard(ANY, "rule:service_or_admin");

const rule = (
  name: string,
  { check, scopes }: Guard,
  description: string,
  ...operations: readonly string[]
): PolicyRule => ({
  name,
  check,
  description,
  ...(scopes === undefined ? {} : { scopes }),
  ...(operations.length === 0 ? {} : { operations }),
});

/** What the other rules refer to. */
const SHARED: readonly PolicyRule[] = [
  rule("admin_required", guard(undefined, "role:admin"), "Administrators of the whole installation."),
  rule("service_role", guard(undefined, "role:service"), "Other services of the installation."),
  rule("service_or_admin", guard(undefined, ADMIN, "rule:service_role"), "Services and administrators."),
  rule("owner", guard(undefined, "user_id:%(user_id)s"), "The user whose things these are."),
  rule("admin_or_owner", guard(undefined, ADMIN, "rule:owner"), "The owner, or an administrator."),
  rule("token_subject", guard(undefined, "user_id:%(target.token.user_id)s"), "Whom the token speaks for."),
  rule(
    "admin_or_token_subject",
    guard(undefined, ADMIN, "rule:token_subject"),
    "The subject of a token, or an administrator.",
  ),
  rule(
    "service_admin_or_token_subject",
    guard(undefined, "rule:service_or_admin", "rule:token_subject"),
    "The subject of a token, a service, or an administrator.",
  ),
  rule(
    "domain_managed_target_role",
    guard(
      undefined,
      "'manager':%(target.role.name)s",
      "'member':%(target.role.name)s",
      "'reader':%(target.role.name)s",
    ),
    "Roles that the manager of a domain may hand out there.",
  ),
];

const TOKENS: readonly PolicyRule[] = [
  rule(
    "identity:check_token",
    guard(ANY, ADMIN, SYSTEM_READER, "rule:token_subject"),
    "Learn whether a token holds.",
    "HEAD /v3/auth/tokens",
  ),
  rule(
    "identity:validate_token",
    guard(ANY, ADMIN, SYSTEM_READER, "rule:service_role", "rule:token_subject"),
    "Read what a token says.",
    "GET /v3/auth/tokens",
  ),
  rule(
    "identity:revoke_token",
    guard(ANY, ADMIN, "rule:token_subject"),
    "Make a token invalid.",
    "DELETE /v3/auth/tokens",
  ),
  rule(
    "identity:revocation_list",
    serviceOrAdmin,
    "The list of revoked PKI tokens.",
    "GET /v3/auth/tokens/OS-PKI/revoked",
  ),
  rule("identity:list_revoke_events", serviceOrAdmin, "List events of revocation.", "GET /v3/OS-REVOKE/events"),
  rule(
    "identity:ec2tokens_validate",
    anyServiceOrAdmin,
    "Exchange a signature made with an EC2 key for a token.",
    "POST /v3/ec2tokens",
  ),
  rule(
    "identity:s3tokens_validate",
    anyServiceOrAdmin,
    "Exchange the signature of an S3 request for a token.",
    "POST /v3/s3tokens",
  ),
  rule("identity:get_auth_catalog", everyone, "The catalog of the caller's token.", "GET /v3/auth/catalog"),
  rule(
    "identity:get_auth_projects",
    everyone,
    "Projects that the caller can ask a token for.",
    "GET /v3/auth/projects",
    "GET /v3/OS-FEDERATION/projects",
  ),
  rule(
    "identity:get_auth_domains",
    everyone,
    "Domains that the caller can ask a token for.",
    "GET /v3/auth/domains",
    "GET /v3/OS-FEDERATION/domains",
  ),
  rule(
    "identity:get_auth_system",
    everyone,
    "Whether the caller can ask a token for the system.",
    "GET /v3/auth/system",
  ),
  rule("identity:list_projects_for_user", everyone, "Older name of get_auth_projects.", "GET /v3/auth/projects"),
  rule("identity:list_domains_for_user", everyone, "Older name of get_auth_domains.", "GET /v3/auth/domains"),
];

const userReader = guard(ANY, ADMIN, SYSTEM_READER, readerOf("target.user.domain_id"), "user_id:%(target.user.id)s");
const userManager = guard(ANY, ADMIN, managerOf("target.user.domain_id"));

const USERS: readonly PolicyRule[] = [
  rule("identity:get_user", userReader, "Show a user.", "GET /v3/users/{user_id}"),
  rule(
    "identity:list_users",
    guard(ANY, ADMIN, SYSTEM_READER, readerOf("target.domain_id")),
    "List users.",
    "GET /v3/users",
  ),
  rule("identity:create_user", userManager, "Create a user.", "POST /v3/users"),
  rule("identity:update_user", userManager, "Change a user, the password too.", "PATCH /v3/users/{user_id}"),
  rule("identity:delete_user", userManager, "Delete a user.", "DELETE /v3/users/{user_id}"),
  rule(
    "identity:list_user_projects",
    userReader,
    "List the projects in which a user has a role.",
    "GET /v3/users/{user_id}/projects",
  ),
];

const groupReader = guard(ANY, ADMIN, SYSTEM_READER, readerOf("target.group.domain_id"));
const groupManager = guard(ANY, ADMIN, managerOf("target.group.domain_id"));
/** Managing memberships takes both, so that nobody pulls in users of other domains. */
const membershipManager = guard(
  ANY,
  ADMIN,
  "(role:manager and domain_id:%(target.group.domain_id)s and domain_id:%(target.user.domain_id)s)",
);

const GROUPS: readonly PolicyRule[] = [
  rule("identity:get_group", groupReader, "Show a group.", "GET /v3/groups/{group_id}"),
  rule("identity:list_groups", groupReader, "List groups.", "GET /v3/groups"),
  rule(
    "identity:list_groups_for_user",
    guard(ANY, ADMIN, SYSTEM_READER, readerOf("target.user.domain_id"), "user_id:%(user_id)s"),
    "List the groups of a user.",
    "GET /v3/users/{user_id}/groups",
  ),
  rule("identity:create_group", groupManager, "Create a group.", "POST /v3/groups"),
  rule("identity:update_group", groupManager, "Change a group.", "PATCH /v3/groups/{group_id}"),
  rule("identity:delete_group", groupManager, "Delete a group.", "DELETE /v3/groups/{group_id}"),
  rule("identity:list_users_in_group", groupReader, "List the members of a group.", "GET /v3/groups/{group_id}/users"),
  rule(
    "identity:check_user_in_group",
    guard(
      ANY,
      ADMIN,
      SYSTEM_READER,
      "(role:reader and domain_id:%(target.group.domain_id)s and domain_id:%(target.user.domain_id)s)",
    ),
    "Learn whether a user is in a group.",
    "GET /v3/groups/{group_id}/users/{user_id}",
  ),
  rule(
    "identity:add_user_to_group",
    membershipManager,
    "Put a user into a group.",
    "PUT /v3/groups/{group_id}/users/{user_id}",
  ),
  rule(
    "identity:remove_user_from_group",
    membershipManager,
    "Take a user out of a group.",
    "DELETE /v3/groups/{group_id}/users/{user_id}",
  ),
];

/** The project of a domain has no domain of its own: what is absent on both sides must not pass for equal. */
const projectDomain = "domain_id:%(target.project.domain_id)s and not None:%(target.project.domain_id)s";
const projectReader = guard(
  ANY,
  ADMIN,
  SYSTEM_READER,
  `(role:reader and ${projectDomain})`,
  "project_id:%(target.project.id)s",
);
const projectManager = guard(ANY, ADMIN, `(role:manager and ${projectDomain})`);

const PROJECTS: readonly PolicyRule[] = [
  rule("identity:get_project", projectReader, "Show a project.", "GET /v3/projects/{project_id}"),
  rule(
    "identity:list_projects",
    guard(ANY, ADMIN, SYSTEM_READER, readerOf("target.domain_id")),
    "List projects.",
    "GET /v3/projects",
  ),
  rule("identity:create_project", projectManager, "Create a project.", "POST /v3/projects"),
  rule("identity:update_project", projectManager, "Change a project.", "PATCH /v3/projects/{project_id}"),
  rule("identity:delete_project", projectManager, "Delete a project.", "DELETE /v3/projects/{project_id}"),
  rule(
    "identity:list_project_tags",
    projectReader,
    "List the tags of a project.",
    "GET /v3/projects/{project_id}/tags",
  ),
  rule(
    "identity:get_project_tag",
    projectReader,
    "Learn whether a project has a tag.",
    "GET /v3/projects/{project_id}/tags/{value}",
  ),
  rule(
    "identity:update_project_tags",
    projectManager,
    "Replace the tags of a project.",
    "PUT /v3/projects/{project_id}/tags",
  ),
  rule(
    "identity:create_project_tag",
    projectManager,
    "Add a tag to a project.",
    "PUT /v3/projects/{project_id}/tags/{value}",
  ),
  rule(
    "identity:delete_project_tags",
    projectManager,
    "Remove all tags of a project.",
    "DELETE /v3/projects/{project_id}/tags",
  ),
  rule(
    "identity:delete_project_tag",
    projectManager,
    "Remove a tag of a project.",
    "DELETE /v3/projects/{project_id}/tags/{value}",
  ),
];

/** Everybody may look at the domain of their token, or of its project. */
const domainReader = guard(
  ANY,
  ADMIN,
  SYSTEM_READER,
  "domain_id:%(target.domain.id)s",
  "project_domain_id:%(target.domain.id)s",
);
const CONFIG = "/v3/domains/{domain_id}/config";

const DOMAINS: readonly PolicyRule[] = [
  rule("identity:get_domain", domainReader, "Show a domain.", "GET /v3/domains/{domain_id}"),
  rule(
    "identity:list_domains",
    guard(ANY, ADMIN, SYSTEM_READER, readerOf("target.domain.id")),
    "List domains.",
    "GET /v3/domains",
  ),
  rule("identity:create_domain", admin, "Create a domain.", "POST /v3/domains"),
  rule("identity:update_domain", admin, "Change a domain.", "PATCH /v3/domains/{domain_id}"),
  rule("identity:delete_domain", admin, "Delete a domain.", "DELETE /v3/domains/{domain_id}"),
  rule("identity:create_domain_config", admin, "Set the options of a domain.", `PUT ${CONFIG}`),
  rule(
    "identity:get_domain_config",
    reader,
    "Show options of a domain.",
    `GET ${CONFIG}`,
    `GET ${CONFIG}/{group}`,
    `GET ${CONFIG}/{group}/{option}`,
  ),
  rule(
    "identity:get_security_compliance_domain_config",
    everyToken,
    "Show a domain's rules for passwords.",
    `GET ${CONFIG}/security_compliance`,
    `GET ${CONFIG}/security_compliance/{option}`,
  ),
  rule(
    "identity:update_domain_config",
    admin,
    "Change options of a domain.",
    `PATCH ${CONFIG}`,
    `PATCH ${CONFIG}/{group}`,
    `PATCH ${CONFIG}/{group}/{option}`,
  ),
  rule(
    "identity:delete_domain_config",
    admin,
    "Remove options of a domain.",
    `DELETE ${CONFIG}`,
    `DELETE ${CONFIG}/{group}`,
    `DELETE ${CONFIG}/{group}/{option}`,
  ),
  rule(
    "identity:get_domain_config_default",
    reader,
    "Show the options that hold where a domain sets none.",
    "GET /v3/domains/config/default",
    "GET /v3/domains/config/{group}/default",
    "GET /v3/domains/config/{group}/{option}/default",
  ),
];

const ROLES: readonly PolicyRule[] = [
  rule(
    "identity:get_role",
    guard(ANY, ADMIN, SYSTEM_READER, "(role:manager and rule:domain_managed_target_role)"),
    "Show a role.",
    "GET /v3/roles/{role_id}",
  ),
  rule(
    "identity:list_roles",
    guard(ANY, ADMIN, SYSTEM_READER, "(role:manager and not domain_id:None)"),
    "List roles.",
    "GET /v3/roles",
  ),
  rule("identity:create_role", admin, "Create a role.", "POST /v3/roles"),
  rule("identity:update_role", admin, "Change a role.", "PATCH /v3/roles/{role_id}"),
  rule("identity:delete_role", admin, "Delete a role.", "DELETE /v3/roles/{role_id}"),
  rule("identity:get_domain_role", reader, "Show a role of a domain.", "GET /v3/roles/{role_id}"),
  rule("identity:list_domain_roles", reader, "List the roles of a domain.", "GET /v3/roles?domain_id={domain_id}"),
  rule("identity:create_domain_role", admin, "Create a role of a domain.", "POST /v3/roles"),
  rule("identity:update_domain_role", admin, "Change a role of a domain.", "PATCH /v3/roles/{role_id}"),
  rule("identity:delete_domain_role", admin, "Delete a role of a domain.", "DELETE /v3/roles/{role_id}"),
  rule(
    "identity:get_implied_role",
    reader,
    "Show that a role implies another.",
    "GET /v3/roles/{prior_role_id}/implies/{implied_role_id}",
  ),
  rule("identity:list_implied_roles", reader, "List what a role implies.", "GET /v3/roles/{prior_role_id}/implies"),
  rule(
    "identity:create_implied_role",
    admin,
    "Let a role imply another.",
    "PUT /v3/roles/{prior_role_id}/implies/{implied_role_id}",
  ),
  rule(
    "identity:delete_implied_role",
    admin,
    "Let a role no longer imply another.",
    "DELETE /v3/roles/{prior_role_id}/implies/{implied_role_id}",
  ),
  rule("identity:list_role_inference_rules", reader, "List all implications.", "GET /v3/role_inferences"),
  rule(
    "identity:check_implied_role",
    reader,
    "Learn whether a role implies another.",
    "HEAD /v3/roles/{prior_role_id}/implies/{implied_role_id}",
  ),
];

/** `role` in the domain of the grant's both ends: the user or group, and the project or domain. */
const grantsOf = (role: string): string =>
  ["user", "group"]
    .flatMap((actor) =>
      ["target.project.domain_id", "target.domain.id"].map(
        (scope) => `(role:${role} and domain_id:%(target.${actor}.domain_id)s and domain_id:%(${scope})s)`,
      ),
    )
    .join(" or ");
const grantedRole = "(domain_id:%(target.role.domain_id)s or None:%(target.role.domain_id)s)";
const grantManager = guard(
  ANY,
  ADMIN,
  `((${grantsOf("admin")}) and ${grantedRole})`,
  `((${grantsOf("manager")}) and rule:domain_managed_target_role)`,
);

const grantPaths = (suffix: string, inheritedSuffix: string): readonly string[] =>
  ["projects/{project_id}", "domains/{domain_id}"].flatMap((scope) =>
    ["users/{user_id}", "groups/{group_id}"].flatMap((actor) => [
      `/v3/${scope}/${actor}/roles${suffix}`,
      ...(suffix === "" && scope.startsWith("projects")
        ? []
        : [`/v3/OS-INHERIT/${scope}/${actor}/roles${inheritedSuffix}`]),
    ]),
  );
const grantOperations = (method: string): readonly string[] =>
  grantPaths("/{role_id}", "/{role_id}/inherited_to_projects").map((path) => `${method} ${path}`);
const grantListOperations = grantPaths("", "/inherited_to_projects").map((path) => `GET ${path}`);
const SYSTEM_USER = "/v3/system/users/{user_id}/roles";
const SYSTEM_GROUP = "/v3/system/groups/{group_id}/roles";
const assignmentReader = guard(ANY, ADMIN, SYSTEM_READER, readerOf("target.domain_id"));

const GRANTS: readonly PolicyRule[] = [
  rule(
    "identity:check_grant",
    guard(ANY, ADMIN, SYSTEM_READER, `((${grantsOf("reader")}) and ${grantedRole})`),
    "Learn whether a role is granted on a project or domain.",
    ...grantOperations("GET"),
  ),
  rule(
    "identity:list_grants",
    guard(ANY, ADMIN, SYSTEM_READER, grantsOf("reader")),
    "List the roles granted to one on a project or domain.",
    ...grantListOperations,
  ),
  rule("identity:create_grant", grantManager, "Grant a role on a project or domain.", ...grantOperations("PUT")),
  rule("identity:revoke_grant", grantManager, "Take back a role on a project or domain.", ...grantOperations("DELETE")),
  rule("identity:list_system_grants_for_user", reader, "List a user's roles on the system.", `GET ${SYSTEM_USER}`),
  rule(
    "identity:check_system_grant_for_user",
    reader,
    "Learn whether a user has a role on the system.",
    `GET ${SYSTEM_USER}/{role_id}`,
  ),
  rule(
    "identity:create_system_grant_for_user",
    admin,
    "Grant a user a role on the system.",
    `PUT ${SYSTEM_USER}/{role_id}`,
  ),
  rule(
    "identity:revoke_system_grant_for_user",
    admin,
    "Take back a user's role on the system.",
    `DELETE ${SYSTEM_USER}/{role_id}`,
  ),
  rule("identity:list_system_grants_for_group", reader, "List a group's roles on the system.", `GET ${SYSTEM_GROUP}`),
  rule(
    "identity:check_system_grant_for_group",
    reader,
    "Learn whether a group has a role on the system.",
    `GET ${SYSTEM_GROUP}/{role_id}`,
  ),
  rule(
    "identity:create_system_grant_for_group",
    admin,
    "Grant a group a role on the system.",
    `PUT ${SYSTEM_GROUP}/{role_id}`,
  ),
  rule(
    "identity:revoke_system_grant_for_group",
    admin,
    "Take back a group's role on the system.",
    `DELETE ${SYSTEM_GROUP}/{role_id}`,
  ),
  rule("identity:list_role_assignments", assignmentReader, "List role assignments.", "GET /v3/role_assignments"),
  rule(
    "identity:list_role_assignments_for_tree",
    assignmentReader,
    "List the assignments of a project and those beneath it.",
    "GET /v3/role_assignments?include_subtree",
  ),
];

const CREDENTIAL_OWNER = "user_id:%(target.credential.user_id)s";
const credentialReader = guard(ANY, ADMIN, SYSTEM_READER, CREDENTIAL_OWNER);
const credentialOwner = guard(ANY, ADMIN, CREDENTIAL_OWNER);
const ec2Owner = guard(SYSTEM_PROJECT, ADMIN, `(role:member and ${CREDENTIAL_OWNER})`);
const EC2 = "/v3/users/{user_id}/credentials/OS-EC2";
const ownedReader = guard(SYSTEM_PROJECT, ADMIN, SYSTEM_READER, "rule:owner");
const APPLICATION = "/v3/users/{user_id}/application_credentials";
const ruleReader = guard(SYSTEM_PROJECT, SYSTEM_READER, "user_id:%(target.user.id)s");
const ACCESS_RULES = "/v3/users/{user_id}/access_rules";

const CREDENTIALS: readonly PolicyRule[] = [
  rule("identity:get_credential", credentialReader, "Show a credential.", "GET /v3/credentials/{credential_id}"),
  rule("identity:list_credentials", credentialReader, "List credentials.", "GET /v3/credentials"),
  rule("identity:create_credential", credentialOwner, "Create a credential.", "POST /v3/credentials"),
  rule("identity:update_credential", credentialOwner, "Change a credential.", "PATCH /v3/credentials/{credential_id}"),
  rule("identity:delete_credential", credentialOwner, "Delete a credential.", "DELETE /v3/credentials/{credential_id}"),
  rule(
    "identity:ec2_get_credential",
    guard(SYSTEM_PROJECT, ADMIN, SYSTEM_READER, CREDENTIAL_OWNER),
    "Show an EC2 key.",
    `GET ${EC2}/{credential_id}`,
  ),
  rule("identity:ec2_list_credentials", ownedReader, "List the EC2 keys of a user.", `GET ${EC2}`),
  rule("identity:ec2_create_credential", ec2Owner, "Create an EC2 key.", `POST ${EC2}`),
  rule("identity:ec2_delete_credential", ec2Owner, "Delete an EC2 key.", `DELETE ${EC2}/{credential_id}`),
  rule(
    "identity:get_application_credential",
    ownedReader,
    "Show an application credential.",
    `GET ${APPLICATION}/{application_credential_id}`,
  ),
  rule(
    "identity:list_application_credentials",
    ownedReader,
    "List the application credentials of a user.",
    `GET ${APPLICATION}`,
  ),
  rule(
    "identity:create_application_credential",
    guard(PROJECT, "rule:owner"),
    "Create an application credential.",
    `POST ${APPLICATION}`,
  ),
  rule(
    "identity:delete_application_credential",
    guard(SYSTEM_PROJECT, "rule:admin_or_owner"),
    "Delete an application credential.",
    `DELETE ${APPLICATION}/{application_credential_id}`,
  ),
  rule("identity:get_access_rule", ruleReader, "Show an access rule.", `GET ${ACCESS_RULES}/{access_rule_id}`),
  rule("identity:list_access_rules", ruleReader, "List the access rules of a user.", `GET ${ACCESS_RULES}`),
  rule(
    "identity:delete_access_rule",
    guard(SYSTEM_PROJECT, "(role:admin and system_scope:all)", "user_id:%(target.user.id)s"),
    "Delete an access rule that is not in use.",
    `DELETE ${ACCESS_RULES}/{access_rule_id}`,
  ),
];

const TRUSTOR = "user_id:%(target.trust.trustor_user_id)s";
const TRUSTEE = "user_id:%(target.trust.trustee_user_id)s";
const trustReader = guard(SYSTEM_PROJECT, ADMIN, SYSTEM_READER, TRUSTOR, TRUSTEE);
const TRUST = "/v3/OS-TRUST/trusts";
const CONSUMER = "/v3/OS-OAUTH1/consumers";
const ACCESS_TOKEN = "/v3/users/{user_id}/OS-OAUTH1/access_tokens";

const DELEGATION: readonly PolicyRule[] = [
  rule(
    "identity:create_trust",
    guard(PROJECT, TRUSTOR),
    "Trust another user with roles of one's own.",
    `POST ${TRUST}`,
  ),
  rule("identity:list_trusts", reader, "List all trusts.", `GET ${TRUST}`),
  rule(
    "identity:list_trusts_for_trustor",
    guard(SYSTEM_PROJECT, ADMIN, SYSTEM_READER, TRUSTOR),
    "List the trusts that a user made.",
    `GET ${TRUST}?trustor_user_id={trustor_user_id}`,
  ),
  rule(
    "identity:list_trusts_for_trustee",
    guard(SYSTEM_PROJECT, ADMIN, SYSTEM_READER, TRUSTEE),
    "List the trusts that a user was given.",
    `GET ${TRUST}?trustee_user_id={trustee_user_id}`,
  ),
  rule("identity:get_trust", trustReader, "Show a trust.", `GET ${TRUST}/{trust_id}`),
  rule("identity:delete_trust", guard(SYSTEM_PROJECT, ADMIN, TRUSTOR), "End a trust.", `DELETE ${TRUST}/{trust_id}`),
  rule("identity:list_roles_for_trust", trustReader, "List the roles of a trust.", `GET ${TRUST}/{trust_id}/roles`),
  rule(
    "identity:get_role_for_trust",
    trustReader,
    "Show a role of a trust.",
    `GET ${TRUST}/{trust_id}/roles/{role_id}`,
  ),
  rule("identity:get_consumer", reader, "Show an OAuth1 consumer.", `GET ${CONSUMER}/{consumer_id}`),
  rule("identity:list_consumers", reader, "List OAuth1 consumers.", `GET ${CONSUMER}`),
  rule("identity:create_consumer", admin, "Create an OAuth1 consumer.", `POST ${CONSUMER}`),
  rule("identity:update_consumer", admin, "Change an OAuth1 consumer.", `PATCH ${CONSUMER}/{consumer_id}`),
  rule("identity:delete_consumer", admin, "Delete an OAuth1 consumer.", `DELETE ${CONSUMER}/{consumer_id}`),
  rule(
    "identity:authorize_request_token",
    projectAdmin,
    "Grant what an OAuth1 consumer asks for.",
    "PUT /v3/OS-OAUTH1/authorize/{request_token_id}",
  ),
  rule(
    "identity:get_access_token",
    projectAdmin,
    "Show an OAuth1 access token.",
    `GET ${ACCESS_TOKEN}/{access_token_id}`,
  ),
  rule(
    "identity:get_access_token_role",
    projectAdmin,
    "Show a role of an OAuth1 access token.",
    `GET ${ACCESS_TOKEN}/{access_token_id}/roles/{role_id}`,
  ),
  rule("identity:list_access_tokens", projectAdmin, "List the OAuth1 access tokens of a user.", `GET ${ACCESS_TOKEN}`),
  rule(
    "identity:list_access_token_roles",
    projectAdmin,
    "List the roles of an OAuth1 access token.",
    `GET ${ACCESS_TOKEN}/{access_token_id}/roles`,
  ),
  rule(
    "identity:delete_access_token",
    projectAdmin,
    "Delete an OAuth1 access token.",
    `DELETE ${ACCESS_TOKEN}/{access_token_id}`,
  ),
];

const ENDPOINT_GROUP = "/v3/OS-EP-FILTER/endpoint_groups";
const PROJECT_FILTER = "/v3/OS-EP-FILTER/projects/{project_id}";

const CATALOG: readonly PolicyRule[] = [
  rule("identity:get_region", everyToken, "Show a region.", "GET /v3/regions/{region_id}"),
  rule("identity:list_regions", everyToken, "List regions.", "GET /v3/regions"),
  rule("identity:create_region", admin, "Create a region.", "POST /v3/regions", "PUT /v3/regions/{region_id}"),
  rule("identity:update_region", admin, "Change a region.", "PATCH /v3/regions/{region_id}"),
  rule("identity:delete_region", admin, "Delete a region.", "DELETE /v3/regions/{region_id}"),
  rule("identity:get_service", reader, "Show a service.", "GET /v3/services/{service_id}"),
  rule("identity:list_services", reader, "List services.", "GET /v3/services"),
  rule("identity:create_service", admin, "Create a service.", "POST /v3/services"),
  rule("identity:update_service", admin, "Change a service.", "PATCH /v3/services/{service_id}"),
  rule("identity:delete_service", admin, "Delete a service.", "DELETE /v3/services/{service_id}"),
  rule("identity:get_endpoint", reader, "Show an endpoint.", "GET /v3/endpoints/{endpoint_id}"),
  rule("identity:list_endpoints", reader, "List endpoints.", "GET /v3/endpoints"),
  rule("identity:create_endpoint", admin, "Create an endpoint.", "POST /v3/endpoints"),
  rule("identity:update_endpoint", admin, "Change an endpoint.", "PATCH /v3/endpoints/{endpoint_id}"),
  rule("identity:delete_endpoint", admin, "Delete an endpoint.", "DELETE /v3/endpoints/{endpoint_id}"),
  rule("identity:get_endpoint_group", reader, "Show an endpoint group.", `GET ${ENDPOINT_GROUP}/{endpoint_group_id}`),
  rule("identity:list_endpoint_groups", reader, "List endpoint groups.", `GET ${ENDPOINT_GROUP}`),
  rule("identity:create_endpoint_group", admin, "Create an endpoint group.", `POST ${ENDPOINT_GROUP}`),
  rule(
    "identity:update_endpoint_group",
    admin,
    "Change an endpoint group.",
    `PATCH ${ENDPOINT_GROUP}/{endpoint_group_id}`,
  ),
  rule(
    "identity:delete_endpoint_group",
    admin,
    "Delete an endpoint group.",
    `DELETE ${ENDPOINT_GROUP}/{endpoint_group_id}`,
  ),
  rule(
    "identity:list_projects_associated_with_endpoint_group",
    reader,
    "List the projects that see an endpoint group.",
    `GET ${ENDPOINT_GROUP}/{endpoint_group_id}/projects`,
  ),
  rule(
    "identity:list_endpoints_associated_with_endpoint_group",
    reader,
    "List the endpoints of an endpoint group.",
    `GET ${ENDPOINT_GROUP}/{endpoint_group_id}/endpoints`,
  ),
  rule(
    "identity:get_endpoint_group_in_project",
    reader,
    "Learn whether a project sees an endpoint group.",
    `GET ${ENDPOINT_GROUP}/{endpoint_group_id}/projects/{project_id}`,
  ),
  rule(
    "identity:list_endpoint_groups_for_project",
    reader,
    "List the endpoint groups that a project sees.",
    `GET ${PROJECT_FILTER}/endpoint_groups`,
  ),
  rule(
    "identity:add_endpoint_group_to_project",
    admin,
    "Let a project see an endpoint group.",
    `PUT ${ENDPOINT_GROUP}/{endpoint_group_id}/projects/{project_id}`,
  ),
  rule(
    "identity:remove_endpoint_group_from_project",
    admin,
    "Let a project no longer see an endpoint group.",
    `DELETE ${ENDPOINT_GROUP}/{endpoint_group_id}/projects/{project_id}`,
  ),
  rule(
    "identity:list_projects_for_endpoint",
    reader,
    "List the projects that see an endpoint.",
    "GET /v3/OS-EP-FILTER/endpoints/{endpoint_id}/projects",
  ),
  rule(
    "identity:list_endpoints_for_project",
    reader,
    "List the endpoints that a project sees.",
    `GET ${PROJECT_FILTER}/endpoints`,
  ),
  rule(
    "identity:check_endpoint_in_project",
    reader,
    "Learn whether a project sees an endpoint.",
    `GET ${PROJECT_FILTER}/endpoints/{endpoint_id}`,
  ),
  rule(
    "identity:add_endpoint_to_project",
    admin,
    "Let a project see an endpoint.",
    `PUT ${PROJECT_FILTER}/endpoints/{endpoint_id}`,
  ),
  rule(
    "identity:remove_endpoint_from_project",
    admin,
    "Let a project no longer see an endpoint.",
    `DELETE ${PROJECT_FILTER}/endpoints/{endpoint_id}`,
  ),
];

const ASSOCIATION = "/v3/policies/{policy_id}/OS-ENDPOINT-POLICY";
const FOR_REGION = `${ASSOCIATION}/services/{service_id}/regions/{region_id}`;

const POLICIES: readonly PolicyRule[] = [
  rule("identity:get_policy", reader, "Show a stored policy.", "GET /v3/policies/{policy_id}"),
  rule("identity:list_policies", reader, "List stored policies.", "GET /v3/policies"),
  rule("identity:create_policy", admin, "Store a policy.", "POST /v3/policies"),
  rule("identity:update_policy", admin, "Change a stored policy.", "PATCH /v3/policies/{policy_id}"),
  rule("identity:delete_policy", admin, "Delete a stored policy.", "DELETE /v3/policies/{policy_id}"),
  rule(
    "identity:create_policy_association_for_endpoint",
    admin,
    "Associate a policy with an endpoint.",
    `PUT ${ASSOCIATION}/endpoints/{endpoint_id}`,
  ),
  rule(
    "identity:check_policy_association_for_endpoint",
    reader,
    "Learn whether a policy is associated with an endpoint.",
    `GET ${ASSOCIATION}/endpoints/{endpoint_id}`,
  ),
  rule(
    "identity:delete_policy_association_for_endpoint",
    admin,
    "End the association of a policy with an endpoint.",
    `DELETE ${ASSOCIATION}/endpoints/{endpoint_id}`,
  ),
  rule(
    "identity:create_policy_association_for_service",
    admin,
    "Associate a policy with a service.",
    `PUT ${ASSOCIATION}/services/{service_id}`,
  ),
  rule(
    "identity:check_policy_association_for_service",
    reader,
    "Learn whether a policy is associated with a service.",
    `GET ${ASSOCIATION}/services/{service_id}`,
  ),
  rule(
    "identity:delete_policy_association_for_service",
    admin,
    "End the association of a policy with a service.",
    `DELETE ${ASSOCIATION}/services/{service_id}`,
  ),
  rule(
    "identity:create_policy_association_for_region_and_service",
    admin,
    "Associate a policy with a service in a region.",
    `PUT ${FOR_REGION}`,
  ),
  rule(
    "identity:check_policy_association_for_region_and_service",
    reader,
    "Learn whether a policy is associated with a service in a region.",
    `GET ${FOR_REGION}`,
  ),
  rule(
    "identity:delete_policy_association_for_region_and_service",
    admin,
    "End the association of a policy with a service in a region.",
    `DELETE ${FOR_REGION}`,
  ),
  rule(
    "identity:get_policy_for_endpoint",
    reader,
    "Show the policy that holds for an endpoint.",
    "GET /v3/endpoints/{endpoint_id}/OS-ENDPOINT-POLICY/policy",
  ),
  rule(
    "identity:list_endpoints_for_policy",
    reader,
    "List the endpoints that a policy holds for.",
    `GET ${ASSOCIATION}/endpoints`,
  ),
];

/** A limit is of a project or of a domain; seen by tokens of that project, of that domain, and of the domain of that project. */
const limitReader = guard(
  ANY,
  ADMIN,
  SYSTEM_READER,
  "domain_id:%(target.limit.domain.id)s",
  "domain_id:%(target.limit.project.domain_id)s",
  "(project_id:%(target.limit.project_id)s and not None:%(target.limit.project_id)s)",
);

const LIMITS: readonly PolicyRule[] = [
  rule(
    "identity:get_registered_limit",
    everyToken,
    "Show a registered limit.",
    "GET /v3/registered_limits/{registered_limit_id}",
  ),
  rule("identity:list_registered_limits", everyToken, "List registered limits.", "GET /v3/registered_limits"),
  rule("identity:create_registered_limits", admin, "Create registered limits.", "POST /v3/registered_limits"),
  rule(
    "identity:update_registered_limit",
    admin,
    "Change a registered limit.",
    "PATCH /v3/registered_limits/{registered_limit_id}",
  ),
  rule(
    "identity:delete_registered_limit",
    admin,
    "Delete a registered limit.",
    "DELETE /v3/registered_limits/{registered_limit_id}",
  ),
  rule("identity:get_limit_model", everyToken, "Show how limits are enforced.", "GET /v3/limits/model"),
  rule("identity:get_limit", limitReader, "Show a limit.", "GET /v3/limits/{limit_id}"),
  rule("identity:list_limits", everyToken, "List limits; callers see those of their own scope.", "GET /v3/limits"),
  rule("identity:create_limits", admin, "Create limits.", "POST /v3/limits"),
  rule("identity:update_limit", admin, "Change a limit.", "PATCH /v3/limits/{limit_id}"),
  rule("identity:delete_limit", admin, "Delete a limit.", "DELETE /v3/limits/{limit_id}"),
];

const PROVIDER = "/v3/OS-FEDERATION/identity_providers";
const PROTOCOL = `${PROVIDER}/{idp_id}/protocols`;
const MAPPING = "/v3/OS-FEDERATION/mappings";
const SERVICE_PROVIDER = "/v3/OS-FEDERATION/service_providers";

const FEDERATION: readonly PolicyRule[] = [
  rule("identity:get_identity_provider", reader, "Show an identity provider.", `GET ${PROVIDER}/{idp_id}`),
  rule("identity:list_identity_providers", reader, "List identity providers.", `GET ${PROVIDER}`),
  rule("identity:create_identity_provider", admin, "Create an identity provider.", `PUT ${PROVIDER}/{idp_id}`),
  rule("identity:update_identity_provider", admin, "Change an identity provider.", `PATCH ${PROVIDER}/{idp_id}`),
  rule("identity:delete_identity_provider", admin, "Delete an identity provider.", `DELETE ${PROVIDER}/{idp_id}`),
  rule("identity:get_protocol", reader, "Show a protocol of an identity provider.", `GET ${PROTOCOL}/{protocol_id}`),
  rule("identity:list_protocols", reader, "List the protocols of an identity provider.", `GET ${PROTOCOL}`),
  rule("identity:create_protocol", admin, "Add a protocol to an identity provider.", `PUT ${PROTOCOL}/{protocol_id}`),
  rule(
    "identity:update_protocol",
    admin,
    "Change a protocol of an identity provider.",
    `PATCH ${PROTOCOL}/{protocol_id}`,
  ),
  rule(
    "identity:delete_protocol",
    admin,
    "Remove a protocol of an identity provider.",
    `DELETE ${PROTOCOL}/{protocol_id}`,
  ),
  rule("identity:get_mapping", reader, "Show a mapping.", `GET ${MAPPING}/{mapping_id}`),
  rule("identity:list_mappings", reader, "List mappings.", `GET ${MAPPING}`),
  rule("identity:create_mapping", admin, "Create a mapping.", `PUT ${MAPPING}/{mapping_id}`),
  rule("identity:update_mapping", admin, "Change a mapping.", `PATCH ${MAPPING}/{mapping_id}`),
  rule("identity:delete_mapping", admin, "Delete a mapping.", `DELETE ${MAPPING}/{mapping_id}`),
  rule("identity:get_service_provider", reader, "Show a service provider.", `GET ${SERVICE_PROVIDER}/{sp_id}`),
  rule("identity:list_service_providers", reader, "List service providers.", `GET ${SERVICE_PROVIDER}`),
  rule("identity:create_service_provider", admin, "Create a service provider.", `PUT ${SERVICE_PROVIDER}/{sp_id}`),
  rule("identity:update_service_provider", admin, "Change a service provider.", `PATCH ${SERVICE_PROVIDER}/{sp_id}`),
  rule("identity:delete_service_provider", admin, "Delete a service provider.", `DELETE ${SERVICE_PROVIDER}/{sp_id}`),
];

/** All rules of the identity service; `DIR/policy/identity.yaml` overrides them by name. */
export const IDENTITY_POLICY_RULES: readonly PolicyRule[] = [
  ...SHARED,
  ...TOKENS,
  ...USERS,
  ...GROUPS,
  ...PROJECTS,
  ...DOMAINS,
  ...ROLES,
  ...GRANTS,
  ...CREDENTIALS,
  ...DELEGATION,
  ...CATALOG,
  ...POLICIES,
  ...LIMITS,
  ...FEDERATION,
];
