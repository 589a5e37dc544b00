/** A trust, as far as handing it on depends on it. */
export type DelegableTrust = {
  readonly projectId: string | undefined;
  readonly impersonation: boolean;
  readonly roleIds: readonly string[];
  readonly expiresAtMs: number | undefined;
  /** Further steps that are allowed beneath it. */
  readonly redelegationCount: number;
};

/** A trust that is asked for. */
export type AskedTrust = {
  readonly projectId: string | undefined;
  readonly impersonation: boolean;
  readonly roleIds: readonly string[];
  readonly expiresAtMs: number | undefined;
  readonly remainingUses: number | undefined;
  readonly allowsRedelegation: boolean;
  readonly redelegationCount: number | undefined;
};

export type RedelegationVerdict =
  | { readonly isAllowed: true; readonly redelegationCount: number; readonly expiresAtMs: number | undefined }
  | { readonly isAllowed: false; readonly code: "forbidden" | "bad-request"; readonly reason: string };

const no = (code: "forbidden" | "bad-request", reason: string): RedelegationVerdict => ({
  isAllowed: false,
  code,
  reason,
});

/**
 * Whether a trust may be made, and how often it may be handed on. `parent`: the trust by whose token it is asked for; what it gives can only
 * become less. `maximum`: steps that a first trust may allow.
 */
export const judgeTrust = (
  asked: AskedTrust,
  parent: DelegableTrust | undefined,
  maximum: number,
): RedelegationVerdict => {
  const isRedelegable = asked.allowsRedelegation && asked.redelegationCount !== 0;
  if (asked.remainingUses !== undefined) {
    if (isRedelegable) return no("bad-request", "remaining_uses must not be set if redelegation is allowed");
    if (parent !== undefined)
      return no("forbidden", 'Field "remaining_uses" must not be set in order to redelegate a trust');
    if (asked.remainingUses <= 0) return no("bad-request", "remaining_uses must be a positive integer or null.");
  }
  const most = parent === undefined ? maximum : parent.redelegationCount - 1;
  if (most < 0) return no("forbidden", "Redelegation is not allowed any further.");
  if (isRedelegable && (asked.redelegationCount ?? 0) > most) {
    return no(
      "forbidden",
      `Requested redelegation depth of ${asked.redelegationCount} is greater than allowed ${most}`,
    );
  }
  const redelegationCount = isRedelegable ? (asked.redelegationCount ?? most) : 0;
  if (parent === undefined) return { isAllowed: true, redelegationCount, expiresAtMs: asked.expiresAtMs };
  if (asked.projectId !== parent.projectId) {
    return no("forbidden", "A trust can be handed on for its own project only.");
  }
  const limitMs = parent.expiresAtMs;
  if (limitMs !== undefined && asked.expiresAtMs !== undefined && asked.expiresAtMs > limitMs) {
    return no("forbidden", "Requested expiration time is more than redelegated trust can provide");
  }
  if (asked.roleIds.some((id) => !parent.roleIds.includes(id))) {
    return no("forbidden", "Some of requested roles are not in redelegated trust");
  }
  if (asked.impersonation && !parent.impersonation) {
    return no("forbidden", "Impersonation is not allowed because redelegated trust does not specify impersonation.");
  }
  return { isAllowed: true, redelegationCount, expiresAtMs: asked.expiresAtMs ?? limitMs };
};
