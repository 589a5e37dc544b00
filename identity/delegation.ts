import type { AccessRuleText } from "./token-verifier.ts";

/** A right that is not the bearer's own, or only part of it. */
export type Delegation =
  | {
      readonly kind: "application-credential";
      readonly id: string;
      readonly name: string;
      readonly projectId: string;
      readonly restricted: boolean;
      readonly roleIds: readonly string[];
      readonly accessRules: readonly AccessRuleText[] | undefined;
      readonly expiresAtMs: number | undefined;
    }
  | {
      readonly kind: "trust";
      readonly id: string;
      readonly trustorUserId: string;
      readonly trusteeUserId: string;
      readonly impersonation: boolean;
      readonly projectId: string | undefined;
      readonly roleIds: readonly string[];
      readonly expiresAtMs: number | undefined;
      readonly redelegatedTrustId: string | undefined;
      readonly redelegationCount: number;
    }
  | {
      readonly kind: "access-token";
      readonly id: string;
      readonly consumerId: string;
      readonly projectId: string;
      readonly roleIds: readonly string[];
      readonly expiresAtMs: number | undefined;
    };
