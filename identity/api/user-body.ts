import type { DirectoryUser } from "../store/directory.ts";
import type { IdentityContext } from "./identity-route.ts";
import { bareMicroseconds } from "./times.ts";

/** A user in Keystone's shape. Nothing of a password is in it but its end. */
export const userBody = (user: DirectoryUser) => ({
  ...user.extra,
  id: user.id,
  name: user.name,
  domain_id: user.domainId,
  enabled: user.enabled,
  password_expires_at: user.passwordExpiresAtMs === null ? null : bareMicroseconds(user.passwordExpiresAtMs),
  options: user.options,
  ...(user.defaultProjectId === null ? {} : { default_project_id: user.defaultProjectId }),
});

type FederatedProtocol = { readonly protocol_id: string; readonly unique_id: string };

/** The same with what providers call the user, as one user is shown. */
export const wholeUserBody = async (user: DirectoryUser, { database }: Pick<IdentityContext, "database">) => {
  const rows = await database
    .selectFrom("federated_users")
    .select(["idp_id", "protocol_id", "unique_id"])
    .where("user_id", "=", user.id)
    .orderBy("idp_id")
    .orderBy("protocol_id")
    .execute();
  const byProvider = new Map<string, FederatedProtocol[]>();
  for (const { idp_id, ...protocol } of rows) byProvider.set(idp_id, [...(byProvider.get(idp_id) ?? []), protocol]);
  const federated = [...byProvider].map(([idp_id, protocols]) => ({ idp_id, protocols }));
  return { ...userBody(user), ...(federated.length === 0 ? {} : { federated }) };
};
