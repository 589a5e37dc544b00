import { sql } from "kysely";
import type { IdentityDatabase } from "./records.ts";
import type { Project } from "./schema.ts";

/** Ends a walk through rows that lead back to where they came from; no tree is that deep. */
const DEPTH_MAX = 100;

/** The projects above a project, the nearest first, its domain last. */
export const projectsAbove = async (database: IdentityDatabase, id: string): Promise<Project[]> => {
  const rows = sql<Project>`
    WITH RECURSIVE above (id, parent_id, depth) AS (
      SELECT id, parent_id, 0 FROM projects WHERE id = ${id}
      UNION ALL SELECT p.id, p.parent_id, above.depth + 1 FROM projects p JOIN above ON p.id = above.parent_id
        WHERE above.depth < ${sql.lit(DEPTH_MAX)})
    SELECT p.* FROM above JOIN projects p ON p.id = above.id WHERE above.depth > 0 ORDER BY above.depth`;
  return (await rows.execute(database)).rows;
};

/** The projects below a project or domain, each after the one above it. */
export const projectsBelow = async (database: IdentityDatabase, id: string): Promise<Project[]> => {
  const rows = sql<Project>`
    WITH RECURSIVE below (id, depth) AS (
      SELECT id, 1 FROM projects WHERE parent_id = ${id}
      UNION ALL SELECT p.id, below.depth + 1 FROM projects p JOIN below ON p.parent_id = below.id
        WHERE below.depth < ${sql.lit(DEPTH_MAX)})
    SELECT p.* FROM below JOIN projects p ON p.id = below.id ORDER BY below.depth, p.id`;
  return (await rows.execute(database)).rows;
};

/** A chain or tree of ids: each id has what lies beyond it, null at the end. */
export type IdTree = { [id: string]: IdTree | null };

/** Ids upwards: `{ parent: { grandparent: { domain: null } } }`. `above` as `projectsAbove` gives it. */
export const parentIds = (above: readonly Pick<Project, "id">[]): IdTree | null => {
  let tree: IdTree | null = null;
  for (const { id } of above.toReversed()) tree = { [id]: tree };
  return tree;
};

/** Ids downwards from `id`. `below` as `projectsBelow` gives it. */
export const subtreeIds = (id: string, below: readonly Pick<Project, "id" | "parent_id">[]): IdTree | null => {
  const children = Map.groupBy(below, ({ parent_id }) => parent_id);
  const treeOf = (parent: string): IdTree | null => {
    const found = children.get(parent);
    return found === undefined ? null : Object.fromEntries(found.map((child) => [child.id, treeOf(child.id)]));
  };
  return treeOf(id);
};
