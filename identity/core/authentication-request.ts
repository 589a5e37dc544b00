/** How a request names things, before anyone has looked whether they exist. */
export type DomainReference = { readonly id: string } | { readonly name: string };

/** A name is unique only within its domain. */
export type Reference = { readonly id: string } | { readonly name: string; readonly domain: DomainReference };

export type ScopeRequest =
  /** Nothing said: what the method gives, the user's default project where there is one, else unscoped. */
  | { readonly kind: "default" }
  | { readonly kind: "unscoped" }
  | { readonly kind: "project"; readonly project: Reference }
  | { readonly kind: "domain"; readonly domain: DomainReference }
  | { readonly kind: "system" }
  | { readonly kind: "trust"; readonly trustId: string };

/** What an OAuth 1.0a signature is about: the request as its client addressed it. */
export type SignedRequest = {
  readonly method: string;
  /** `scheme://host[:port]`; undefined where the request did not say. */
  readonly origin: string | undefined;
  readonly path: string;
  /** Decoded. */
  readonly query: readonly (readonly [name: string, value: string])[];
  /** The header Authorization. */
  readonly authorization: string | undefined;
};

export type AuthenticationRequest = {
  /** At least one, in the client's order; all must hold, and for the same user. `payload` is what the body says under the method's name. */
  readonly methods: readonly { readonly name: string; readonly payload: unknown }[];
  readonly scope: ScopeRequest;
  readonly remoteAddress: string;
  /** What `openstack-auth-receipt` said. */
  readonly receipt?: string | undefined;
  readonly signed?: SignedRequest;
};
