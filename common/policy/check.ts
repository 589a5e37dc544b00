/** Text with places that the target fills in: constants, and names of keys from `%(key)s`. Without parts it is the empty text. */
export type Template = readonly (string | { readonly key: string })[];

/** One check string, parsed. `and` and `or` hold two checks at least; parentheses are what keeps one inside another. */
export type Check =
  | { readonly kind: "always" }
  | { readonly kind: "never" }
  | { readonly kind: "not"; readonly check: Check }
  | { readonly kind: "and"; readonly checks: readonly Check[] }
  | { readonly kind: "or"; readonly checks: readonly Check[] }
  | { readonly kind: "rule"; readonly name: string }
  | { readonly kind: "role"; readonly role: Template }
  /** `'text':right`, `True:right`, `None:right`, `20:right`. */
  | { readonly kind: "literal"; readonly text: string; readonly right: Template }
  /** `key:right`; the key may have dots. */
  | { readonly kind: "credential"; readonly key: string; readonly right: Template };
