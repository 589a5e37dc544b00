import { identityError } from "./core/identity-error.ts";
import type { Issued } from "./token-service.ts";
import { TOKEN_MAX_CHARACTERS } from "./token-verifier.ts";

/**
 * A token travels in a header with every request, and says itself what its bearer may do; one that no service would read must not be handed out.
 * Names of some 300 roles fit. Throws `forbidden`, which says what there is too much of.
 */
export const assertBearable = ({ token, details: { roles, federation } }: Issued): void => {
  if (token.length <= TOKEN_MAX_CHARACTERS) return;
  const groups = federation === undefined ? "" : ` and ${federation.groupIds.length} groups of the identity provider`;
  throw identityError(
    "forbidden",
    `A token for this scope would have ${token.length} characters, more than the ${TOKEN_MAX_CHARACTERS} that services read: it names ` +
      `${roles.length} roles${groups}. Ask for another scope, or have fewer roles granted here.`,
  );
};
