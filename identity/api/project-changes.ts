import { identityError, notFound } from "../core/identity-error.ts";
import { findRecord, parsed } from "../store/records.ts";
import { removeDomain, removeProjects } from "../store/project-removal.ts";
import { projectsAbove, projectsBelow } from "../store/project-tree.ts";
import type { IdentityTransaction } from "../store/records.ts";
import type { Project } from "../store/schema.ts";
import type { Write } from "./resource-routes.ts";

/** Domains and projects are one kind of row (store/schema.ts); what is written to either is decided here. */

/** The domain that bootstrap makes and that nobody can do without. */
export const DEFAULT_DOMAIN_ID = "default";

const isImmutable = ({ options }: Project): boolean => parsed(options)["immutable"] === true;

const kindOf = ({ is_domain }: Project): "domain" | "project" => (is_domain === 1 ? "domain" : "project");

/** Options as they stand after `given`: null takes one back. As JSON. */
export const optionsAfter = (given: Readonly<Record<string, unknown>> | undefined, before = "{}"): string => {
  const options = { ...parsed(before), ...given };
  return JSON.stringify(Object.fromEntries(Object.entries(options).filter(([, value]) => value !== null)));
};

/** The row as it is now; the one that the request began with may be older. Throws `not-found`. */
export const currentProject = async (transaction: IdentityTransaction, { id, is_domain }: Project) => {
  const row = await findRecord(transaction, "projects", id);
  if (row === undefined) throw notFound(is_domain === 1 ? "domain" : "project", id);
  return row;
};

/** Throws `conflict` where the name is taken among domains, or within the domain. */
const assertNameIsFree = async (transaction: IdentityTransaction, project: Project): Promise<void> => {
  const { id, name, domain_id } = project;
  const named = transaction.selectFrom("projects").select("id").where("name", "=", name).where("id", "<>", id);
  const other =
    domain_id === null
      ? await named.where("is_domain", "=", 1).executeTakeFirst()
      : await named.where("domain_id", "=", domain_id).executeTakeFirst();
  if (other === undefined) return;
  const rule =
    domain_id === null
      ? `it is not permitted to have two projects acting as domains with the same name: ${name}.`
      : `it is not permitted to have two projects with either the same name or same id in the same domain: name is ${name}, project id ${id}.`;
  throw identityError("conflict", `Conflict occurred attempting to store project - ${rule}`);
};

/** Tags lie without white space at their ends. */
export const replaceTags = async (
  transaction: IdentityTransaction,
  projectId: string,
  tags: readonly string[],
): Promise<void> => {
  await transaction.deleteFrom("project_tags").where("project_id", "=", projectId).execute();
  const rows = [...new Set(tags.map((tag) => tag.trim()))].map((name) => ({ project_id: projectId, name }));
  if (rows.length > 0) await transaction.insertInto("project_tags").values(rows).execute();
};

/** Adds the row, its name without white space at the ends. Throws `conflict`. */
export const insertProject = async (
  given: Project,
  tags: readonly string[],
  { transaction, change }: Write,
): Promise<Project> => {
  const project = { ...given, name: given.name.trim() };
  if ((await findRecord(transaction, "projects", project.id)) !== undefined) {
    throw identityError("conflict", `Conflict occurred attempting to store project - Duplicate ID, ${project.id}.`);
  }
  await assertNameIsFree(transaction, project);
  await transaction.insertInto("projects").values(project).execute();
  await replaceTags(transaction, project.id, tags);
  change.notify({ action: "create", resource: kindOf(project), id: project.id });
  return project;
};

/** An immutable thing takes nothing but the end of its immutability. Throws `forbidden`. */
const assertMayChange = (project: Project, fields: object): void => {
  if (!isImmutable(project)) return;
  const options = "options" in fields ? (fields.options as Readonly<Record<string, unknown>> | undefined) : undefined;
  const ends = options !== undefined && "immutable" in options && options["immutable"] !== true;
  if (ends && Object.keys(fields).length === 1) return;
  throw identityError(
    "forbidden",
    `Unable to update immutable ${kindOf(project)} resource: \`${project.id}. Set resource option "immutable" to false first.`,
  );
};

/** Throws `forbidden`. */
export const assertTagsMayChange = (project: Project, verb: "create" | "update" | "delete"): void => {
  if (!isImmutable(project)) return;
  throw identityError(
    "forbidden",
    `Cannot ${verb} project tags for ${project.id}, project is immutable. Set "immutable" option to false before creating project tags.`,
  );
};

type ProjectFields = {
  readonly name?: string;
  readonly description?: string | null;
  readonly enabled?: boolean;
  readonly options?: Readonly<Record<string, unknown>>;
  readonly tags?: readonly string[];
};

/** A project can be enabled only beneath enabled ones, and disabled only above disabled ones; a domain whenever. */
const assertStateFits = async (before: Project, after: Project, { transaction }: Write): Promise<void> => {
  if (before.enabled === after.enabled) return;
  if (after.enabled === 1) {
    const above = await projectsAbove(transaction, before.id);
    if (above.every(({ enabled }) => enabled === 1)) return;
    throw identityError("forbidden", `Cannot enable project ${before.id} since it has disabled parents.`);
  }
  if (before.is_domain === 1) return;
  const below = await projectsBelow(transaction, before.id);
  if (below.every(({ enabled }) => enabled === 0)) return;
  throw identityError("forbidden", `Cannot disable project ${before.id} since its subtree contains enabled projects.`);
};

const announce = (before: Project, after: Project, { change }: Write): void => {
  const { id } = before;
  const kind = kindOf(before);
  change.notify({ action: "update", resource: kind, id });
  if (before.enabled === 1 && after.enabled === 0) change.notify({ action: "disable", resource: kind, id });
  // Tokens carry names, and hold no longer than what they are for is enabled.
  if (before.enabled === after.enabled && before.name === after.name) return;
  change.revoke(kind === "domain" ? { kind: "recheck", domainId: id } : { kind: "recheck", projectId: id });
};

/** Changes a project or domain; `extra` is what it keeps beside the fields. Throws `forbidden`, `conflict`. */
export const changeProject = async (
  before: Project,
  fields: ProjectFields,
  extra: string,
  write: Write,
): Promise<Project> => {
  const { transaction } = write;
  assertMayChange(before, fields);
  const after: Project = {
    ...before,
    name: fields.name === undefined ? before.name : fields.name.trim(),
    description: fields.description === undefined ? before.description : (fields.description ?? ""),
    enabled: fields.enabled === undefined ? before.enabled : Number(fields.enabled),
    options: optionsAfter(fields.options, before.options),
    extra,
  };
  await assertStateFits(before, after, write);
  if (after.name !== before.name) await assertNameIsFree(transaction, after);
  await transaction.updateTable("projects").set(after).where("id", "=", after.id).execute();
  if (fields.tags !== undefined) await replaceTags(transaction, after.id, fields.tags);
  announce(before, after, write);
  return after;
};

/** Enables or disables a project with all below it. Throws `forbidden`. */
export const switchSubtree = async (before: Project, enabled: boolean, write: Write): Promise<Project> => {
  const { transaction } = write;
  assertMayChange(before, { enabled });
  const after = { ...before, enabled: Number(enabled) };
  if (after.enabled === 1) await assertStateFits(before, after, write);
  for (const project of [before, ...(await projectsBelow(transaction, before.id))]) {
    if (project.enabled === after.enabled) continue;
    const { enabled: state } = after;
    await transaction.updateTable("projects").set({ enabled: state }).where("id", "=", project.id).execute();
    announce(project, { ...project, enabled: state }, write);
  }
  return after;
};

const assertMayBeDeleted = (project: Project): void => {
  if (!isImmutable(project)) return;
  throw identityError(
    "forbidden",
    `Unable to delete immutable ${kindOf(project)} resource: \`${project.id}. Set resource option "immutable" to false first.`,
  );
};

/** Removes a domain that was disabled before, with everything in it. Throws `forbidden`. */
export const deleteDomain = async (domain: Project, { transaction, change }: Write): Promise<void> => {
  assertMayBeDeleted(domain);
  if (domain.id === DEFAULT_DOMAIN_ID) {
    throw identityError(
      "forbidden",
      "You are not authorized to perform the requested action: delete the default domain.",
    );
  }
  if (domain.enabled === 1) {
    throw identityError("forbidden", "Cannot delete a domain that is enabled, please disable it first.");
  }
  for (const { id, is_domain } of await projectsBelow(transaction, domain.id)) {
    if (is_domain === 0) change.notify({ action: "delete", resource: "project", id });
  }
  await removeDomain(transaction, change, domain.id);
};

/** Removes a project; `cascade` takes the disabled ones below it along. Throws `forbidden`. */
export const deleteProject = async (
  project: Project,
  { cascade }: { readonly cascade: boolean },
  write: Write,
): Promise<void> => {
  if (project.is_domain === 1) return deleteDomain(project, write);
  const { transaction, change } = write;
  assertMayBeDeleted(project);
  const below = await projectsBelow(transaction, project.id);
  if (below.length > 0 && !cascade) {
    throw identityError(
      "forbidden",
      `Cannot delete the project ${project.id} since it is not a leaf in the hierarchy. Use the cascade option if you want to delete a whole subtree.`,
    );
  }
  if (below.some(({ enabled }) => enabled === 1)) {
    throw identityError(
      "forbidden",
      `Cannot delete project ${project.id} since its subtree contains enabled projects.`,
    );
  }
  for (const one of below) assertMayBeDeleted(one);
  await removeProjects(transaction, change, [...below.toReversed(), project]);
};
