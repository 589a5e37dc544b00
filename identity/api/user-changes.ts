import { type Static, Type } from "typebox";
import { identityError, notFound } from "../core/identity-error.ts";
import { assertAcceptable, expiryOf, PASSWORD_MAX } from "../core/password-rules.ts";
import { mayChange, mergedOptions, type UserOptions, userOptions } from "../core/user-options.ts";
import { NO_PASSWORD, storePassword } from "../store/passwords.ts";
import { findRecord, type IdentityTransaction, newId } from "../store/records.ts";
import type { User } from "../store/schema.ts";
import {
  assertDomain,
  assertNameFree,
  assertWritable,
  currentUser,
  domainOfNew,
  immutableRefusal,
} from "./directory-writes.ts";
import { baseUrl, guardedRoute, type IdentityContext } from "./identity-route.ts";
import { extraOf } from "./resource-routes.ts";
import { wholeUserBody } from "./user-body.ts";

const ID_MAX = 64;
const TEXT_MAX = 255;
const DESCRIPTION_MAX = 65_535;
const FEDERATED_MAX = 64;

const id = Type.String({ minLength: 1, maxLength: ID_MAX, pattern: "^[a-zA-Z0-9-]+$" });
const name = Type.String({ minLength: 1, maxLength: TEXT_MAX, pattern: "\\S" });
const someText = Type.String({ minLength: 1, maxLength: TEXT_MAX });

const federated = Type.Array(
  Type.Object({
    idp_id: someText,
    protocols: Type.Array(Type.Object({ protocol_id: someText, unique_id: someText }), {
      minItems: 1,
      maxItems: FEDERATED_MAX,
    }),
  }),
  { maxItems: FEDERATED_MAX },
);
type Federated = Static<typeof federated>;

/** What of a body has a place of its own; everything else is kept as it is. */
const placed = {
  default_project_id: Type.Optional(Type.Union([id, Type.Null()])),
  domain_id: Type.Optional(id),
  enabled: Type.Optional(Type.Boolean()),
  federated: Type.Optional(federated),
  password: Type.Optional(Type.Union([Type.String({ maxLength: PASSWORD_MAX }), Type.Null()])),
  options: Type.Optional(userOptions),
};
const described = {
  description: Type.Optional(Type.Union([Type.String({ maxLength: DESCRIPTION_MAX }), Type.Null()])),
};
const createSchema = Type.Object({ ...placed, ...described, name });
const updateSchema = Type.Object({ ...placed, ...described, name: Type.Optional(name) }, { minProperties: 1 });

/** Not kept: what has a place, what answers add, and what must not lie about in clear. */
const NOT_KEPT = Type.Object({
  ...placed,
  name,
  original_password: Type.Unknown(),
  password_expires_at: Type.Unknown(),
});

/** Throws `bad-request` for a domain. A project that is not there may come later. */
const assertDefaultProject = async (
  transaction: IdentityTransaction,
  projectId: string | null | undefined,
): Promise<void> => {
  if (projectId === null || projectId === undefined) return;
  const project = await findRecord(transaction, "projects", projectId);
  if (project?.is_domain !== 1) return;
  throw identityError("bad-request", `User's default project ID cannot be a domain ID: ${projectId}`);
};

/** Makes these the user's names at providers. Throws `bad-request`, `conflict`. */
const storeFederated = async (
  transaction: IdentityTransaction,
  user: Pick<User, "id" | "name">,
  given: Federated | undefined,
): Promise<void> => {
  if (given === undefined || given.length === 0) return;
  await transaction.deleteFrom("federated_users").where("user_id", "=", user.id).execute();
  for (const { idp_id, protocols } of given) {
    if ((await findRecord(transaction, "identity_providers", idp_id)) === undefined) {
      throw identityError("bad-request", `Could not find Identity Provider: ${idp_id}`);
    }
    for (const { protocol_id, unique_id } of protocols) {
      const protocol = await transaction
        .selectFrom("federation_protocols")
        .select("id")
        .where("idp_id", "=", idp_id)
        .where("id", "=", protocol_id)
        .executeTakeFirst();
      if (protocol === undefined) {
        const what = `Could not find federated protocol ${protocol_id} for Identity Provider: ${idp_id}.`;
        throw identityError("bad-request", what);
      }
      const row = { idp_id, protocol_id, unique_id };
      const taken = await transaction
        .selectFrom("federated_users")
        .select("user_id")
        .where("idp_id", "=", idp_id)
        .where("protocol_id", "=", protocol_id)
        .where("unique_id", "=", unique_id)
        .executeTakeFirst();
      if (taken !== undefined) {
        throw identityError("conflict", "Conflict occurred attempting to store federated_user - Duplicate entry.");
      }
      const shown = { user_id: user.id, display_name: user.name };
      await transaction
        .insertInto("federated_users")
        .values({ ...row, ...shown })
        .execute();
    }
  }
};

/** The hash of a body's password, made before any transaction: it takes longer than all of those. Undefined: none is set. */
const hashOf = async (
  password: string | null | undefined,
  { config, hasher }: IdentityContext,
): Promise<string | undefined> => {
  if (password === undefined) return undefined;
  if (password === null) return NO_PASSWORD;
  assertAcceptable(password, config.passwords);
  return hasher.hash(password);
};

const storeByAdministrator = async (
  transaction: IdentityTransaction,
  { config, clock }: IdentityContext,
  { userId, hash, options }: { readonly userId: string; readonly hash: string; readonly options: UserOptions },
): Promise<void> => {
  const atMs = clock.nowMs();
  const expiresAtMs = expiryOf(config.passwords, options, "administrator", atMs);
  await storePassword(
    transaction,
    { userId, hash, atMs, expiresAtMs, selfService: false },
    config.passwords.uniqueLastCount,
  );
};

const answerBody = async (userId: string, context: IdentityContext, base: string): Promise<object> => {
  const user = await context.directory.findUser(userId);
  if (user === undefined) throw notFound("user", userId);
  return { user: { ...(await wholeUserBody(user, context)), links: { self: `${base}/users/${userId}` } } };
};

export const createUser = guardedRoute({
  method: "POST",
  path: "/v3/users",
  operation: "identity:create_user",
  request: { body: Type.Object({ user: createSchema }) },
  target: ({ body }, _context, caller) => ({ "target.user.domain_id": domainOfNew(body.user, caller) }),
  handler: async (request, context, caller) => {
    const fields = request.body.user;
    const userId = newId();
    const domainId = domainOfNew(fields, caller);
    const options = mergedOptions({}, fields.options);
    await assertWritable(context, domainId);
    const hash = await hashOf(fields.password, context);
    await context.changes.write(async (transaction, change) => {
      await assertDomain(transaction, domainId);
      await assertDefaultProject(transaction, fields.default_project_id);
      const user: User = {
        id: userId,
        domain_id: domainId,
        name: fields.name.trim(),
        default_project_id: fields.default_project_id ?? null,
        enabled: Number(fields.enabled ?? true),
        options: JSON.stringify(options),
        extra: extraOf(NOT_KEPT, fields),
        created_at_ms: context.clock.nowMs(),
        last_active_at_ms: null,
        failed_login_count: 0,
        failed_login_at_ms: null,
      };
      await assertNameFree(transaction, "user", { id: userId, domainId, name: user.name });
      await transaction.insertInto("users").values(user).execute();
      if (hash !== undefined) await storeByAdministrator(transaction, context, { userId, hash, options });
      await storeFederated(transaction, user, fields.federated);
      change.notify({ action: "create", resource: "user", id: userId });
    });
    return { status: 201, body: await answerBody(userId, context, baseUrl(request, context)) };
  },
});

const oneUser = Type.Object({ user_id: Type.String() });

export const updateUser = guardedRoute({
  method: "PATCH",
  path: "/v3/users/:user_id",
  operation: "identity:update_user",
  request: { params: oneUser, body: Type.Object({ user: updateSchema }) },
  target: async ({ params }, { directory }) => {
    const user = await directory.findUser(params.user_id);
    return user === undefined ? {} : { "target.user.id": user.id, "target.user.domain_id": user.domainId };
  },
  handler: async (request, context) => {
    const userId = request.params.user_id;
    const fields = request.body.user;
    const known = await context.directory.findUser(userId);
    if (known === undefined) throw notFound("user", userId);
    if ("id" in fields && fields.id !== userId) throw identityError("bad-request", "Cannot change ID");
    if (fields.domain_id !== undefined && fields.domain_id !== known.domainId) {
      throw identityError("bad-request", "Cannot change Domain ID");
    }
    await assertWritable(context, known.domainId);
    const hash = await hashOf(fields.password, context);
    await context.changes.write(async (transaction, change) => {
      const before = await currentUser(known, { context, transaction });
      if (!mayChange(before.options, fields)) throw immutableRefusal("update", "user", userId);
      await assertDefaultProject(transaction, fields.default_project_id);
      const options = mergedOptions(before.options, fields.options);
      const nowMs = context.clock.nowMs();
      const after: User = {
        ...before,
        name: fields.name?.trim() ?? before.name,
        default_project_id:
          fields.default_project_id === undefined ? before.default_project_id : fields.default_project_id,
        enabled: Number(fields.enabled ?? before.enabled),
        options: JSON.stringify(options),
        extra: extraOf(NOT_KEPT, fields, before.extra),
        // An administrator who enables a user forgives, and the days of inactivity begin anew.
        ...(fields.enabled === true
          ? { last_active_at_ms: nowMs, failed_login_count: 0, failed_login_at_ms: null }
          : {}),
      };
      await assertNameFree(transaction, "user", { id: userId, domainId: before.domain_id, name: after.name });
      await transaction.updateTable("users").set(after).where("id", "=", userId).execute();
      if (hash !== undefined) await storeByAdministrator(transaction, context, { userId, hash, options });
      await storeFederated(transaction, after, fields.federated);
      const isDisabled = before.enabled === 1 && after.enabled === 0;
      if (isDisabled || hash !== undefined) change.revoke({ kind: "revoke", userId });
      else if (after.name !== before.name) change.revoke({ kind: "recheck", userId });
      change.notify({ action: isDisabled ? "disable" : "update", resource: "user", id: userId });
    });
    return { status: 200, body: await answerBody(userId, context, baseUrl(request, context)) };
  },
});
