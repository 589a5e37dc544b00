import { Type } from "typebox";
import { identityError, notFound } from "../core/identity-error.ts";
import { EC2_TYPE, ec2CredentialId, parseEc2Blob } from "../store/credentials.ts";
import { findRecord, listRecords, newId, parsed } from "../store/records.ts";
import type { Credential } from "../store/schema.ts";
import { refuseDelegated } from "./delegated-tokens.ts";
import { type Caller, type IdentityContext, type IdentityRoute, mayDo } from "./identity-route.ts";
import { text } from "./list-parameters.ts";
import { enforceAlso, extraOf, recordOrNotFound, resourceRoutes } from "./resource-routes.ts";

const BLOB_MAX = 65_535;
const WHAT = "access credentials directly";

const idText = Type.String({ minLength: 1, maxLength: 255 });
const createSchema = Type.Object({
  type: idText,
  blob: Type.String({ maxLength: BLOB_MAX }),
  user_id: idText,
  project_id: Type.Optional(Type.Union([idText, Type.Null()])),
});
const updateSchema = Type.Object({
  type: Type.Optional(idText),
  blob: Type.Optional(Type.String({ maxLength: BLOB_MAX })),
  user_id: Type.Optional(idText),
  project_id: Type.Optional(Type.Union([idText, Type.Null()])),
});

const targetOf = ({ user_id }: Pick<Credential, "user_id">) => ({ "target.credential.user_id": user_id });

/** The access key that an EC2 credential's blob names. Throws `bad-request`. */
const accessOf = (blob: string): string => {
  const members = parseEc2Blob(blob);
  if (members === undefined) throw identityError("bad-request", "Invalid blob in credential");
  const access = members["access"];
  if (typeof access !== "string" || access === "" || access.length > 255) {
    throw identityError("bad-request", "Expecting to find access in credential.");
  }
  return access;
};

const assertPrimary = (caller: Caller): void => refuseDelegated(caller, WHAT);

/** Secrets of users for other services: EC2 keys, TOTP seeds, certificates. Kept encrypted. */
export const CREDENTIAL_ROUTES: readonly IdentityRoute[] = resourceRoutes({
  path: "/v3/credentials",
  plural: "credentials",
  singular: "credential",
  filters: { user_id: text("user_id"), type: text("type") },
  reading: {
    find: (id, { database }) => findRecord(database, "credentials", id),
    list: async (query, context, caller) => {
      assertPrimary(caller);
      const rows = await listRecords(context.database, "credentials", query);
      return rows.filter((row) => mayDo(context, caller, "identity:get_credential", targetOf(row)));
    },
  },
  present: (row: Credential, { cipher }: IdentityContext) => ({
    ...parsed(row.extra),
    id: row.id,
    user_id: row.user_id,
    project_id: row.project_id,
    type: row.type,
    blob: cipher.open(row.id, row.blob),
  }),
  target: (row: Credential) => targetOf(row),
  list: {
    operation: "identity:list_credentials",
    // Everybody may list the own ones: the list shows no others to whom it must not.
    target: (_query, { token }) => targetOf({ user_id: token.user.id }),
  },
  show: { operation: "identity:get_credential" },
  create: {
    operation: "identity:create_credential",
    schema: createSchema,
    target: targetOf,
    run: async (fields, { context, caller, transaction, change }) => {
      assertPrimary(caller);
      const isEc2 = fields.type.toLowerCase() === EC2_TYPE;
      if (isEc2 && (fields.project_id ?? null) === null) {
        throw identityError("bad-request", "Invalid input for field 'project_id': an ec2 credential needs one.");
      }
      const access = isEc2 ? accessOf(fields.blob) : null;
      const id = access === null ? newId() : ec2CredentialId(access);
      const known = await transaction
        .selectFrom("credentials")
        .select("id")
        .where((where) => where.or([where("id", "=", id), ...(access === null ? [] : [where("access", "=", access)])]))
        .executeTakeFirst();
      if (known !== undefined) {
        throw identityError(
          "conflict",
          `Conflict occurred attempting to store credential - Duplicate entry found with ID ${id}.`,
        );
      }
      const row: Credential = {
        id,
        type: isEc2 ? EC2_TYPE : fields.type,
        user_id: fields.user_id,
        project_id: fields.project_id ?? null,
        access,
        blob: context.cipher.seal(id, fields.blob),
        extra: extraOf(createSchema, fields),
      };
      await transaction.insertInto("credentials").values(row).execute();
      change.notify({ action: "create", resource: "credential", id });
      return row;
    },
  },
  update: {
    operation: "identity:update_credential",
    schema: updateSchema,
    run: async ({ id: credentialId }, fields, { context, caller, transaction, change }) => {
      assertPrimary(caller);
      // As it is now: its owner decides who may.
      const row = await recordOrNotFound(transaction, "credentials", "credential", credentialId);
      enforceAlso({ context, caller }, "identity:update_credential", targetOf(row));
      const blobText = fields.blob ?? context.cipher.open(row.id, row.blob);
      const changed: Credential = {
        ...row,
        type: fields.type ?? row.type,
        user_id: fields.user_id ?? row.user_id,
        project_id: fields.project_id === undefined ? row.project_id : fields.project_id,
        // The id stays that of the first access key.
        access: row.type === EC2_TYPE ? accessOf(blobText) : row.access,
        blob: context.cipher.seal(row.id, blobText),
        extra: extraOf(updateSchema, fields, row.extra),
      };
      // Nobody gives away a credential, or takes one, whom the policy does not let have it afterwards.
      enforceAlso({ context, caller }, "identity:update_credential", targetOf(changed));
      if ((changed.type === EC2_TYPE) !== (row.type === EC2_TYPE)) {
        throw identityError("bad-request", "An ec2 credential stays one, and no other becomes one.");
      }
      if (row.type === EC2_TYPE) {
        const before = parseEc2Blob(context.cipher.open(row.id, row.blob)) ?? {};
        const after = parseEc2Blob(blobText) ?? {};
        if ((before["trust_id"] ?? null) !== (after["trust_id"] ?? null)) {
          throw identityError("bad-request", "trust_id can not be updated for credential");
        }
      }
      if (changed.access !== row.access && changed.access !== null) {
        const taken = await transaction
          .selectFrom("credentials")
          .select("id")
          .where("access", "=", changed.access)
          .executeTakeFirst();
        if (taken !== undefined) throw identityError("conflict", "Another credential has this access key.");
      }
      const { id, ...values } = changed;
      await transaction.updateTable("credentials").set(values).where("id", "=", id).execute();
      if (row.type === EC2_TYPE) change.revoke({ kind: "revoke", auditId: row.id });
      change.notify({ action: "update", resource: "credential", id: row.id });
      return changed;
    },
  },
  remove: {
    operation: "identity:delete_credential",
    run: async (row, { caller, transaction, change }) => {
      assertPrimary(caller);
      const gone = await transaction.deleteFrom("credentials").where("id", "=", row.id).executeTakeFirst();
      if (gone.numDeletedRows === 0n) throw notFound("credential", row.id);
      if (row.type === EC2_TYPE) change.revoke({ kind: "revoke", auditId: row.id });
      change.notify({ action: "delete", resource: "credential", id: row.id });
    },
  },
});
