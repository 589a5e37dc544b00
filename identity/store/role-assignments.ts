import { type RawBuilder, sql } from "kysely";
import {
  type EffectiveAssignment,
  type ExpansionPlace,
  expandGrant,
  type GrantedRole,
  type RoleStep,
} from "../core/assignment-expansion.ts";
import { impliedByRoleIds, impliedSteps } from "../core/roles.ts";
import { ancestorsOf, implicationsOf, type Reader, rolesById } from "./assignments.ts";
import { grantOfRow, grantRow } from "./grants.ts";
import type { IdentityDatabase } from "./records.ts";
import type { AssignmentTable } from "./schema.ts";

/** Which grants are asked for. */
export type AssignmentFilter = {
  readonly userId?: string | undefined;
  readonly groupId?: string | undefined;
  readonly roleId?: string | undefined;
  readonly projectId?: string | undefined;
  /** With `projectId`: on the projects beneath it too. */
  readonly withSubtree?: boolean;
  readonly domainId?: string | undefined;
  readonly isSystem?: boolean;
  readonly inherited?: boolean | undefined;
  /** Only what is on this domain and its projects, whatever else is asked for. */
  readonly confinedTo?: string | undefined;
};

export type Page<Place> = { readonly limit: number; readonly after: Place | undefined };

/** Where a list of effective assignments goes on: the grant, and the place among what it amounts to. */
export type EffectivePlace = { readonly grant: GrantedRole; readonly within: ExpansionPlace };

/** Members of groups and projects of domains, from the drivers that have them. */
export type MembershipSource = {
  groupIdsOf(userId: string): Promise<readonly string[]>;
  /** Each group's members; a group without any may be left out. */
  membersOf(groupIds: readonly string[]): Promise<ReadonlyMap<string, readonly string[]>>;
};

const IDS_PER_QUERY = 500;
/** Grants that are read at a time: few at first, since one can fill a page. */
const FIRST_BATCH = 32;
const BATCH_MAX = 512;

const KEY = sql`actor_kind, actor_id, target_kind, target_id, role_id, inherited`;

const keyOf = (grant: GrantedRole): RawBuilder<unknown> => {
  const row = grantRow(grant);
  return sql`(${row.actor_kind}, ${row.actor_id}, ${row.target_kind}, ${row.target_id}, ${row.role_id}, ${row.inherited})`;
};

/** The ids of a project and those beneath it. */
const subtreeSql = (id: string): RawBuilder<unknown> => sql`
  (WITH RECURSIVE tree (id) AS (
    SELECT id FROM projects WHERE id = ${id}
    UNION SELECT p.id FROM projects p JOIN tree ON tree.id = p.parent_id)
  SELECT id FROM tree)`;

type Range = { readonly from: GrantedRole | undefined; readonly isInclusive: boolean; readonly limit: number };

/** Grants in the order of their key, which is that of the table's index. */
const readGrants = async (
  database: IdentityDatabase,
  conditions: readonly RawBuilder<unknown>[],
  { from, isInclusive, limit }: Range,
): Promise<GrantedRole[]> => {
  const sign = sql.raw(isInclusive ? ">=" : ">");
  const all = from === undefined ? conditions : [...conditions, sql`(${KEY}) ${sign} ${keyOf(from)}`];
  const where = all.length === 0 ? sql`` : sql`WHERE ${sql.join(all, sql` AND `)}`;
  const rows = sql<AssignmentTable>`SELECT ${KEY} FROM assignments ${where} ORDER BY ${KEY} LIMIT ${limit}`;
  return (await rows.execute(database)).rows.map(grantOfRow);
};

const onDomainSql = (domainId: string): RawBuilder<unknown> => sql`(
  (target_kind <> 'system' AND target_id = ${domainId})
  OR (target_kind = 'project' AND target_id IN (SELECT id FROM projects WHERE domain_id = ${domainId})))`;

const inheritedSql = (inherited: boolean): RawBuilder<unknown> => sql`inherited = ${Number(inherited)}`;

/** Grants as they were made. */
export const listGrants = (
  database: IdentityDatabase,
  filter: AssignmentFilter,
  { limit, after }: Page<GrantedRole>,
): Promise<GrantedRole[]> => {
  const conditions: RawBuilder<unknown>[] = [];
  const { userId, groupId, roleId, projectId, domainId, inherited, confinedTo } = filter;
  if (userId !== undefined) conditions.push(sql`actor_kind = 'user' AND actor_id = ${userId}`);
  if (groupId !== undefined) conditions.push(sql`actor_kind = 'group' AND actor_id = ${groupId}`);
  if (roleId !== undefined) conditions.push(sql`role_id = ${roleId}`);
  if (projectId !== undefined) {
    const ids = filter.withSubtree === true ? subtreeSql(projectId) : sql`(${projectId})`;
    conditions.push(sql`target_kind = 'project' AND target_id IN ${ids}`);
  }
  if (domainId !== undefined) conditions.push(sql`target_kind = 'domain' AND target_id = ${domainId}`);
  if (filter.isSystem === true) conditions.push(sql`target_kind = 'system'`);
  if (inherited !== undefined) conditions.push(inheritedSql(inherited));
  if (confinedTo !== undefined) conditions.push(onDomainSql(confinedTo));
  return readGrants(database, conditions, { from: after, isInclusive: false, limit });
};

/** Projects beneath each of `roots`, sorted. */
const readBeneath = async (
  database: IdentityDatabase,
  roots: readonly string[],
): Promise<ReadonlyMap<string, readonly string[]>> => {
  const found = new Map<string, string[]>(roots.map((root) => [root, []]));
  for (let start = 0; start < roots.length; start += IDS_PER_QUERY) {
    const rows = sql<{ root: string; id: string }>`
      WITH RECURSIVE below (root, id) AS (
        SELECT parent_id, id FROM projects WHERE parent_id IN (${sql.join(roots.slice(start, start + IDS_PER_QUERY))})
        UNION SELECT below.root, p.id FROM projects p JOIN below ON below.id = p.parent_id)
      SELECT root, id FROM below`;
    for (const { root, id } of (await rows.execute(database)).rows) found.get(root)?.push(id);
  }
  for (const ids of found.values()) ids.sort();
  return found;
};

/** What a project filter leaves of an inherited grant's projects. */
type ProjectScope = {
  /** The project, and with `withSubtree` those beneath it. Sorted. */
  readonly ids: readonly string[];
  /** What stands above the project: whatever is inherited from there holds on all of `ids`. */
  readonly above: ReadonlySet<string>;
};

const projectScopeOf = async (reader: Reader, filter: AssignmentFilter): Promise<ProjectScope | undefined> => {
  const { projectId, withSubtree } = filter;
  if (projectId === undefined) return undefined;
  const above = new Set(await ancestorsOf(reader, projectId));
  if (withSubtree !== true) return { ids: [projectId], above };
  const beneath = (await readBeneath(reader.database, [projectId])).get(projectId) ?? [];
  return { ids: [...beneath, projectId].sort(), above };
};

/** What a role gives: itself and what it implies, without roles of a single domain, which stand in no token. */
const roleStepsOf = async (reader: Reader, wanted: string | undefined): Promise<(roleId: string) => RoleStep[]> => {
  const implications = await implicationsOf(reader);
  const roles = await rolesById(reader);
  const isShown = ({ roleId }: RoleStep): boolean =>
    roles.get(roleId)?.domain_id === null && (wanted === undefined || wanted === roleId);
  const known = new Map<string, RoleStep[]>();
  return (roleId) => {
    const steps = known.get(roleId);
    if (steps !== undefined) return steps;
    const implied = impliedSteps(roleId, implications).map((step) => ({
      roleId: step.impliedId,
      priorRoleId: step.priorId,
    }));
    const made = [{ roleId, priorRoleId: undefined }, ...implied].filter(isShown);
    known.set(roleId, made);
    return made;
  };
};

const targetCondition = (filter: AssignmentFilter, scope: ProjectScope | undefined): RawBuilder<unknown>[] => {
  const { inherited, domainId, projectId } = filter;
  if (filter.isSystem === true) return [sql`target_kind = 'system'`];
  if (domainId !== undefined) return [sql`target_kind = 'domain' AND target_id = ${domainId} AND inherited = 0`];
  if (projectId === undefined || scope === undefined) return [];
  const withSubtree = filter.withSubtree === true;
  const own = withSubtree ? subtreeSql(projectId) : sql`(${projectId})`;
  const alternatives: RawBuilder<unknown>[] = [];
  if (inherited !== true) alternatives.push(sql`(target_kind = 'project' AND inherited = 0 AND target_id IN ${own})`);
  if (inherited !== false) {
    const from: RawBuilder<unknown>[] = withSubtree ? [sql`target_id IN ${own}`] : [];
    if (scope.above.size > 0) from.push(sql`target_id IN (${sql.join([...scope.above])})`);
    if (from.length > 0) {
      alternatives.push(sql`(target_kind <> 'system' AND inherited = 1 AND (${sql.join(from, sql` OR `)}))`);
    }
  }
  return [alternatives.length === 0 ? sql`1 = 0` : sql`(${sql.join(alternatives, sql` OR `)})`];
};

const actorCondition = async (
  userId: string | undefined,
  memberships: MembershipSource,
): Promise<RawBuilder<unknown>[]> => {
  if (userId === undefined) return [];
  const own = sql`(actor_kind = 'user' AND actor_id = ${userId})`;
  const groupIds = await memberships.groupIdsOf(userId);
  if (groupIds.length === 0) return [own];
  return [sql`(${own} OR (actor_kind = 'group' AND actor_id IN (${sql.join([...groupIds])})))`];
};

/**
 * The roles that users have, with what comes through groups, from above and by implication; those on the system too, which Keystone leaves
 * out. Requires: no `groupId`, which nothing would fit. One query for a batch of grants, one for their groups, one for their projects.
 */
export const listEffective = async (
  reader: Reader,
  memberships: MembershipSource,
  filter: AssignmentFilter,
  { limit, after }: Page<EffectivePlace>,
): Promise<(EffectiveAssignment & { readonly step: number })[]> => {
  const { database } = reader;
  const { userId, roleId, inherited, confinedTo } = filter;
  const scope = await projectScopeOf(reader, filter);
  const rolesOf = await roleStepsOf(reader, roleId);
  const conditions = [...targetCondition(filter, scope), ...(await actorCondition(userId, memberships))];
  if (inherited !== undefined) conditions.push(inheritedSql(inherited));
  if (confinedTo !== undefined) conditions.push(onDomainSql(confinedTo));
  if (roleId !== undefined) {
    const giving = impliedByRoleIds([roleId], await implicationsOf(reader));
    conditions.push(sql`role_id IN (${sql.join([...giving])})`);
  }

  const members = new Map<string, readonly string[]>();
  const beneath = new Map<string, readonly string[]>();
  /** Reads what the batch needs and is not known yet. */
  const prepare = async (batch: readonly GrantedRole[]): Promise<void> => {
    const groups = batch.filter(({ actorKind }) => actorKind === "group").map(({ actorId }) => actorId);
    const newGroups = userId === undefined ? [...new Set(groups)].filter((id) => !members.has(id)) : [];
    if (newGroups.length > 0) {
      const read = await memberships.membersOf(newGroups);
      for (const id of newGroups) members.set(id, read.get(id) ?? []);
    }
    const roots = batch.filter((grant) => grant.inherited && scope?.above.has(grant.targetId) !== true);
    const newRoots = [...new Set(roots.map(({ targetId }) => targetId))].filter((id) => !beneath.has(id));
    if (newRoots.length > 0) for (const [id, ids] of await readBeneath(database, newRoots)) beneath.set(id, ids);
  };
  const sources = {
    usersOf: ({ actorKind, actorId }: GrantedRole): readonly string[] => {
      if (actorKind === "user") return [actorId];
      return userId === undefined ? (members.get(actorId) ?? []) : [userId];
    },
    // What is inherited from within the filter's subtree holds only on projects of it.
    projectsOf: ({ targetId }: GrantedRole): readonly string[] =>
      scope?.above.has(targetId) === true ? scope.ids : (beneath.get(targetId) ?? []),
    rolesOf,
  };

  const found: (EffectiveAssignment & { readonly step: number })[] = [];
  let range: Range = { from: after?.grant, isInclusive: true, limit: FIRST_BATCH };
  let within = after;
  for (;;) {
    const batch = await readGrants(database, conditions, range);
    await prepare(batch);
    for (const grant of batch) {
      const place = within !== undefined && isSame(within.grant, grant) ? within.within : undefined;
      for (const item of expandGrant(grant, sources, place)) {
        found.push(item);
        if (found.length === limit) return found;
      }
    }
    if (batch.length < range.limit) return found;
    within = undefined;
    range = { from: batch.at(-1), isInclusive: false, limit: Math.min(range.limit * 4, BATCH_MAX) };
  }
};

const isSame = (left: GrantedRole, right: GrantedRole): boolean =>
  left.actorKind === right.actorKind &&
  left.actorId === right.actorId &&
  left.targetKind === right.targetKind &&
  left.targetId === right.targetId &&
  left.roleId === right.roleId &&
  left.inherited === right.inherited;
