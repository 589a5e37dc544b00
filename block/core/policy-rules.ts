import type { PolicyRule } from "../../common/policy/policy-engine.ts";

/*
 * Who may do what, with the names of Cinder's rules and the meaning of its defaults since Xena: readers of a project look, members change,
 * administrators do it everywhere. Target: `project_id`, the owner of the thing, or the caller's own project where there is no thing yet.
 */

const ADMIN = "rule:admin_api";
const READER = "rule:admin_or_project_reader";
const MEMBER = "rule:admin_or_project_member";

const rule = (name: string, check: string, description: string): PolicyRule => ({ name, check, description });

const SHARED: readonly PolicyRule[] = [
  rule("context_is_admin", "role:admin", "Decides what sees things of all projects."),
  rule("admin_api", "role:admin", "Administrators."),
  rule(
    "admin_or_project_reader",
    "rule:context_is_admin or (role:reader and project_id:%(project_id)s)",
    "Whoever may look at the project's things.",
  ),
  rule(
    "admin_or_project_member",
    "rule:context_is_admin or (role:member and project_id:%(project_id)s)",
    "Whoever may change the project's things.",
  ),
];

const VOLUMES: readonly PolicyRule[] = [
  rule("volume:create", MEMBER, "Create a volume."),
  rule("volume:create_from_image", MEMBER, "Create a volume from an image."),
  rule("volume:multiattach", MEMBER, "Create a volume that can be attached more than once."),
  rule("volume:get", READER, "Show a volume."),
  rule("volume:get_all", READER, "List volumes, and their summary."),
  rule("volume:update", MEMBER, "Change a volume."),
  rule("volume:delete", MEMBER, "Delete a volume."),
  rule("volume:force_delete", ADMIN, "Delete a volume whatever its status is."),
  rule("volume_extension:volume_host_attribute", ADMIN, "See where a volume is."),
  rule("volume_extension:volume_tenant_attribute", READER, "See whose a volume is."),
  rule("volume_extension:volume_mig_status_attribute", ADMIN, "See a volume's migration."),
  rule("volume:get_volume_metadata", READER, "Show a volume's metadata."),
  rule("volume:create_volume_metadata", MEMBER, "Add metadata."),
  rule("volume:update_volume_metadata", MEMBER, "Change metadata."),
  rule("volume:delete_volume_metadata", MEMBER, "Remove metadata."),
];

const ACTIONS: readonly PolicyRule[] = [
  rule("volume:extend", MEMBER, "Extend a volume."),
  rule("volume:extend_attached_volume", MEMBER, "Extend a volume that is attached."),
  rule("volume:update_readonly_flag", MEMBER, "Make a volume read-only, or not."),
  rule("volume_extension:volume_admin_actions:reset_status", ADMIN, "Set a volume's status."),
  rule("volume_extension:volume_admin_actions:force_delete", ADMIN, "Delete a volume whatever its status is."),
  rule("volume_extension:volume_admin_actions:force_detach", ADMIN, "Detach a volume whatever its status is."),
  rule("volume_extension:volume_actions:reserve", MEMBER, "Announce an attachment."),
  rule("volume_extension:volume_actions:unreserve", MEMBER, "Take that back."),
  rule("volume_extension:volume_actions:begin_detaching", MEMBER, "Announce a detachment."),
  rule("volume_extension:volume_actions:roll_detaching", MEMBER, "Take that back."),
  rule("volume_extension:volume_actions:attach", MEMBER, "Say that a volume is attached."),
  rule("volume_extension:volume_actions:detach", MEMBER, "Say that a volume is detached."),
  rule("volume_extension:volume_actions:initialize_connection", MEMBER, "Open a volume."),
  rule("volume_extension:volume_actions:terminate_connection", MEMBER, "Close a volume."),
  rule("volume:attachment_create", MEMBER, "Create an attachment."),
  rule("volume:attachment_update", MEMBER, "Connect an attachment."),
  rule("volume:attachment_delete", MEMBER, "Delete an attachment."),
  rule("volume:attachment_complete", MEMBER, "Say that an attachment is in use."),
];

const TYPES: readonly PolicyRule[] = [
  rule("volume_extension:type_get", READER, "Show a volume type."),
  rule("volume_extension:type_get_all", READER, "List volume types."),
  rule("volume_extension:type_create", ADMIN, "Create a volume type."),
  rule("volume_extension:type_update", ADMIN, "Change a volume type."),
  rule("volume_extension:type_delete", ADMIN, "Delete a volume type."),
  rule("volume_extension:access_types_extra_specs", READER, "See extra specs beside a type."),
  rule("volume_extension:access_types_qos_specs_id", ADMIN, "See the QoS specs of a type."),
  rule("volume_extension:types_extra_specs:index", READER, "List extra specs."),
  rule("volume_extension:types_extra_specs:show", READER, "Show an extra spec."),
  rule("volume_extension:types_extra_specs:create", ADMIN, "Add extra specs."),
  rule("volume_extension:types_extra_specs:update", ADMIN, "Change an extra spec."),
  rule("volume_extension:types_extra_specs:delete", ADMIN, "Remove an extra spec."),
  rule("volume_extension:types_extra_specs:read_sensitive", ADMIN, "See extra specs that are not for users."),
  rule("volume_extension:volume_type_access:get_all_for_type", ADMIN, "List who may use a private type."),
  rule("volume_extension:volume_type_access:addProjectAccess", ADMIN, "Let a project use a private type."),
  rule("volume_extension:volume_type_access:removeProjectAccess", ADMIN, "Take that back."),
];

const OTHERS: readonly PolicyRule[] = [
  rule("volume_extension:quotas:show", READER, "Show a project's limits."),
  rule("volume_extension:quotas:update", ADMIN, "Set a project's limits."),
  rule("volume_extension:quotas:delete", ADMIN, "Give a project the usual limits again."),
  rule("volume_extension:quota_classes:get", ADMIN, "Show the usual limits."),
  rule("volume_extension:quota_classes:update", ADMIN, "Set the usual limits."),
  rule("limits_extension:used_limits", READER, "Show limits with what is used of them."),
  rule("volume_extension:services:index", ADMIN, "List services."),
  rule("volume_extension:services:update", ADMIN, "Take a service out of use, and back."),
  rule("scheduler_extension:scheduler_stats:get_pools", ADMIN, "List pools."),
  rule("volume:availability_zone_list", READER, "List availability zones."),
  rule("volume_extension:list_extensions", READER, "List extensions."),
];

export const BLOCK_POLICY_RULES: readonly PolicyRule[] = [...SHARED, ...VOLUMES, ...ACTIONS, ...TYPES, ...OTHERS];
