import type { DomainReference, Reference } from "../core/authentication-request.ts";
import { identityError } from "../core/identity-error.ts";
import type { Reader } from "../store/assignments.ts";
import type { Directory, DirectoryUser } from "../store/directory.ts";
import type { Project } from "../store/schema.ts";

const NAME_MAX = 255;

const memberOf = (value: unknown, name: string): unknown =>
  typeof value === "object" && value !== null && Object.hasOwn(value, name)
    ? (value as Readonly<Record<string, unknown>>)[name]
    : undefined;

/** The text under `name`, undefined where it is absent. Throws `bad-request` for anything but a text of a name's length. */
export const textOf = (value: unknown, name: string, what: string, max: number = NAME_MAX): string | undefined => {
  const given = memberOf(value, name);
  if (given === undefined || given === null) return undefined;
  if (typeof given === "string" && given.length <= max) return given;
  throw identityError(
    "bad-request",
    `Invalid input for field '${what}/${name}': not a text of up to ${max} characters`,
  );
};

const badRequest = (message: string) => identityError("bad-request", message);

export const domainReference = (value: unknown, what: string): DomainReference => {
  const id = textOf(value, "id", what);
  if (id !== undefined) return { id };
  const name = textOf(value, "name", what);
  if (name !== undefined) return { name };
  throw badRequest(`Expecting to find domain in ${what}.`);
};

/** `{id}` or `{name, domain}`. Throws `bad-request`. */
export const reference = (value: unknown, what: string): Reference => {
  const id = textOf(value, "id", what);
  if (id !== undefined) return { id };
  const name = textOf(value, "name", what);
  if (name === undefined) throw badRequest(`Expecting to find id or name in ${what}.`);
  return { name, domain: domainReference(memberOf(value, "domain"), what) };
};

/** The member `name` of a method's payload. Throws `bad-request` where it is absent. */
export const requiredMember = (value: unknown, name: string, what: string): unknown => {
  const given = memberOf(value, name);
  if (given === undefined) throw badRequest(`Expecting to find ${name} in ${what}.`);
  return given;
};

/** A project or domain by id. */
const findProject = ({ database, cache }: Reader, id: string): Promise<Project | undefined> =>
  cache.get(`project ${id}`, () => database.selectFrom("projects").selectAll().where("id", "=", id).executeTakeFirst());

export const findDomain = async (reader: Reader, named: DomainReference): Promise<Project | undefined> => {
  if ("id" in named) {
    const project = await findProject(reader, named.id);
    return project?.is_domain === 1 ? project : undefined;
  }
  return reader.cache.get(`domain named ${named.name}`, () =>
    reader.database
      .selectFrom("projects")
      .selectAll()
      .where("is_domain", "=", 1)
      .where("name", "=", named.name)
      .executeTakeFirst(),
  );
};

/** The user who is named, enabled or not. */
export const findUser = async (
  reader: Reader,
  directory: Directory,
  named: Reference,
): Promise<DirectoryUser | undefined> => {
  if ("id" in named) return directory.findUser(named.id);
  const domain = await findDomain(reader, named.domain);
  return domain && directory.findUserByName(domain.id, named.name);
};

/** The project who is named, a domain by its id too, enabled or not. */
export const findProjectNamed = async (reader: Reader, named: Reference): Promise<Project | undefined> => {
  if ("id" in named) return findProject(reader, named.id);
  const domain = await findDomain(reader, named.domain);
  if (domain === undefined) return undefined;
  return reader.cache.get(`project named ${domain.id} ${named.name}`, () =>
    reader.database
      .selectFrom("projects")
      .selectAll()
      .where("is_domain", "=", 0)
      .where("domain_id", "=", domain.id)
      .where("name", "=", named.name)
      .executeTakeFirst(),
  );
};
