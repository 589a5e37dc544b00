import { randomBytes } from "node:crypto";
import { Type } from "typebox";
import type { HttpRequest } from "../../common/http/route.ts";
import { identityError, notFound } from "../core/identity-error.ts";
import { conditionSql, findRecords, newId } from "../store/records.ts";
import type { AccessRule, ApplicationCredential } from "../store/schema.ts";
import { refuseDelegatedButCredential } from "./delegated-tokens.ts";
import { baseUrl, type Caller, guardedRoute, type IdentityContext, type IdentityRoute } from "./identity-route.ts";
import { anyQuery, listBody, listQueryOf, plainQuery, text } from "./list-parameters.ts";
import type { Write } from "./resource-routes.ts";
import { roleFields } from "./role-fields.ts";
import { bareTime, futureTimeOf, microsecondsOf } from "./times.ts";

const SECRET_BYTES = 64;
const SECRET_MAX = 4_096;
/** All rules of one credential, as text: a token carries them. */
const RULES_MAX_CHARACTERS = 3_000;

const id = Type.String({ minLength: 1, maxLength: 64 });
const name = Type.String({ minLength: 1, maxLength: 255 });

const accessRule = Type.Object(
  {
    id: Type.Optional(id),
    service: Type.Optional(id),
    method: Type.Optional(Type.Enum(["POST", "GET", "HEAD", "PATCH", "PUT", "DELETE"])),
    path: Type.Optional(Type.String({ pattern: "^/", maxLength: 225 })),
  },
  { additionalProperties: false },
);

const createSchema = Type.Object({
  application_credential: Type.Object({
    name,
    description: Type.Optional(Type.Union([Type.String({ maxLength: 65_535 }), Type.Null()])),
    secret: Type.Optional(Type.Union([Type.String({ maxLength: SECRET_MAX }), Type.Null()])),
    expires_at: Type.Optional(Type.Union([Type.String({ maxLength: 64 }), Type.Null()])),
    roles: Type.Optional(
      Type.Array(Type.Object({ id: Type.Optional(id), name: Type.Optional(name) }, { additionalProperties: false }), {
        maxItems: 100,
      }),
    ),
    unrestricted: Type.Optional(Type.Boolean()),
    access_rules: Type.Optional(Type.Array(accessRule, { maxItems: 100 })),
  }),
});

const ownerParameters = Type.Object({ user_id: Type.String() });
const oneParameters = Type.Object({ user_id: Type.String(), application_credential_id: Type.String() });
const COLLECTION = "/v3/users/:user_id/application_credentials";
const ONE = `${COLLECTION}/:application_credential_id`;

const withoutUser = ({ user_id: _owner, ...rule }: AccessRule) => rule;

/** Credentials as answers show them, without their secrets. */
const bodiesOf = async (rows: readonly ApplicationCredential[], { database }: Pick<IdentityContext, "database">) => {
  const ids = rows.map((row) => row.id);
  if (ids.length === 0) return [];
  const roleLinks = await database
    .selectFrom("application_credential_roles")
    .selectAll()
    .where("application_credential_id", "in", ids)
    .execute();
  const ruleLinks = await database
    .selectFrom("application_credential_rules")
    .selectAll()
    .where("application_credential_id", "in", ids)
    .execute();
  const roles = await findRecords(database, "roles", [...new Set(roleLinks.map(({ role_id }) => role_id))]);
  const rules = await findRecords(database, "access_rules", [...new Set(ruleLinks.map((link) => link.access_rule_id))]);
  return rows.map((row) => {
    const roleIds = new Set(
      roleLinks.filter((link) => link.application_credential_id === row.id).map((link) => link.role_id),
    );
    const ruleIds = new Set(
      ruleLinks.filter((link) => link.application_credential_id === row.id).map((link) => link.access_rule_id),
    );
    const ownRules = rules.filter((rule) => ruleIds.has(rule.id)).map(withoutUser);
    return {
      id: row.id,
      name: row.name,
      description: row.description,
      user_id: row.user_id,
      project_id: row.project_id,
      system: row.system,
      expires_at: row.expires_at_us === null ? null : bareTime(row.expires_at_us),
      unrestricted: row.unrestricted === 1,
      roles: roles.filter((role) => roleIds.has(role.id)).map((role) => roleFields(role)),
      ...(ownRules.length === 0 ? {} : { access_rules: ownRules }),
    };
  });
};

const withSelf = <Body extends { readonly id: string }>(
  body: Body,
  request: HttpRequest,
  context: IdentityContext,
) => ({
  ...body,
  links: { self: `${baseUrl(request, context)}/application_credentials/${body.id}` },
});

type AskedRole = { readonly id?: string; readonly name?: string };

/** The roles asked for, which must be among the token's; all of these where none is named. Throws `bad-request`. */
const rolesOf = (asked: readonly AskedRole[] | undefined, { token }: Caller): string[] => {
  if (asked === undefined || asked.length === 0) return token.roles.map((role) => role.id);
  return asked.map((one) => {
    if ((one.id === undefined) === (one.name === undefined)) {
      throw identityError("bad-request", "Invalid input for field 'roles': either id or name");
    }
    const held = token.roles.find((role) => (one.id === undefined ? role.name === one.name : role.id === one.id));
    if (held === undefined) {
      throw identityError(
        "bad-request",
        "Invalid application credential: Cannot create an application credential with unassigned role",
      );
    }
    return held.id;
  });
};

type AskedRule = { readonly id?: string; readonly service?: string; readonly method?: string; readonly path?: string };

/** The id of the user's rule that says this; made where there is none. */
const ruleIdOf = async (asked: AskedRule, userId: string, { transaction }: Write): Promise<string> => {
  const own = transaction.selectFrom("access_rules").select("id").where("user_id", "=", userId);
  if (asked.id !== undefined && asked.service === undefined) {
    const found = await own.where("id", "=", asked.id).executeTakeFirst();
    if (found === undefined) throw notFound("access_rule", asked.id);
    return found.id;
  }
  const { service, method, path } = asked;
  if (service === undefined || method === undefined || path === undefined) {
    throw identityError("bad-request", "Invalid input for field 'access_rules': service, method and path");
  }
  const known = await own
    .where("service", "=", service)
    .where("method", "=", method)
    .where("path", "=", path)
    .executeTakeFirst();
  if (known !== undefined) return known.id;
  const row: AccessRule = { id: newId(), user_id: userId, service, method, path };
  await transaction.insertInto("access_rules").values(row).execute();
  return row.id;
};

const create = guardedRoute({
  method: "POST",
  path: COLLECTION,
  operation: "identity:create_application_credential",
  request: { params: ownerParameters, body: createSchema },
  target: ({ params }) => ({ user_id: params.user_id }),
  handler: async (request, context, caller) => {
    refuseDelegatedButCredential(caller, "manage application credentials", true);
    const { user_id: userId } = request.params;
    const { token } = caller;
    const fields = request.body.application_credential;
    if (token.scope.kind !== "project") {
      throw identityError("bad-request", "Invalid application credential: a token for a project is needed.");
    }
    const projectId = token.scope.project.id;
    const expiresAtUs =
      fields.expires_at === undefined || fields.expires_at === null
        ? null
        : microsecondsOf(fields.expires_at, futureTimeOf(fields.expires_at, "expires_at", context.clock.nowMs()));
    const roleIds = [...new Set(rolesOf(fields.roles, caller))];
    if (JSON.stringify(fields.access_rules ?? []).length > RULES_MAX_CHARACTERS) {
      throw identityError(
        "bad-request",
        `Invalid input for field 'access_rules': more than ${RULES_MAX_CHARACTERS} characters`,
      );
    }
    const secret = fields.secret || randomBytes(SECRET_BYTES).toString("base64url");
    const secretHash = await context.hasher.hash(secret);
    const row: ApplicationCredential = {
      id: newId(),
      user_id: userId,
      project_id: projectId,
      name: fields.name,
      description: fields.description ?? null,
      secret_hash: secretHash,
      expires_at_us: expiresAtUs,
      unrestricted: Number(fields.unrestricted ?? false),
      system: null,
    };
    const body = await context.changes.write(async (transaction, change) => {
      const own = await transaction
        .selectFrom("application_credentials")
        .select("name")
        .where("user_id", "=", userId)
        .execute();
      if (own.some((other) => other.name === fields.name)) {
        throw identityError(
          "conflict",
          `Conflict occurred attempting to store application_credential - Duplicate entry found with name ${fields.name}.`,
        );
      }
      if (own.length >= context.config.applicationCredentialsPerUser) {
        throw identityError(
          "forbidden",
          "Unable to create an application credential: there are too many of this user.",
        );
      }
      await transaction.insertInto("application_credentials").values(row).execute();
      for (const roleId of roleIds) {
        const link = { application_credential_id: row.id, role_id: roleId };
        await transaction.insertInto("application_credential_roles").values(link).execute();
      }
      const ruleIds = new Set<string>();
      for (const rule of fields.access_rules ?? []) {
        ruleIds.add(await ruleIdOf(rule, userId, { context, caller, transaction, change }));
      }
      const rules = await findRecords(transaction, "access_rules", [...ruleIds]);
      // A token carries them all.
      if (JSON.stringify(rules.map(withoutUser)).length > RULES_MAX_CHARACTERS) {
        throw identityError(
          "bad-request",
          `Invalid input for field 'access_rules': more than ${RULES_MAX_CHARACTERS} characters`,
        );
      }
      for (const ruleId of ruleIds) {
        const link = { application_credential_id: row.id, access_rule_id: ruleId };
        await transaction.insertInto("application_credential_rules").values(link).execute();
      }
      change.notify({ action: "create", resource: "application_credential", id: row.id });
      const [made] = await bodiesOf([row], { database: transaction });
      return { ...made, id: row.id };
    });
    return { status: 201, body: { application_credential: withSelf({ ...body, secret }, request, context) } };
  },
});

const list = guardedRoute({
  method: "GET",
  path: COLLECTION,
  operation: "identity:list_application_credentials",
  request: { params: ownerParameters, query: anyQuery },
  target: ({ params }) => ({ user_id: params.user_id }),
  handler: async (request, context, caller) => {
    refuseDelegatedButCredential(caller, "list application credentials", false);
    const query = listQueryOf({ name: text("name") }, plainQuery(request.query));
    let rows = context.database
      .selectFrom("application_credentials")
      .selectAll()
      .where("user_id", "=", request.params.user_id)
      .orderBy("id")
      .limit(query.limit);
    for (const condition of query.conditions) rows = rows.where(conditionSql(condition));
    const bodies = await bodiesOf(await rows.execute(), context);
    const items = bodies.map((body) => withSelf(body, request, context));
    return { status: 200, body: listBody(request, "application_credentials", items, query, baseUrl(request, context)) };
  },
});

const owned = async (
  { user_id: userId, application_credential_id: credentialId }: { user_id: string; application_credential_id: string },
  { database }: Pick<IdentityContext, "database">,
): Promise<ApplicationCredential> => {
  const row = await database
    .selectFrom("application_credentials")
    .selectAll()
    .where("id", "=", credentialId)
    .where("user_id", "=", userId)
    .executeTakeFirst();
  if (row === undefined) throw notFound("application credential", credentialId);
  return row;
};

const show = guardedRoute({
  method: "GET",
  path: ONE,
  operation: "identity:get_application_credential",
  request: { params: oneParameters },
  target: ({ params }) => ({ user_id: params.user_id }),
  handler: async (request, context, caller) => {
    refuseDelegatedButCredential(caller, "read application credentials", false);
    const [body] = await bodiesOf([await owned(request.params, context)], context);
    if (body === undefined) throw notFound("application credential", request.params.application_credential_id);
    return { status: 200, body: { application_credential: withSelf(body, request, context) } };
  },
});

const remove = guardedRoute({
  method: "DELETE",
  path: ONE,
  operation: "identity:delete_application_credential",
  request: { params: oneParameters },
  target: ({ params }) => ({ user_id: params.user_id }),
  handler: async (request, context, caller) => {
    refuseDelegatedButCredential(caller, "manage application credentials", true);
    await context.changes.write(async (transaction, change) => {
      const row = await owned(request.params, { database: transaction });
      await transaction.deleteFrom("application_credentials").where("id", "=", row.id).execute();
      change.revoke({ kind: "revoke", applicationCredentialId: row.id });
      change.notify({ action: "delete", resource: "application_credential", id: row.id });
    });
    return { status: 204 };
  },
});

/** Passwords of programs: a user's right on one project, as a whole or in part. */
export const APPLICATION_CREDENTIAL_ROUTES: readonly IdentityRoute[] = [create, list, show, remove];
