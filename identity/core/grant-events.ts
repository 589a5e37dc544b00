import type { GrantedRole } from "./assignment-expansion.ts";
import type { RevocationEvent } from "./revocation.ts";

type Recheck = Omit<RevocationEvent, "issuedBeforeMs">;

/** Where a grant's target lies. */
export type GrantSurroundings = {
  /** The domain of the target, or the target itself where it is one; undefined for the system. */
  readonly domainId: string | undefined;
  /** The projects beneath the target of an inherited grant; undefined where they are more than are looked at one by one. */
  readonly projectIdsBeneath: readonly string[] | undefined;
  /** Trusts by which others may have what the grant's user has there. */
  readonly trustIds: readonly string[];
};

const recheck = (members: Omit<Recheck, "kind">): Recheck => ({ kind: "recheck", ...members });

/**
 * Which tokens a grant that comes or goes bears on. Memberships change and providers name groups of their own, so a group's grant is about
 * everybody in its scope. No token says that it is for the system: there it is about all tokens of the user, or all there are.
 */
export const recheckedByGrant = (
  grant: GrantedRole,
  { domainId, projectIdsBeneath, trustIds }: GrantSurroundings,
): Recheck[] => {
  const who = grant.actorKind === "user" ? { userId: grant.actorId } : {};
  const scopes = (): Omit<Recheck, "kind">[] => {
    if (grant.targetKind === "system" || domainId === undefined) return [{}];
    if (grant.targetKind === "project" && !grant.inherited) return [{ projectId: grant.targetId }];
    if (grant.targetKind === "domain" || projectIdsBeneath === undefined) return [{ domainId }];
    return projectIdsBeneath.map((projectId) => ({ projectId }));
  };
  return [
    ...scopes().map((scope) => recheck({ ...who, ...scope })),
    ...trustIds.map((trustId) => recheck({ trustId })),
  ];
};
