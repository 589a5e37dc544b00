import type { DirectoryUser } from "../store/directory.ts";
import type { IdentityRoute } from "./identity-route.ts";
import { flag, text } from "./list-parameters.ts";
import { resourceRoutes } from "./resource-routes.ts";
import { isoMicroseconds } from "./token-body.ts";

export const userBody = (user: DirectoryUser) => ({
  ...user.extra,
  id: user.id,
  name: user.name,
  domain_id: user.domainId,
  enabled: user.enabled,
  password_expires_at:
    user.passwordExpiresAtMs === null ? null : isoMicroseconds(user.passwordExpiresAtMs).slice(0, -1),
  options: user.options,
  ...(user.defaultProjectId === null ? {} : { default_project_id: user.defaultProjectId }),
});

export const USER_ROUTES: readonly IdentityRoute[] = resourceRoutes({
  path: "/v3/users",
  plural: "users",
  singular: "user",
  filters: { name: text("name"), domain_id: text("domain_id"), enabled: flag("enabled") },
  reading: {
    find: (id, { directory }) => directory.findUser(id),
    list: (query, { directory }) => directory.listUsers(query),
  },
  present: userBody,
  target: ({ id, domainId }) => ({ "target.user.id": id, "target.user.domain_id": domainId }),
  list: {
    operation: "identity:list_users",
    target: ({ domain_id }) => (domain_id === undefined ? {} : { "target.domain_id": domain_id }),
  },
  show: { operation: "identity:get_user" },
});
