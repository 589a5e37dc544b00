import { mayChange } from "../core/user-options.ts";
import { removeUser } from "../store/user-removal.ts";
import type { IdentityRoute } from "./identity-route.ts";
import { confined, confinement, currentUser, immutableRefusal } from "./directory-writes.ts";
import { type Filters, flag, text, foreign } from "./list-parameters.ts";
import { resourceRoutes } from "./resource-routes.ts";
import { userBody, wholeUserBody } from "./user-body.ts";
import { createUser, updateUser } from "./user-changes.ts";

/** What lists of users can be asked for by. */
const USER_FILTERS: Filters = {
  name: text("name"),
  domain_id: text("domain_id"),
  enabled: flag("enabled"),
  idp_id: foreign("idp_id"),
  protocol_id: foreign("protocol_id"),
  unique_id: foreign("unique_id"),
  password_expires_at: { column: "password_expires_at_ms", kind: "time" },
};

/** Users; a change of one's own password is own-password.ts. */
export const USER_ROUTES: readonly IdentityRoute[] = [
  ...resourceRoutes({
    path: "/v3/users",
    plural: "users",
    singular: "user",
    filters: USER_FILTERS,
    reading: {
      find: (id, { directory }) => directory.findUser(id),
      list: (query, { directory }, caller) => directory.listUsers(confined(query, caller)),
    },
    present: wholeUserBody,
    presentAll: (users) => Promise.resolve(users.map(userBody)),
    target: ({ id, domainId }) => ({ "target.user.id": id, "target.user.domain_id": domainId }),
    list: {
      operation: "identity:list_users",
      target: (query, caller) => ({ "target.domain_id": confinement(query, caller) }),
    },
    show: { operation: "identity:get_user" },
    remove: {
      operation: "identity:delete_user",
      run: async (user, write) => {
        const { options } = await currentUser(user, write);
        if (!mayChange(options, {})) throw immutableRefusal("delete", "user", user.id);
        await removeUser(write.transaction, write.change, user.id);
      },
    },
  }),
  createUser,
  updateUser,
];
