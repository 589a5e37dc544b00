import { Type } from "typebox";
import { identityError } from "../core/identity-error.ts";
import { findRecord, listRecords, newId, parsed } from "../store/records.ts";
import type { Project } from "../store/schema.ts";
import type { IdentityRoute } from "./identity-route.ts";
import { flag, text } from "./list-parameters.ts";
import { changeProject, currentProject, deleteDomain, insertProject, optionsAfter } from "./project-changes.ts";
import { description, projectName, projectOptions, projectTags } from "./project-schemas.ts";
import { tagsOf } from "./project-tags.ts";
import { extraOf, resourceRoutes } from "./resource-routes.ts";

export const domainBody = ({ id, name, description: about, enabled, options, extra }: Project) => ({
  ...parsed(extra),
  id,
  name,
  description: about,
  enabled: enabled === 1,
  tags: [] as readonly string[],
  options: parsed(options),
});

const UUID = /^[0-9a-f]{32}$/;

const fields = {
  description: Type.Optional(description),
  enabled: Type.Optional(Type.Boolean()),
  tags: Type.Optional(projectTags),
  options: Type.Optional(projectOptions),
  // What a project has and a domain has not: neither looked at nor kept.
  domain_id: Type.Optional(Type.Unknown()),
  parent_id: Type.Optional(Type.Unknown()),
  is_domain: Type.Optional(Type.Unknown()),
};
const createSchema = Type.Object({ ...fields, name: projectName });
const updateSchema = Type.Object({ ...fields, name: Type.Optional(projectName) }, { minProperties: 1 });

/** The id that the caller wants, as one that syncs several installations does; else a new one. Throws `bad-request`. */
const idOf = (given: unknown): string => {
  if (given === undefined || given === null) return newId();
  if (typeof given === "string" && UUID.test(given)) return given;
  throw identityError("bad-request", "Domain ID does not conform to required UUID format.");
};

export const DOMAIN_ROUTES: readonly IdentityRoute[] = resourceRoutes({
  path: "/v3/domains",
  plural: "domains",
  singular: "domain",
  filters: { name: text("name"), enabled: flag("enabled") },
  reading: {
    find: async (id, { database }) => {
      const row = await findRecord(database, "projects", id);
      return row?.is_domain === 1 ? row : undefined;
    },
    list: (query, { database }, caller) => {
      const own = caller.credentials.domain_id;
      const conditions = [
        ...query.conditions,
        { column: "is_domain", comparison: "equals", value: 1 } as const,
        // A token for a domain sees that domain.
        ...(typeof own === "string" ? [{ column: "id", comparison: "equals", value: own } as const] : []),
      ];
      return listRecords(database, "projects", { ...query, conditions });
    },
  },
  present: async (domain, { database }) => ({
    ...domainBody(domain),
    tags: (await tagsOf(database, [domain.id])).get(domain.id) ?? [],
  }),
  presentAll: async (domains, { database }) => {
    const tags = await tagsOf(
      database,
      domains.map(({ id }) => id),
    );
    return domains.map((domain) => ({ ...domainBody(domain), tags: tags.get(domain.id) ?? [] }));
  },
  target: ({ id }) => ({ "target.domain.id": id }),
  list: {
    operation: "identity:list_domains",
    target: (_query, caller) => ({ "target.domain.id": caller.credentials.domain_id }),
  },
  show: { operation: "identity:get_domain" },
  create: {
    operation: "identity:create_domain",
    schema: createSchema,
    run: (given, write) =>
      insertProject(
        {
          id: idOf("explicit_domain_id" in given ? given["explicit_domain_id"] : undefined),
          domain_id: null,
          parent_id: null,
          is_domain: 1,
          name: given.name,
          description: given.description ?? "",
          enabled: Number(given.enabled ?? true),
          options: optionsAfter(given.options),
          extra: extraOf(createSchema, given),
        },
        given.tags ?? [],
        write,
      ),
  },
  update: {
    operation: "identity:update_domain",
    schema: updateSchema,
    run: async (row, given, write) => {
      const before = await currentProject(write.transaction, row);
      return changeProject(before, given, extraOf(updateSchema, given, before.extra), write);
    },
  },
  remove: {
    operation: "identity:delete_domain",
    run: async (row, write) => deleteDomain(await currentProject(write.transaction, row), write),
  },
});
