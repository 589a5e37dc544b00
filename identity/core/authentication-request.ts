/** How a request names things, before anyone has looked whether they exist. */
export type DomainReference = { readonly id: string } | { readonly name: string };

/** A name is unique only within its domain. */
export type Reference = { readonly id: string } | { readonly name: string; readonly domain: DomainReference };

export type ScopeRequest =
  /** Nothing said: the user's default project where there is one, else unscoped. */
  | { readonly kind: "default" }
  | { readonly kind: "unscoped" }
  | { readonly kind: "project"; readonly project: Reference }
  | { readonly kind: "domain"; readonly domain: DomainReference }
  | { readonly kind: "system" };

export type AuthenticationRequest = {
  /** At least one; all that are given must hold, and for the same user. */
  readonly password: { readonly user: Reference; readonly password: string } | undefined;
  readonly token: string | undefined;
  readonly scope: ScopeRequest;
};
