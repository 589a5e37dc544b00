import { type RawBuilder, sql } from "kysely";
import { conditionSql, type IdentityDatabase, type ListQuery } from "./records.ts";
import type { Project } from "./schema.ts";

/** Which tags projects must have or must not have; all that is given must hold. */
export type TagFilter = {
  readonly all?: readonly string[];
  readonly any?: readonly string[];
  /** Not all of these together. */
  readonly notAll?: readonly string[];
  /** None of these. */
  readonly notAny?: readonly string[];
};

const withAny = (tags: readonly string[]): RawBuilder<unknown> =>
  sql`(SELECT project_id FROM project_tags WHERE name IN (${sql.join([...tags])}))`;

const withAll = (tags: readonly string[]): RawBuilder<unknown> => {
  const distinct = [...new Set(tags)];
  return sql`(SELECT project_id FROM project_tags WHERE name IN (${sql.join(distinct)})
    GROUP BY project_id HAVING COUNT(*) = ${sql.lit(distinct.length)})`;
};

const tagConditions = ({ all, any, notAll, notAny }: TagFilter): RawBuilder<boolean>[] => {
  const conditions: RawBuilder<boolean>[] = [];
  if (all !== undefined) conditions.push(sql<boolean>`id IN ${withAll(all)}`);
  if (any !== undefined) conditions.push(sql<boolean>`id IN ${withAny(any)}`);
  if (notAll !== undefined) conditions.push(sql<boolean>`id NOT IN ${withAll(notAll)}`);
  if (notAny !== undefined) conditions.push(sql<boolean>`id NOT IN ${withAny(notAny)}`);
  return conditions;
};

/** Projects as `query` and `tags` ask for them: `listRecords` with more conditions. An unknown marker is the list's end. */
export const listProjects = async (
  database: IdentityDatabase,
  query: ListQuery,
  tags: TagFilter,
): Promise<Project[]> => {
  const conditions = [...query.conditions.map(conditionSql), ...tagConditions(tags)];
  const { marker, sortColumn } = query;
  const column = sql.ref(sortColumn);
  if (marker !== undefined) {
    const sign = sql.raw(query.descending ? "<" : ">");
    conditions.push(sql`(${column}, id) ${sign} (SELECT ${column}, id FROM projects WHERE id = ${marker})`);
  }
  const where = conditions.length === 0 ? sql`` : sql` WHERE ${sql.join(conditions, sql` AND `)}`;
  const direction = sql.raw(query.descending ? "DESC" : "ASC");
  const rows = sql<Project>`
    SELECT * FROM projects${where} ORDER BY ${column} ${direction}, id ${direction} LIMIT ${query.limit}`;
  return (await rows.execute(database)).rows;
};
