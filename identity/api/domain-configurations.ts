import { Type } from "typebox";
import { domainOption, domainOptionDefaults, isOptionGroup, meaningOf } from "../core/domain-options.ts";
import { identityError, notFound } from "../core/identity-error.ts";
import type { ChangeSet } from "../store/changes.ts";
import { type OptionValue, shownOptions, writeOptions } from "../store/domain-configurations.ts";
import { findRecord, type IdentityDatabase, type IdentityTransaction } from "../store/records.ts";
import { guardedRoute, type IdentityContext, type IdentityRoute } from "./identity-route.ts";

const PATH = "/v3/domains/:domain_id/config";
const GROUP_PATH = `${PATH}/:group`;
const OPTION_PATH = `${GROUP_PATH}/:option`;
const COMPLIANCE_PATH = `${PATH}/security_compliance`;

const params = Type.Object({
  domain_id: Type.String(),
  group: Type.Optional(Type.String()),
  option: Type.Optional(Type.String()),
});
const defaultParams = Type.Object({ group: Type.Optional(Type.String()), option: Type.Optional(Type.String()) });
const body = Type.Object({ config: Type.Optional(Type.Record(Type.String(), Type.Unknown())) });

/** A part of a configuration: all of it, a group, or an option. */
type Part = { readonly group?: string; readonly option?: string };
type Config = Readonly<Record<string, unknown>>;

const invalid = (reason: string) => identityError("forbidden", `Invalid domain specific configuration: ${reason}.`);

const assertDomain = async (database: IdentityDatabase, id: string): Promise<void> => {
  if ((await findRecord(database, "projects", id))?.is_domain !== 1) throw notFound("domain", id);
};

const assertSupported = ({ group, option }: Part): void => {
  if (group === undefined) return;
  if (!isOptionGroup(group)) throw invalid(`Group ${group} is not supported for domain specific configurations`);
  if (option !== undefined && domainOption(group, option) === undefined) {
    throw invalid(`Option ${option} in group ${group} is not supported for domain specific configurations`);
  }
};

const isObject = (value: unknown): value is Config =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** The options of a body, each known and of a value that it can have. Throws `forbidden`, `bad-request`. */
const optionsOf = (config: Config): OptionValue[] => {
  const groups = Object.entries(config);
  if (groups.length === 0) throw invalid("No options specified");
  return groups.flatMap(([group, options]) => {
    if (!isObject(options) || Object.keys(options).length === 0) {
      throw invalid(`The value of group ${group} specified in the config should be a dictionary of options`);
    }
    return Object.entries(options).map(([option, value]) => {
      assertSupported({ group, option });
      const known = domainOption(group, option);
      if (known === undefined || meaningOf(known, value) === undefined) {
        throw identityError("bad-request", `Invalid input for field 'config/${group}/${option}': not a value of it.`);
      }
      return { group, option, value };
    });
  });
};

const wordsFor = ({ group, option }: Part): string => {
  if (group === undefined) return "any options";
  return option === undefined ? `group ${group}` : `option ${option} in group ${group}`;
};

const notSet = (domainId: string, part: Part) =>
  identityError("not-found", `Could not find ${wordsFor(part)} in domain configuration for domain ${domainId}.`);

const isPart = ({ group, option }: Part, one: Pick<OptionValue, "group" | "option">): boolean =>
  (group === undefined || group === one.group) && (option === undefined || option === one.option);

/** `{ group: { option: value } }`, of one option `{ option: value }`. */
const configOf = (options: readonly OptionValue[], part: Part): Config => {
  if (part.option !== undefined) return Object.fromEntries(options.map(({ option, value }) => [option, value]));
  const groups = Map.groupBy(options, ({ group }) => group);
  return Object.fromEntries(
    [...groups].map(([group, found]) => [group, Object.fromEntries(found.map(({ option, value }) => [option, value]))]),
  );
};

const shownConfig = async (database: IdentityDatabase, domainId: string, part: Part): Promise<Config> => {
  const options = (await shownOptions(database, domainId)).filter((one) => !one.sensitive && isPart(part, one));
  if (options.length === 0) throw notSet(domainId, part);
  return configOf(options, part);
};

/** What a body says about a part: of an option `{ option: value }`, else `{ group: { … } }`, and of nothing beyond the part. */
const changesOf = (config: Config, part: Part): OptionValue[] => {
  const { group, option } = part;
  const options = optionsOf(group !== undefined && option !== undefined ? { [group]: config } : config);
  assertSupported(part);
  const others = options.filter((one) => !isPart(part, one));
  if (others.length > 0) {
    throw invalid(`Trying to update ${wordsFor(part)}, so that, and only that, must be specified in the config`);
  }
  return options;
};

const removePart = async (
  transaction: IdentityTransaction,
  domainId: string,
  { group, option }: Part,
): Promise<void> => {
  let rows = transaction.deleteFrom("domain_configurations").where("domain_id", "=", domainId);
  if (group !== undefined) rows = rows.where("group_name", "=", group);
  if (option !== undefined) rows = rows.where("option_name", "=", option);
  await rows.execute();
};

/** The users of the domain may come from elsewhere now, or be found no more. */
const announce = (change: ChangeSet, domainId: string, part: Part): void => {
  change.notify({ action: "update", resource: "domain", id: domainId, details: { config: part } });
  change.revoke({ kind: "recheck", domainId });
};

const show = (path: string): IdentityRoute =>
  guardedRoute({
    method: "GET",
    path,
    operation: "identity:get_domain_config",
    request: { params },
    handler: async (request, { database }) => {
      const { domain_id: domainId, ...part } = request.params;
      await assertDomain(database, domainId);
      assertSupported(part);
      return { status: 200, body: { config: await shownConfig(database, domainId, part) } };
    },
  });

const update = (path: string): IdentityRoute =>
  guardedRoute({
    method: "PATCH",
    path,
    operation: "identity:update_domain_config",
    request: { params, body },
    handler: async (request, { database, changes, cipher }) => {
      const { domain_id: domainId, ...part } = request.params;
      await changes.write(async (transaction, change) => {
        await assertDomain(transaction, domainId);
        const options = changesOf(request.body.config ?? {}, part);
        const before = await shownOptions(transaction, domainId);
        // A part must be there to be changed; the whole need not.
        if (part.group !== undefined && !before.some((one) => isPart(part, one))) throw notSet(domainId, part);
        await writeOptions(transaction, cipher, domainId, options);
        announce(change, domainId, part);
      });
      const options = (await shownOptions(database, domainId)).filter(({ sensitive }) => !sensitive);
      return { status: 200, body: { config: configOf(options, {}) } };
    },
  });

const remove = (path: string): IdentityRoute =>
  guardedRoute({
    method: "DELETE",
    path,
    operation: "identity:delete_domain_config",
    request: { params },
    handler: async (request, { changes }) => {
      const { domain_id: domainId, ...part } = request.params;
      await changes.write(async (transaction, change) => {
        await assertDomain(transaction, domainId);
        assertSupported(part);
        const before = await shownOptions(transaction, domainId);
        if (part.group !== undefined && !before.some((one) => isPart(part, one))) throw notSet(domainId, part);
        await removePart(transaction, domainId, part);
        announce(change, domainId, part);
      });
      return { status: 204 };
    },
  });

const replace = guardedRoute({
  method: "PUT",
  path: PATH,
  operation: "identity:create_domain_config",
  request: { params, body },
  handler: async (request, { database, changes, cipher }) => {
    const { domain_id: domainId } = request.params;
    const existed = await changes.write(async (transaction, change) => {
      await assertDomain(transaction, domainId);
      const options = optionsOf(request.body.config ?? {});
      const before = await shownOptions(transaction, domainId);
      await removePart(transaction, domainId, {});
      await writeOptions(transaction, cipher, domainId, options);
      announce(change, domainId, {});
      return before.length > 0;
    });
    const options = (await shownOptions(database, domainId)).filter(({ sensitive }) => !sensitive);
    return { status: existed ? 200 : 201, body: { config: configOf(options, {}) } };
  },
});

const defaultsOf = ({ group, option }: Part): Config => {
  assertSupported(group === undefined ? {} : { group, ...(option === undefined ? {} : { option }) });
  const defaults = domainOptionDefaults();
  if (group === undefined) return defaults;
  const options = defaults[group] ?? {};
  if (option === undefined) return { [group]: options };
  if (!Object.hasOwn(options, option)) {
    throw invalid(`Reading the default for option ${option} in group ${group} is not supported`);
  }
  return { [option]: options[option] };
};

const showDefaults = (path: string): IdentityRoute =>
  guardedRoute({
    method: "GET",
    path,
    operation: "identity:get_domain_config_default",
    request: { params: defaultParams },
    handler: ({ params: part }) => ({ status: 200, body: { config: defaultsOf(part) } }),
  });

const DEFAULT_DOMAIN_ID = "default";

/** What users must know of the rules for passwords; these hold for all domains and are shown for the default one. */
const complianceOf = ({ config }: IdentityContext, option: string | undefined): Config => {
  const { pattern } = config.passwords;
  const shown: Config = {
    password_regex: pattern?.source ?? null,
    password_regex_description: pattern?.description ?? null,
  };
  if (option === undefined) return { security_compliance: shown };
  if (Object.hasOwn(shown, option)) return { [option]: shown[option] };
  throw invalid(
    "Reading security compliance values other than password_regex and password_regex_description is not allowed",
  );
};

const showCompliance = (path: string): IdentityRoute =>
  guardedRoute({
    method: "GET",
    path,
    operation: "identity:get_security_compliance_domain_config",
    request: { params },
    handler: async (request, context) => {
      const { domain_id: domainId, option } = request.params;
      await assertDomain(context.database, domainId);
      if (domainId !== DEFAULT_DOMAIN_ID) {
        throw invalid(
          "Reading security compliance information for any domain other than the default domain is not allowed or supported",
        );
      }
      return { status: 200, body: { config: complianceOf(context, option) } };
    },
  });

/** What a domain sets for itself: where its users come from, and how they are found there. */
export const DOMAIN_CONFIGURATION_ROUTES: readonly IdentityRoute[] = [
  replace,
  ...[PATH, GROUP_PATH, OPTION_PATH].flatMap((path) => [show(path), update(path), remove(path)]),
  showCompliance(COMPLIANCE_PATH),
  showCompliance(`${COMPLIANCE_PATH}/:option`),
  showDefaults("/v3/domains/config/default"),
  showDefaults("/v3/domains/config/:group/default"),
  showDefaults("/v3/domains/config/:group/:option/default"),
];
