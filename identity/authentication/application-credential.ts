import { identityError, unauthorized } from "../core/identity-error.ts";
import { loadDelegation } from "./load-delegation.ts";
import type { AuthenticationMethod } from "./method.ts";
import { findUser, reference, requiredMember, textOf } from "./references.ts";

const SECRET_MAX = 4_096;

/** `{"id" | "name" + "user", "secret"}`. */
export const applicationCredentialMethod: AuthenticationMethod = {
  name: "application_credential",
  recognize: async (payload, context, { remoteAddress }) => {
    const secret = requiredMember(payload, "secret", "application_credential");
    if (typeof secret !== "string" || secret.length > SECRET_MAX) {
      throw identityError("bad-request", "Invalid input for field 'application_credential/secret'");
    }
    const id = textOf(payload, "id", "application_credential");
    const rows = context.database.selectFrom("application_credentials").select(["id", "user_id", "secret_hash"]);
    let row: { id: string; user_id: string; secret_hash: string } | undefined;
    if (id === undefined) {
      const name = textOf(payload, "name", "application_credential");
      if (name === undefined)
        throw identityError("bad-request", "Expecting to find id or name in application_credential.");
      const named = reference(requiredMember(payload, "user", "application_credential"), "user");
      const owner = await findUser(context, context.directory, named);
      row = owner && (await rows.where("user_id", "=", owner.id).where("name", "=", name).executeTakeFirst());
    } else {
      row = await rows.where("id", "=", id).executeTakeFirst();
    }
    const keys = [`application credential ${row?.id ?? id ?? ""}`, `address ${remoteAddress}`];
    using attempt = await context.limiter.begin(keys);
    if (!(await context.hasher.verify(secret, row?.secret_hash)) || row === undefined) {
      attempt.failed();
      throw unauthorized("wrong application credential or secret");
    }
    const delegation = await loadDelegation(context, { applicationCredentialId: row.id });
    if (delegation === undefined) throw unauthorized(`application credential ${row.id} has expired`);
    const user = await context.directory.findUser(row.user_id);
    if (user === undefined) throw unauthorized(`user ${row.user_id} is gone`);
    return { user, delegation };
  },
};
