/** A role as it was granted. `targetId` is `all` for the system. */
export type GrantedRole = {
  readonly actorKind: "user" | "group";
  readonly actorId: string;
  readonly targetKind: "project" | "domain" | "system";
  readonly targetId: string;
  readonly roleId: string;
  /** Holds on the projects beneath the target, and not on it. */
  readonly inherited: boolean;
};

/** A role that a user has somewhere, and the grant that it comes from. */
export type EffectiveAssignment = {
  readonly grant: GrantedRole;
  readonly userId: string;
  readonly targetKind: "project" | "domain" | "system";
  readonly targetId: string;
  readonly roleId: string;
  /** The role that implies this one directly; undefined where the grant names it. */
  readonly priorRoleId: string | undefined;
};

/** A role that follows from a granted one, and through which. */
export type RoleStep = { readonly roleId: string; readonly priorRoleId: string | undefined };

/** What a grant becomes, each list in the order in which it is gone through. */
export type ExpansionSources = {
  /** Who holds the grant: its user, or those members of its group that are asked for. Ascending. */
  usersOf(grant: GrantedRole): readonly string[];
  /** The projects on which an inherited grant holds and that are asked for. Ascending. */
  projectsOf(grant: GrantedRole): readonly string[];
  /** The roles that a grant of this one gives and that are asked for. */
  rolesOf(roleId: string): readonly RoleStep[];
};

/** The place of an assignment among those of its grant. */
export type ExpansionPlace = { readonly userId: string; readonly targetId: string; readonly step: number };

/** The first index whose item is not below `value`. */
const lowerBound = (sorted: readonly string[], value: string): number => {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((sorted[middle] ?? "") < value) low = middle + 1;
    else high = middle;
  }
  return low;
};

/**
 * The assignments that one grant amounts to, one at a time: a group's on a domain with many projects is many millions, of which a page
 * needs a thousand. Begins behind `after` where it is given, without going through what lies before.
 */
export function* expandGrant(
  grant: GrantedRole,
  sources: ExpansionSources,
  after: ExpansionPlace | undefined,
): Generator<EffectiveAssignment & { readonly step: number }> {
  const users = sources.usersOf(grant);
  const targets = grant.inherited ? sources.projectsOf(grant) : [grant.targetId];
  const roles = sources.rolesOf(grant.roleId);
  const targetKind = grant.inherited ? "project" : grant.targetKind;
  for (let user = after === undefined ? 0 : lowerBound(users, after.userId); user < users.length; user += 1) {
    const userId = users[user] ?? "";
    const sameUser = after !== undefined && userId === after.userId;
    for (let target = sameUser ? lowerBound(targets, after.targetId) : 0; target < targets.length; target += 1) {
      const targetId = targets[target] ?? "";
      const first = sameUser && targetId === after.targetId ? after.step + 1 : 0;
      for (let step = first; step < roles.length; step += 1) {
        const role = roles[step];
        if (role !== undefined) yield { grant, userId, targetKind, targetId, ...role, step };
      }
    }
  }
}
