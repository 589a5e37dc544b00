/** Who calls, as far as a decision needs it. */
export type PolicyCaller = {
  readonly userId: string;
  readonly projectId: string | undefined;
  readonly system: boolean;
  readonly roles: ReadonlySet<string>;
};

/** What is looked at, where the path names it. */
export type PolicyTarget = { readonly userId?: string; readonly projectId?: string };

export type Policy = "authenticated" | "reader" | "reader-or-own-user" | "reader-or-own-project" | "validator";

type Rule = (caller: PolicyCaller, target: PolicyTarget) => boolean;

/** Keystone's secure defaults: the administrator, or a reader of the whole system. */
const reader: Rule = ({ roles, system }) => roles.has("admin") || (system && roles.has("reader"));
const ownUser: Rule = (caller, { userId }) => userId === caller.userId;

const RULES: Readonly<Record<Policy, Rule>> = {
  authenticated: () => true,
  reader,
  "reader-or-own-user": (caller, target) => reader(caller, target) || ownUser(caller, target),
  "reader-or-own-project": (caller, target) =>
    reader(caller, target) || (caller.projectId !== undefined && target.projectId === caller.projectId),
  // Services check the tokens of their callers; anyone may check their own.
  validator: (caller, target) => reader(caller, target) || caller.roles.has("service") || ownUser(caller, target),
};

export const allows = (policy: Policy, caller: PolicyCaller, target: PolicyTarget): boolean =>
  RULES[policy](caller, target);
