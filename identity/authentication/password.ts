import { identityError, unauthorized } from "../core/identity-error.ts";
import { PASSWORD_MAX } from "../core/password-rules.ts";
import { findUser, reference, requiredMember } from "./references.ts";
import type { AuthenticationMethod } from "./method.ts";

const keyOf = (user: ReturnType<typeof reference>): string =>
  "id" in user ? `user ${user.id}` : `user ${JSON.stringify(user.domain)} ${user.name}`;

/** `{"user": {"id" | "name" + "domain", "password"}}`. */
export const passwordMethod: AuthenticationMethod = {
  name: "password",
  recognize: async (payload, context, { remoteAddress }) => {
    const given = requiredMember(payload, "user", "password");
    const named = reference(given, "user");
    const password = requiredMember(given, "password", "user");
    if (typeof password !== "string" || password.length > PASSWORD_MAX) {
      throw identityError("bad-request", "Invalid input for field 'user/password'");
    }
    const address = `address ${remoteAddress}`;
    context.limiter.assertAllowed([address]);
    const user = await findUser(context, context.directory, named);
    // One count for a user, named by id or by name.
    const keys = [user === undefined ? keyOf(named) : `user ${user.id}`, address];
    using attempt = await context.limiter.begin(keys);
    const verdict = await context.directory.verifyPassword(user?.id, password);
    if (verdict === "right" && user !== undefined) return { user };
    switch (verdict) {
      case "expired":
      case "must-change":
        throw identityError(
          "unauthorized",
          `The password is expired and needs to be changed for user: ${user?.id ?? ""}.`,
          { reason: verdict },
        );
      case "locked":
      case "right":
      case "wrong":
        attempt.failed();
        throw unauthorized(verdict === "locked" ? "locked out" : "wrong user or password");
    }
  },
};
