import type { Changes } from "./store/changes.ts";
import type { CredentialCipher, StoredCipher } from "./store/credential-cipher.ts";
import { placeOf } from "./store/domain-configurations.ts";
import { sealOauthSecretsAnew } from "./store/oauth1.ts";
import type { IdentityTransaction } from "./store/records.ts";
import type { SigningKeys } from "./store/signing-keys.ts";

export type KeyRotation = { readonly signingKey: string; readonly secrets: number };

/** Seals every secret of the database anew. How many. */
const sealAnew = async (transaction: IdentityTransaction, cipher: CredentialCipher): Promise<number> => {
  const credentials = await transaction.selectFrom("credentials").select(["id", "blob"]).execute();
  for (const { id, blob } of credentials) {
    const fresh = cipher.seal(id, cipher.open(id, blob));
    await transaction.updateTable("credentials").set({ blob: fresh }).where("id", "=", id).execute();
  }
  const options = await transaction
    .selectFrom("domain_configurations")
    .selectAll()
    .where("sensitive", "=", 1)
    .execute();
  for (const { domain_id, group_name, option_name, value } of options) {
    const place = placeOf(domain_id, group_name, option_name);
    const fresh = Buffer.from(cipher.seal(place, cipher.open(place, Buffer.from(value, "base64"))));
    await transaction
      .updateTable("domain_configurations")
      .set({ value: fresh.toString("base64") })
      .where("domain_id", "=", domain_id)
      .where("group_name", "=", group_name)
      .where("option_name", "=", option_name)
      .execute();
  }
  return credentials.length + options.length + (await sealOauthSecretsAnew(transaction, cipher));
};

/**
 * New keys for tokens and for secrets at rest. Tokens signed with the old key stay good until they end; secrets are sealed anew before the
 * old key is forgotten. Killed at any point it leaves everything readable.
 */
export const rotateKeys = async (
  changes: Changes,
  signingKeys: SigningKeys,
  cipher: StoredCipher,
): Promise<KeyRotation> => {
  const signingKey = signingKeys.rotate();
  cipher.addKey();
  const secrets = await changes.record((transaction) => sealAnew(transaction, cipher));
  cipher.dropOldKeys();
  return { signingKey, secrets };
};
