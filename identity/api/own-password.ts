import { Type } from "typebox";
import { findDomain } from "../authentication/references.ts";
import { identityError, unauthorized } from "../core/identity-error.ts";
import {
  assertAcceptable,
  assertOldEnough,
  assertOwnerMayChoose,
  expiryOf,
  PASSWORD_MAX,
} from "../core/password-rules.ts";
import type { DirectoryUser } from "../store/directory.ts";
import { latestPasswords, NO_PASSWORD, storePassword, type StoredPassword } from "../store/passwords.ts";
import { actingFor } from "../initiator.ts";
import { assertWritable } from "./directory-writes.ts";
import { type IdentityContext, type IdentityRoute, openRoute } from "./identity-route.ts";

const password = Type.String({ maxLength: PASSWORD_MAX });

/** The user who knows the password, though it may have expired. Throws `unauthorized`, `too-many-logins`, `too-busy`. */
const ownerOf = async (
  { userId, original, remoteAddress }: { userId: string; original: string; remoteAddress: string },
  context: IdentityContext,
): Promise<DirectoryUser> => {
  using attempt = await context.limiter.begin([`user ${userId}`, `address ${remoteAddress}`]);
  const user = await context.directory.findUser(userId);
  const verdict = await context.directory.verifyPassword(user?.id, original);
  if (user === undefined || verdict === "wrong" || verdict === "locked") {
    attempt.failed();
    throw unauthorized(verdict === "locked" ? "locked out" : "wrong user or password");
  }
  const domain = await findDomain(context, { id: user.domainId });
  if (!user.enabled || domain?.enabled !== 1) throw unauthorized("user or domain is disabled");
  return user;
};

/** As `ownerOf`; who is refused is told of like a failed login. */
const watchedOwnerOf = async (
  claim: { userId: string; original: string; remoteAddress: string },
  context: IdentityContext,
): Promise<DirectoryUser> => {
  try {
    return await ownerOf(claim, context);
  } catch (thrown) {
    context.audit.loginFailed({ user: claim.userId, error: thrown, remoteAddress: claim.remoteAddress });
    throw thrown;
  }
};

/** Throws `bad-request` where the new password is one of those that it must differ from. */
const assertNew = async (
  given: string,
  known: readonly StoredPassword[],
  { config, hasher }: IdentityContext,
): Promise<void> => {
  const count = config.passwords.uniqueLastCount;
  for (const { hash } of known.slice(0, count)) {
    if (hash === NO_PASSWORD || !(await hasher.verify(given, hash))) continue;
    throw identityError(
      "bad-request",
      "The new password cannot be identical to a previous password. The total number which includes the new password must be " +
        `unique is ${count}.`,
    );
  }
};

/** Without a token: whose password has expired cannot get one. */
const changeOwnPassword = openRoute({
  method: "POST",
  path: "/v3/users/:user_id/password",
  request: {
    params: Type.Object({ user_id: Type.String({ maxLength: 255 }) }),
    body: Type.Object({
      user: Type.Object({ original_password: password, password }, { additionalProperties: false }),
    }),
  },
  handler: async ({ params, body, remoteAddress, requestId }, context) => {
    const { config, clock, changes } = context;
    const { original_password: original, password: chosen } = body.user;
    const user = await watchedOwnerOf({ userId: params.user_id, original, remoteAddress }, context);
    await assertWritable(context, user.domainId);
    assertAcceptable(chosen, config.passwords);
    assertOwnerMayChoose(user.options);
    const known = await latestPasswords(context.database, user.id, Math.max(config.passwords.uniqueLastCount, 1));
    const current = known[0];
    if (current !== undefined) assertOldEnough(config.passwords, current, clock.nowMs());
    await assertNew(chosen, known, context);
    const hash = await context.hasher.hash(chosen);
    const initiator = { userId: user.id, projectId: undefined, remoteAddress, requestId };
    await actingFor(initiator, () =>
      changes.write(async (transaction, change) => {
        const [now] = await latestPasswords(transaction, user.id, 1);
        // Another change came between: what was proven is not the password any more.
        if (now === undefined || now.id !== current?.id) throw unauthorized("the password was changed meanwhile");
        const atMs = clock.nowMs();
        const expiresAtMs = expiryOf(config.passwords, user.options, "owner", atMs);
        await storePassword(
          transaction,
          { userId: user.id, hash, atMs, expiresAtMs, selfService: true },
          config.passwords.uniqueLastCount,
        );
        change.revoke({ kind: "revoke", userId: user.id });
        change.notify({ action: "update", resource: "user", id: user.id });
      }),
    );
    return { status: 204 };
  },
});

export const OWN_PASSWORD_ROUTES: readonly IdentityRoute[] = [changeOwnPassword];
