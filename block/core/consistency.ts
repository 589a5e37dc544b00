/**
 * Consistency groups are groups of this type, as in Cinder since these are groups: every installation has it, the operations of groups leave it alone, and
 * those of consistency groups make groups of no other. Nobody renames or deletes it.
 */
export const CONSISTENCY_TYPE_NAME = "default_cgsnapshot_type";

/** The spec of a group type whose snapshots are of one instant, and what pools say of themselves about it. */
export const ONE_INSTANT_SPEC = "consistent_group_snapshot_enabled";

/** Whether the snapshots of a group of this type have to be of one instant: those of consistency groups whatever the specs say. Pure. */
export const isOfOneInstant = (typeName: string, specs: Readonly<Record<string, string>>): boolean =>
  typeName === CONSISTENCY_TYPE_NAME ||
  /^<is>\s*true$/i.test((Object.hasOwn(specs, ONE_INSTANT_SPEC) ? specs[ONE_INSTANT_SPEC] : undefined) ?? "");
