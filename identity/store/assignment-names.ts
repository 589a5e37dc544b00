import type { Reader } from "./assignments.ts";
import { rolesById } from "./assignments.ts";
import type { Directory } from "./directory.ts";
import { findRecords } from "./records.ts";

type NamedThing = { readonly id: string; readonly name: string };
/** Of a domain, and with its name. */
type NamedInDomain = NamedThing & { readonly domain: NamedThing };

/** What an assignment speaks of, by ids. Sets, since a page names the same things again and again. */
export type NamedIds = {
  readonly users: ReadonlySet<string>;
  readonly groups: ReadonlySet<string>;
  /** Projects and domains. */
  readonly projects: ReadonlySet<string>;
};

export type AssignmentNames = {
  user(id: string): NamedInDomain;
  group(id: string): NamedInDomain;
  project(id: string): NamedInDomain;
  domain(id: string): NamedThing;
  /** Without a domain where the role is of all. */
  role(id: string): NamedThing & { readonly domain?: NamedThing };
};

type Named = { readonly name: string; readonly domainId: string };

/** Rows of this database in one query; who is not there may be in another directory, and is asked for alone. */
const actorsNamed = async (
  { database }: Reader,
  table: "users" | "groups",
  ids: ReadonlySet<string>,
  find: (id: string) => Promise<Named | undefined>,
): Promise<Map<string, Named>> => {
  const rows = await findRecords(database, table, [...ids]);
  const named = new Map<string, Named>(rows.map(({ id, name, domain_id }) => [id, { name, domainId: domain_id }]));
  for (const id of ids) {
    if (named.has(id)) continue;
    const found = await find(id);
    if (found !== undefined) named.set(id, found);
  }
  return named;
};

/** The names of a page of assignments. What is gone has an empty one. */
export const readAssignmentNames = async (
  reader: Reader,
  directory: Pick<Directory, "findUser" | "findGroup">,
  ids: NamedIds,
): Promise<AssignmentNames> => {
  const users = await actorsNamed(reader, "users", ids.users, directory.findUser);
  const groups = await actorsNamed(reader, "groups", ids.groups, directory.findGroup);
  const roles = await rolesById(reader);
  const places = await findRecords(reader.database, "projects", [...ids.projects]);
  const projects = new Map(places.map((row) => [row.id, { name: row.name, domainId: row.domain_id ?? row.id }]));
  const domainIds = new Set(
    [...users.values(), ...groups.values(), ...projects.values()].map(({ domainId }) => domainId),
  );
  for (const { domain_id } of roles.values()) if (domain_id !== null) domainIds.add(domain_id);
  const domains = await findRecords(reader.database, "projects", [...domainIds]);
  const domainNames = new Map([...places, ...domains].map(({ id, name }) => [id, name]));

  const domain = (id: string): NamedThing => ({ id, name: domainNames.get(id) ?? "" });
  const inDomain = (id: string, named: ReadonlyMap<string, Named>): NamedInDomain => {
    const found = named.get(id);
    return { id, name: found?.name ?? "", domain: domain(found?.domainId ?? "") };
  };
  return {
    user: (id) => inDomain(id, users),
    group: (id) => inDomain(id, groups),
    project: (id) => inDomain(id, projects),
    domain,
    role: (id) => {
      const role = roles.get(id);
      const domainId = role?.domain_id ?? null;
      return { id, name: role?.name ?? "", ...(domainId === null ? {} : { domain: domain(domainId) }) };
    },
  };
};
