import { domainOption, meaningOf, withSecrets } from "../core/domain-options.ts";
import type { CredentialCipher } from "./credential-cipher.ts";
import type { IdentityDatabase, IdentityTransaction } from "./records.ts";

/** A value that a domain sets for itself; JSON, as it was given. */
export type OptionValue = { readonly group: string; readonly option: string; readonly value: unknown };

/** Binds a sealed value to its place. */
export const placeOf = (domainId: string, group: string, option: string): string => `${domainId}/${group}/${option}`;

const isSensitive = (group: string, option: string): boolean => domainOption(group, option)?.sensitive === true;

/** Sets options; those that are not named stay. */
export const writeOptions = async (
  transaction: IdentityTransaction,
  cipher: CredentialCipher,
  domainId: string,
  options: readonly OptionValue[],
): Promise<void> => {
  for (const { group, option, value } of options) {
    const json = JSON.stringify(value);
    const sensitive = isSensitive(group, option);
    const kept = sensitive ? Buffer.from(cipher.seal(placeOf(domainId, group, option), json)).toString("base64") : json;
    const state = { value: kept, sensitive: Number(sensitive) };
    await transaction
      .insertInto("domain_configurations")
      .values({ domain_id: domainId, group_name: group, option_name: option, ...state })
      .onConflict((conflict) => conflict.columns(["domain_id", "group_name", "option_name"]).doUpdateSet(state))
      .execute();
  }
};

/** What is set, group by group; sensitive options have no value. */
export const shownOptions = async (
  database: IdentityDatabase,
  domainId: string,
): Promise<(OptionValue & { readonly sensitive: boolean })[]> => {
  const rows = await database
    .selectFrom("domain_configurations")
    .selectAll()
    .where("domain_id", "=", domainId)
    .orderBy("group_name")
    .orderBy("option_name")
    .execute();
  return rows.map(({ group_name, option_name, value, sensitive }) => ({
    group: group_name,
    option: option_name,
    sensitive: sensitive === 1,
    value: sensitive === 1 ? undefined : (JSON.parse(value) as unknown),
  }));
};

/**
 * What a domain set for itself, for the drivers: sensitive values too, each in the type of its option, and put into the texts that
 * name them (`%(password)s`). Options that are not set are not there (core/domain-options.ts has the defaults). Throws RingsteadError
 * `bad-credential` where the key does not open a value.
 */
export const domainConfiguration = async (
  database: IdentityDatabase,
  cipher: CredentialCipher,
  domainId: string,
): Promise<ReadonlyMap<string, ReadonlyMap<string, unknown>>> => {
  const rows = await database
    .selectFrom("domain_configurations")
    .selectAll()
    .where("domain_id", "=", domainId)
    .execute();
  const options = rows.map(({ group_name: group, option_name: option, value, sensitive }) => {
    const json = sensitive === 1 ? cipher.open(placeOf(domainId, group, option), Buffer.from(value, "base64")) : value;
    return { group, option, sensitive: sensitive === 1, value: JSON.parse(json) as unknown };
  });
  const secrets = new Map<string, string>();
  for (const { option, sensitive, value } of options) {
    if (sensitive && typeof value === "string") secrets.set(option, value);
  }
  const configuration = new Map<string, Map<string, unknown>>();
  for (const { group, option, sensitive, value } of options) {
    const known = domainOption(group, option);
    // An option of a newer version, which this one does not know.
    if (known === undefined) continue;
    const complete = !sensitive && typeof value === "string" ? withSecrets(value, secrets) : value;
    const ofGroup = configuration.get(group) ?? new Map<string, unknown>();
    configuration.set(group, ofGroup.set(option, meaningOf(known, complete)));
  }
  return configuration;
};
