import { codeOf } from "../../common/errors.ts";
import { identityError, unauthorized } from "../core/identity-error.ts";
import type { TokenContext } from "../token-verifier.ts";
import type { AuthenticationMethod, MethodContext } from "./method.ts";
import { requiredMember } from "./references.ts";

/** Keystone's answer to a token that does not hold: it is not found. */
const identified = async (text: string, context: MethodContext): Promise<TokenContext> => {
  try {
    return await context.identify(text);
  } catch (thrown) {
    if (codeOf(thrown) !== "unauthorized") throw thrown;
    throw identityError("not-found", "Failed to validate token");
  }
};

/** `{"id": TOKEN}`: another scope for who has a token. */
export const tokenMethod: AuthenticationMethod = {
  name: "token",
  recognize: async (payload, context) => {
    const text = requiredMember(payload, "id", "token");
    if (typeof text !== "string") throw identityError("bad-request", "Invalid input for field 'token/id'");
    const from = await identified(text, context);
    // What was delegated must not be turned into something else.
    if (from.trustId !== undefined || from.accessTokenId !== undefined) {
      throw identityError("forbidden", "Using a delegated token to create another one is not allowed.");
    }
    if (from.methods.includes("ec2credential")) {
      throw identityError("forbidden", "A token of an EC2 key cannot be scoped anew.");
    }
    if (from.applicationCredentialId !== undefined) {
      throw identityError("forbidden", "A token of an application credential cannot be scoped anew.");
    }
    const user = await context.directory.findUser(from.userId);
    if (user === undefined) throw unauthorized(`user ${from.userId} is gone`);
    return { user, from, ...(from.federation === undefined ? {} : { federation: from.federation }) };
  },
};
