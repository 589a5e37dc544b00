import { Type } from "typebox";
import { identityError, notFound } from "../core/identity-error.ts";
import { conditionSql } from "../store/records.ts";
import type { AccessRule } from "../store/schema.ts";
import { refuseDelegatedButCredential } from "./delegated-tokens.ts";
import { baseUrl, guardedRoute, type IdentityContext, type IdentityRoute } from "./identity-route.ts";
import { anyQuery, listBody, listQueryOf, plainQuery, text } from "./list-parameters.ts";

const COLLECTION = "/v3/users/:user_id/access_rules";
const ONE = `${COLLECTION}/:access_rule_id`;
const ownerParameters = Type.Object({ user_id: Type.String() });
const oneParameters = Type.Object({ user_id: Type.String(), access_rule_id: Type.String() });
const FILTERS = { service: text("service"), path: text("path"), method: text("method") };

const bodyOf = ({ id, service, path, method }: AccessRule, base: string) => ({
  id,
  service,
  path,
  method,
  links: { self: `${base}/access_rules/${id}` },
});

const targetOf = async ({ params }: { params: { user_id: string } }, { directory }: IdentityContext) => {
  const user = await directory.findUser(params.user_id);
  return { "target.user.id": params.user_id, "target.user.domain_id": user?.domainId };
};

const owned = async (
  { user_id: userId, access_rule_id: ruleId }: { user_id: string; access_rule_id: string },
  { database }: Pick<IdentityContext, "database">,
): Promise<AccessRule> => {
  const rules = database.selectFrom("access_rules").selectAll().where("id", "=", ruleId).where("user_id", "=", userId);
  const row = await rules.executeTakeFirst();
  if (row === undefined) throw notFound("access_rule", ruleId);
  return row;
};

/** What application credentials of a user may be limited to; rules outlive the credentials that they were made with. */
export const ACCESS_RULE_ROUTES: readonly IdentityRoute[] = [
  guardedRoute({
    method: "GET",
    path: COLLECTION,
    operation: "identity:list_access_rules",
    request: { params: ownerParameters, query: anyQuery },
    target: targetOf,
    handler: async (request, context, caller) => {
      refuseDelegatedButCredential(caller, "list access rules", false);
      const query = listQueryOf(FILTERS, plainQuery(request.query));
      const base = baseUrl(request, context);
      let rows = context.database
        .selectFrom("access_rules")
        .selectAll()
        .where("user_id", "=", request.params.user_id)
        .orderBy("id")
        .limit(query.limit);
      for (const condition of query.conditions) rows = rows.where(conditionSql(condition));
      const items = (await rows.execute()).map((row) => bodyOf(row, base));
      return { status: 200, body: listBody(request, "access_rules", items, query, base) };
    },
  }),
  guardedRoute({
    method: "GET",
    path: ONE,
    operation: "identity:get_access_rule",
    request: { params: oneParameters },
    target: targetOf,
    handler: async (request, context, caller) => {
      refuseDelegatedButCredential(caller, "read access rules", false);
      const row = await owned(request.params, context);
      return { status: 200, body: { access_rule: bodyOf(row, baseUrl(request, context)) } };
    },
  }),
  guardedRoute({
    method: "DELETE",
    path: ONE,
    operation: "identity:delete_access_rule",
    request: { params: oneParameters },
    target: targetOf,
    handler: async (request, context, caller) => {
      refuseDelegatedButCredential(caller, "manage access rules", true);
      await context.changes.write(async (transaction, change) => {
        const { id } = await owned(request.params, { database: transaction });
        const used = await transaction
          .selectFrom("application_credential_rules")
          .select("access_rule_id")
          .where("access_rule_id", "=", id)
          .executeTakeFirst();
        if (used !== undefined) {
          throw identityError("forbidden", `Access rule ${id} is in use by an application credential.`);
        }
        await transaction.deleteFrom("access_rules").where("id", "=", id).execute();
        change.notify({ action: "delete", resource: "access_rule", id });
      });
      return { status: 204 };
    },
  }),
];
