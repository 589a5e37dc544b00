import { type RawBuilder, sql } from "kysely";
import type { LimitSurroundings, OwnedLimit } from "../core/limit-model.ts";
import { conditionSql, type IdentityDatabase, type IdentityTransaction, type ListQuery, listRows } from "./records.ts";

/** A limit with what its registered limit says of it. */
export type Limit = {
  readonly id: string;
  readonly registered_limit_id: string;
  readonly project_id: string | null;
  readonly domain_id: string | null;
  readonly resource_limit: number;
  readonly description: string | null;
  readonly service_id: string;
  readonly region_id: string | null;
  readonly resource_name: string;
};

/** Whose limits a list shows. */
export type LimitScope =
  | { readonly kind: "all" | "none" }
  | { readonly kind: "domain" | "project"; readonly id: string };

const ALL = sql`(
  SELECT l.id, l.registered_limit_id, l.project_id, l.domain_id, l.resource_limit, l.description,
    r.service_id, r.region_id, r.resource_name
  FROM limits l JOIN registered_limits r ON r.id = l.registered_limit_id)`;

const scopeSql = (scope: LimitScope): RawBuilder<unknown>[] => {
  switch (scope.kind) {
    case "all":
      return [];
    case "none":
      return [sql`1 = 0`];
    case "project":
      return [sql`project_id = ${scope.id}`];
    case "domain":
      return [sql`(domain_id = ${scope.id} OR project_id IN (SELECT id FROM projects WHERE domain_id = ${scope.id}))`];
  }
};

/** Limits as `query` asks for them, of those that `scope` shows. */
export const listLimits = (database: IdentityDatabase, query: ListQuery, scope: LimitScope): Promise<Limit[]> =>
  listRows(database, ALL, query, [...query.conditions.map(conditionSql), ...scopeSql(scope)]);

/** The limit with this id. */
export const findLimit = async (database: IdentityDatabase, id: string): Promise<Limit | undefined> =>
  (await sql<Limit>`SELECT * FROM ${ALL} AS listed WHERE id = ${id}`.execute(database)).rows[0];

/** A limit as the model sees it. */
export const ownedLimit = (
  limit: Pick<Limit, "registered_limit_id" | "project_id" | "domain_id" | "resource_limit">,
): OwnedLimit => ({
  registeredLimitId: limit.registered_limit_id,
  projectId: limit.project_id,
  domainId: limit.domain_id,
  resourceLimit: limit.resource_limit,
});

const IDS_PER_QUERY = 500;

/** What `changed` is compared with, as the transaction has it now. */
export const limitSurroundings = async (
  transaction: IdentityTransaction,
  changed: readonly OwnedLimit[],
): Promise<LimitSurroundings> => {
  const registeredIds = [...new Set(changed.map(({ registeredLimitId }) => registeredLimitId))];
  const defaults = new Map<string, number>();
  const domainOf = new Map<string, string>();
  const limits: OwnedLimit[] = [];
  for (let start = 0; start < registeredIds.length; start += IDS_PER_QUERY) {
    const ids = registeredIds.slice(start, start + IDS_PER_QUERY);
    const registered = transaction
      .selectFrom("registered_limits")
      .select(["id", "default_limit"])
      .where("id", "in", ids);
    for (const { id, default_limit } of await registered.execute()) defaults.set(id, default_limit);
    const rows = await transaction
      .selectFrom("limits")
      .leftJoin("projects", "projects.id", "limits.project_id")
      .select(["registered_limit_id", "project_id", "limits.domain_id", "resource_limit"])
      .select("projects.domain_id as projectDomainId")
      .where("registered_limit_id", "in", ids)
      .execute();
    for (const { projectDomainId, ...row } of rows) {
      limits.push(ownedLimit(row));
      if (row.project_id !== null && projectDomainId !== null) domainOf.set(row.project_id, projectDomainId);
    }
  }
  return { domainOf, defaults, limits };
};
