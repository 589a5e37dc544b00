import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { silentLog } from "../../common/log.ts";
import { openDatabase } from "../../common/sql/database.ts";
import { runMigrations } from "../../common/sql/migrations.ts";
import { PostgresFixture, whyNoPostgres } from "../../common/sql/postgres-fixture.ts";
import { openSqlite } from "../../common/sql/sqlite.ts";
import type { GrantedRole } from "../core/assignment-expansion.ts";
import { domainsOfUser, effectiveRoles, projectsOfUser } from "./assignments.ts";
import { grantRow } from "./grants.ts";
import { createMembershipSource } from "./memberships.ts";
import { IDENTITY_MIGRATIONS } from "./migrations.ts";
import { ReadCache } from "./read-cache.ts";
import type { IdentityDatabase } from "./records.ts";
import { type AssignmentFilter, type EffectivePlace, listEffective, listGrants } from "./role-assignments.ts";
import type { IdentitySchema } from "./schema.ts";

type Place = {
  readonly id: string;
  readonly parent: string | null;
  readonly domain: string;
  readonly enabled: boolean;
};
type World = {
  /** Domains first, each project behind what it is beneath. */
  readonly places: readonly Place[];
  readonly members: ReadonlyMap<string, readonly string[]>;
  /** Domain by role. */
  readonly roles: ReadonlyMap<string, string | null>;
  readonly implications: readonly (readonly [prior: string, implied: string])[];
  readonly grants: readonly GrantedRole[];
};
/** What a user has somewhere, and whence. */
type Held = {
  readonly user: string;
  readonly kind: string;
  readonly target: string;
  readonly role: string;
  readonly prior: string | undefined;
  readonly grant: GrantedRole;
};

const DOMAINS = ["d0", "d1"];
const USERS = ["u0", "u1", "u2"];
const GROUPS = ["g0", "g1"];
const ROLES = ["r0", "r1", "r2", "r3"];
const PROJECTS = ["p0", "p1", "p2", "p3", "p4"];

const worlds: fc.Arbitrary<World> = fc
  .record({
    domainsEnabled: fc.array(fc.boolean(), { minLength: 2, maxLength: 2 }),
    // A number that chooses among what is there already.
    parents: fc.array(fc.nat(), { minLength: PROJECTS.length, maxLength: PROJECTS.length }),
    enabled: fc.array(fc.boolean(), { minLength: PROJECTS.length, maxLength: PROJECTS.length }),
    members: fc.array(fc.subarray(USERS), { minLength: 2, maxLength: 2 }),
    roleDomains: fc.array(fc.constantFrom(null, null, "d0"), { minLength: ROLES.length, maxLength: ROLES.length }),
    implications: fc.uniqueArray(fc.tuple(fc.constantFrom(...ROLES), fc.constantFrom(...ROLES)), {
      maxLength: 5,
      selector: (pair) => pair.join(),
    }),
    grants: fc.uniqueArray(
      fc.record({
        actorId: fc.constantFrom(...USERS, ...GROUPS),
        target: fc.constantFrom(...DOMAINS, ...PROJECTS, "all"),
        roleId: fc.constantFrom(...ROLES),
        inherited: fc.boolean(),
      }),
      { minLength: 4, maxLength: 16, selector: (grant) => Object.values(grant).join() },
    ),
  })
  .map(({ domainsEnabled, parents, enabled, members, roleDomains, implications, grants }) => {
    const places: Place[] = DOMAINS.map((id, index) => ({
      id,
      parent: null,
      domain: id,
      enabled: domainsEnabled[index] === true,
    }));
    for (const [index, id] of PROJECTS.entries()) {
      const parent = places[(parents[index] ?? 0) % places.length];
      if (parent === undefined) throw new Error("a project without a parent");
      places.push({ id, parent: parent.id, domain: parent.domain, enabled: enabled[index] === true });
    }
    const kindOf = (target: string) =>
      target === "all" ? "system" : DOMAINS.includes(target) ? ("domain" as const) : ("project" as const);
    return {
      places,
      members: new Map(GROUPS.map((id, index) => [id, members[index] ?? []])),
      roles: new Map(ROLES.map((id, index) => [id, roleDomains[index] ?? null])),
      implications,
      grants: grants
        .filter(({ target, inherited }) => !(inherited && target === "all"))
        .map(({ actorId, target, roleId, inherited }) => ({
          actorKind: USERS.includes(actorId) ? "user" : "group",
          actorId,
          targetKind: kindOf(target),
          targetId: target,
          roleId,
          inherited,
        })),
    };
  });

/** Everything at once and without an index: what the queries must come to. */
const heldIn = ({ places, members, roles, implications, grants }: World): Held[] => {
  const above = (id: string | null): string[] => {
    const place = places.find((other) => other.id === id);
    return place === undefined ? [] : [place.id, ...above(place.parent)];
  };
  const implies = (role: string, seen: readonly string[]): string[] =>
    seen.includes(role)
      ? []
      : [
          role,
          ...implications.filter(([prior]) => prior === role).flatMap(([, next]) => implies(next, [...seen, role])),
        ];
  return grants.flatMap((grant) => {
    const users = grant.actorKind === "user" ? [grant.actorId] : (members.get(grant.actorId) ?? []);
    const beneath = places.filter(({ parent }) => above(parent).includes(grant.targetId)).map(({ id }) => id);
    const targets = grant.inherited ? beneath : [grant.targetId];
    const kind = grant.inherited ? "project" : grant.targetKind;
    const reached = new Set(implies(grant.roleId, []));
    const steps = [
      { role: grant.roleId, prior: undefined },
      ...implications.filter(([prior]) => reached.has(prior)).map(([prior, role]) => ({ role, prior })),
    ].filter(({ role }) => roles.get(role) === null);
    return users.flatMap((user) =>
      targets.flatMap((target) => steps.map((step) => ({ user, kind, target, ...step, grant }))),
    );
  });
};

/** Seldom: filters that all stand together leave nothing to compare. */
const seldom = <Value>(arbitrary: fc.Arbitrary<Value>) =>
  fc.oneof({ weight: 3, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary });

const scopes: fc.Arbitrary<AssignmentFilter> = fc.oneof(
  fc.constant({}),
  fc.record({ projectId: fc.constantFrom(...PROJECTS), withSubtree: fc.boolean() }),
  fc.record({ projectId: fc.constantFrom(...PROJECTS), withSubtree: fc.boolean() }),
  fc.record({ domainId: fc.constantFrom(...DOMAINS) }),
  fc.constant({ isSystem: true }),
);

const filters: fc.Arbitrary<AssignmentFilter> = fc
  .tuple(
    scopes,
    fc.record({
      userId: seldom(fc.constantFrom(...USERS)),
      roleId: seldom(fc.constantFrom(...ROLES)),
      inherited: seldom(fc.boolean()),
      confinedTo: seldom(fc.constantFrom(...DOMAINS)),
    }),
  )
  .map(([scope, rest]) => ({ ...rest, ...scope }));

const isWanted = (held: Held, filter: AssignmentFilter, { places }: World): boolean => {
  const { userId, roleId, inherited, projectId, domainId, confinedTo } = filter;
  const within = (id: string | undefined): boolean =>
    id !== undefined &&
    (id === projectId ||
      (filter.withSubtree === true && within(places.find((place) => place.id === id)?.parent ?? undefined)));
  const domain = places.find(({ id }) => id === held.target)?.domain;
  return (
    (userId === undefined || held.user === userId) &&
    (roleId === undefined || held.role === roleId) &&
    (inherited === undefined || held.grant.inherited === inherited) &&
    (projectId === undefined || (held.kind === "project" && within(held.target))) &&
    (domainId === undefined || (held.kind === "domain" && held.target === domainId)) &&
    (filter.isSystem !== true || held.kind === "system") &&
    (confinedTo === undefined || domain === confinedTo)
  );
};

const textOf = ({ user, kind, target, role, prior, grant }: Held): string =>
  JSON.stringify([user, kind, target, role, prior ?? null, grantRow(grant)]);

const TABLES = ["assignments", "role_implications", "roles", "group_members", "groups", "users"] as const;

const fill = async (database: IdentityDatabase, world: World): Promise<void> => {
  for (const table of TABLES) await database.deleteFrom(table).execute();
  for (const id of [...PROJECTS].toReversed())
    await database.updateTable("projects").set({ parent_id: null }).where("id", "=", id).execute();
  await database.deleteFrom("projects").where("is_domain", "=", 0).execute();
  await database.deleteFrom("projects").execute();
  for (const { id, parent, domain, enabled } of world.places) {
    const isDomain = parent === null;
    const place = { id, name: id, parent_id: parent, domain_id: isDomain ? null : domain, is_domain: Number(isDomain) };
    const row = { ...place, description: "", enabled: Number(enabled), options: "{}", extra: "{}" };
    await database.insertInto("projects").values(row).execute();
  }
  for (const id of GROUPS) {
    await database
      .insertInto("groups")
      .values({ id, domain_id: "d0", name: id, description: "", extra: "{}" })
      .execute();
  }
  for (const [group_id, users] of world.members) {
    for (const user_id of users) {
      await database.insertInto("group_members").values({ group_id, user_id, expires_at_ms: null }).execute();
    }
  }
  for (const [id, domain_id] of world.roles) {
    const row = { id, name: id, domain_id, description: null, options: "{}", extra: "{}" };
    await database.insertInto("roles").values(row).execute();
  }
  for (const [prior_role_id, implied_role_id] of world.implications) {
    await database.insertInto("role_implications").values({ prior_role_id, implied_role_id }).execute();
  }
  for (const grant of world.grants) await database.insertInto("assignments").values(grantRow(grant)).execute();
};

const groupsOf = (world: World, user: string): string[] =>
  GROUPS.filter((id) => world.members.get(id)?.includes(user) === true);

const readerOf = (database: IdentityDatabase) => ({ database, cache: new ReadCache() });

const comparesEffective = async (
  database: IdentityDatabase,
  world: World,
  filter: AssignmentFilter,
  limit: number,
): Promise<void> => {
  await fill(database, world);
  const memberships = createMembershipSource({
    database,
    directory: { groupIdsOf: (user) => Promise.resolve(groupsOf(world, user)), userIdsIn: () => Promise.resolve([]) },
    clock: { nowMs: () => 0 },
  });
  const found: string[] = [];
  let after: EffectivePlace | undefined;
  for (;;) {
    const page = await listEffective(readerOf(database), memberships, filter, { limit, after });
    for (const { userId, targetKind, targetId, roleId, priorRoleId, grant } of page) {
      found.push(textOf({ user: userId, kind: targetKind, target: targetId, role: roleId, prior: priorRoleId, grant }));
    }
    const last = page.at(-1);
    if (page.length < limit || last === undefined) break;
    after = { grant: last.grant, within: last };
  }
  const wanted = heldIn(world).filter((held) => isWanted(held, filter, world));
  expect(found.toSorted()).toEqual(wanted.map(textOf).toSorted());
};

const comparesScopes = async (database: IdentityDatabase, world: World): Promise<void> => {
  await fill(database, world);
  const held = heldIn(world);
  const isEnabled = (id: string | undefined) => world.places.find((place) => place.id === id)?.enabled === true;
  for (const user of USERS) {
    const actor = { userId: user, groupIds: groupsOf(world, user) };
    const on = (kind: string, { id }: Place) =>
      held.filter((one) => one.user === user && one.kind === kind && one.target === id).map(({ role }) => role);
    const reader = readerOf(database);
    const open = world.places.filter(({ id, domain }) => isEnabled(id) && isEnabled(domain));
    const projects = open.filter((place) => place.parent !== null && on("project", place).length > 0);
    const domains = open.filter((place) => place.parent === null && on("domain", place).length > 0);
    const ids = (rows: readonly { id: string }[]) => rows.map(({ id }) => id).toSorted();
    expect(ids(await projectsOfUser(reader, actor))).toEqual(ids(projects));
    expect(ids(await domainsOfUser(reader, actor))).toEqual(ids(domains));
    for (const place of world.places) {
      const kind = place.parent === null ? "domain" : "project";
      const roles = await effectiveRoles(reader, actor, { kind, id: place.id });
      expect(ids(roles)).toEqual([...new Set(on(kind, place))].toSorted());
    }
  }
};

const comparesGrants = async (database: IdentityDatabase, world: World, limit: number): Promise<void> => {
  await fill(database, world);
  const found: GrantedRole[] = [];
  for (let after: GrantedRole | undefined; ; ) {
    const page = await listGrants(database, {}, { limit, after });
    found.push(...page);
    if (page.length < limit) break;
    after = page.at(-1);
  }
  const keys = (grants: readonly GrantedRole[]) => grants.map((grant) => JSON.stringify(grantRow(grant))).toSorted();
  expect(keys(found)).toEqual(keys(world.grants));
};

/** A PostgreSQL server of its own is made first, on a machine that runs other tests too. */
const DATABASE_START_LIMIT_MS = 60_000;

const onDatabase = (open: () => Promise<IdentityDatabase>, numRuns: number): void => {
  let database: IdentityDatabase;

  beforeAll(async () => {
    database = await open();
    await runMigrations(database, IDENTITY_MIGRATIONS, 0);
  }, DATABASE_START_LIMIT_MS);

  afterAll(() => database.destroy());

  test("a list of effective assignments, page by page, is what every grant comes to, once each", async () => {
    const property = fc.asyncProperty(worlds, filters, fc.integer({ min: 1, max: 9 }), (world, filter, limit) =>
      comparesEffective(database, world, filter, limit),
    );
    await fc.assert(property, { numRuns });
  });

  test("the projects, domains and roles that a user has a right on are those of the list", async () => {
    await fc.assert(
      fc.asyncProperty(worlds, (world) => comparesScopes(database, world)),
      { numRuns },
    );
  });

  test("a list of grants, page by page, has each once", async () => {
    const property = fc.asyncProperty(worlds, fc.integer({ min: 1, max: 5 }), (world, limit) =>
      comparesGrants(database, world, limit),
    );
    await fc.assert(property, { numRuns: Math.ceil(numRuns / 4) });
  });
};

describe("assignments on SQLite", () => {
  onDatabase(() => Promise.resolve(openSqlite<IdentitySchema>(":memory:")), 200);
});

const reason = whyNoPostgres();

describe.skipIf(reason !== undefined)(`assignments on PostgreSQL${reason === undefined ? "" : ` (${reason})`}`, () => {
  let postgres: PostgresFixture;

  afterAll(() => postgres[Symbol.asyncDispose]());

  onDatabase(async () => {
    postgres = await PostgresFixture.start();
    const options = { server: postgres.server(), namespace: "identity", sqlitePath: "", log: silentLog };
    return openDatabase<IdentitySchema>(options);
  }, 15);
});
