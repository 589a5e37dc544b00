import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { openSqlite } from "../common/sql/sqlite.ts";
import type { IdentityDatabase } from "../identity/store/records.ts";
import type { AssignmentTable, IdentitySchema } from "../identity/store/schema.ts";
import { ADMIN_SCOPE, ADMIN_USER, createTestClient, listAt, tokenOf } from "../identity/test-client.ts";
import { createTestInstallation } from "../identity/test-service.ts";

/*
 * How long a page of 1,000 takes where there are 10,000 users, 10,000 projects on three levels, and 500 groups. By hand:
 *
 *   node bench/identity-lists.ts
 *
 * Each page is asked for over HTTP, right after a write, so that nothing is remembered from the page before.
 */

const DOMAINS = 10;
const USERS_PER_DOMAIN = 1_000;
/** Each with nine beneath it, and each of those with ten. */
const TOPS_PER_DOMAIN = 10;
const GROUPS_PER_DOMAIN = 50;
const MEMBERS_PER_GROUP = 20;
const PAGE = 1_000;
const ROUNDS = 15;
/** Parameters of one statement stay far below what databases take. */
const ROWS_PER_INSERT = 400;

const numbers = (count: number): number[] => Array.from({ length: count }, (_, index) => index);
const JSON_TEXTS = { options: "{}", extra: "{}" };

const inSlices = async <Row>(rows: readonly Row[], insert: (slice: Row[]) => Promise<unknown>): Promise<void> => {
  for (let start = 0; start < rows.length; start += ROWS_PER_INSERT) {
    await insert(rows.slice(start, start + ROWS_PER_INSERT));
  }
};

type ProjectRow = { id: string; parent_id: string; name: string };

/** Three levels beneath a domain. */
const projectsOf = (domain: string): ProjectRow[] =>
  numbers(TOPS_PER_DOMAIN).flatMap((top) => {
    const topId = `${domain}-p${top}`;
    const middles = numbers(9).flatMap((middle) => {
      const middleId = `${topId}-${middle}`;
      const leaves = numbers(10).map((leaf) => ({ id: `${middleId}-${leaf}`, parent_id: middleId }));
      return [{ id: middleId, parent_id: topId }, ...leaves];
    });
    return [{ id: topId, parent_id: domain }, ...middles].map((row) => ({ ...row, name: `project ${row.id}` }));
  });

type Roles = { readonly member: string; readonly reader: string };

/** A role for each user, one for each group on a top project and all beneath, and one for a group on all of the domain. */
const grantsOf = (domain: string, projects: readonly ProjectRow[], roles: Roles): AssignmentTable[] => {
  const users = numbers(USERS_PER_DOMAIN).map((user): AssignmentTable => {
    const target_id = projects[user % projects.length]?.id ?? domain;
    const target = { target_kind: "project", target_id } as const;
    return { actor_kind: "user", actor_id: `${domain}-u${user}`, ...target, role_id: roles.member, inherited: 0 };
  });
  const groups = numbers(GROUPS_PER_DOMAIN).map((group): AssignmentTable => {
    const target_id = `${domain}-p${group % TOPS_PER_DOMAIN}`;
    const target = { target_kind: "project", target_id } as const;
    return { actor_kind: "group", actor_id: `${domain}-g${group}`, ...target, role_id: roles.member, inherited: 1 };
  });
  const whole = { target_kind: "domain", target_id: domain, role_id: roles.reader, inherited: 1 } as const;
  return [...users, ...groups, { actor_kind: "group", actor_id: `${domain}-g0`, ...whole }];
};

const fillDomain = async (database: IdentityDatabase, domain: string, roles: Roles): Promise<void> => {
  const place = { description: "", enabled: 1, ...JSON_TEXTS };
  const itself = { id: domain, domain_id: null, parent_id: null, is_domain: 1, name: domain };
  await database
    .insertInto("projects")
    .values({ ...itself, ...place })
    .execute();
  const projects = projectsOf(domain);
  const projectRows = projects.map((row) => ({ ...row, domain_id: domain, is_domain: 0, ...place }));
  await inSlices(projectRows, (slice) => database.insertInto("projects").values(slice).execute());
  const users = numbers(USERS_PER_DOMAIN).map((user) => ({
    id: `${domain}-u${user}`,
    domain_id: domain,
    name: `user ${user}`,
    default_project_id: null,
    enabled: 1,
    ...JSON_TEXTS,
    created_at_ms: 0,
    last_active_at_ms: null,
    failed_login_count: 0,
    failed_login_at_ms: null,
  }));
  await inSlices(users, (slice) => database.insertInto("users").values(slice).execute());
  const passwords = users.map(({ id }) => ({
    user_id: id,
    hash: "none",
    created_at_ms: 0,
    expires_at_ms: null,
    self_service: 0,
  }));
  await inSlices(passwords, (slice) => database.insertInto("passwords").values(slice).execute());
  const groups = numbers(GROUPS_PER_DOMAIN).map((group) => ({
    id: `${domain}-g${group}`,
    domain_id: domain,
    name: `group ${group}`,
    description: "",
    extra: "{}",
  }));
  await database.insertInto("groups").values(groups).execute();
  const members = groups.flatMap(({ id }, group) =>
    numbers(MEMBERS_PER_GROUP).map((member) => ({
      group_id: id,
      user_id: `${domain}-u${(group * MEMBERS_PER_GROUP + member) % USERS_PER_DOMAIN}`,
      expires_at_ms: null,
    })),
  );
  await inSlices(members, (slice) => database.insertInto("group_members").values(slice).execute());
  const grants = grantsOf(domain, projects, roles);
  await inSlices(grants, (slice) => database.insertInto("assignments").values(slice).execute());
};

const fill = async (path: string): Promise<void> => {
  await using cleanup = new AsyncDisposableStack();
  const database = openSqlite<IdentitySchema>(path);
  cleanup.defer(() => database.destroy());
  await database.transaction().execute(async (transaction) => {
    const rows = await transaction.selectFrom("roles").select(["id", "name"]).execute();
    const idOf = (name: string) => rows.find((role) => role.name === name)?.id ?? "";
    const roles = { member: idOf("member"), reader: idOf("reader") };
    for (const domain of numbers(DOMAINS)) await fillDomain(transaction, `d${domain}`, roles);
  });
};

const LISTS = [
  ["users", "/v3/users?"],
  ["users", "/v3/users?sort_key=name&"],
  ["projects", "/v3/projects?"],
  ["groups", "/v3/groups?"],
  ["role_assignments", "/v3/role_assignments?include_names&"],
  ["role_assignments", "/v3/role_assignments?effective&"],
  ["role_assignments", "/v3/role_assignments?effective&include_names&"],
  ["role_assignments", "/v3/role_assignments?effective&include_names&scope.project.id=d3-p3&include_subtree&"],
] as const;

const measure = async (): Promise<void> => {
  await using installation = createTestInstallation();
  await installation.start();
  await installation.stop();
  await fill(join(installation.paths.identityDir, "identity.db"));
  const { port } = await installation.start();
  const { call, login } = createTestClient(() => `http://127.0.0.1:${port}`);
  const token = tokenOf(await login(ADMIN_USER, ADMIN_SCOPE));
  const region = { description: "" };
  console.log(`a page of ${PAGE}, ms: median and worst of ${ROUNDS}, first page and third`);
  for (const [plural, path] of LISTS) {
    let at = `${path}limit=${PAGE}`;
    for (const page of [1, 2, 3]) {
      const taken: number[] = [];
      let count = 0;
      let next: unknown;
      for (let round = 0; round < ROUNDS; round += 1) {
        region.description = `${page} ${round}`;
        await call("PATCH", "/v3/regions/RegionOne", { token, body: { region } });
        const startMs = performance.now();
        const answer = await call("GET", at, { token });
        taken.push(performance.now() - startMs);
        count = listAt(answer, plural).length;
        next = answer.body["links"] === undefined ? undefined : Reflect.get(Object(answer.body["links"]), "next");
      }
      taken.sort((left, right) => left - right);
      const [median, worst] = [taken[ROUNDS >> 1] ?? 0, taken.at(-1) ?? 0];
      if (page !== 2) console.log(`${path} page ${page}: ${median.toFixed(1)} ${worst.toFixed(1)} (${count} items)`);
      if (typeof next !== "string") break;
      at = next.slice(next.indexOf("/v3/"));
    }
  }
};

await measure();
