import { type RawBuilder, sql } from "kysely";
import { conditionSql, type IdentityDatabase, type ListQuery, listRows } from "./records.ts";
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
export const listProjects = (database: IdentityDatabase, query: ListQuery, tags: TagFilter): Promise<Project[]> =>
  listRows(database, sql.table("projects"), query, [...query.conditions.map(conditionSql), ...tagConditions(tags)]);
