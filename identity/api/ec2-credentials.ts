import { Type } from "typebox";
import { notFound } from "../core/identity-error.ts";
import {
  EC2_TYPE,
  type Ec2Credential,
  findEc2Credential,
  insertEc2Credential,
  openEc2Credential,
} from "../store/credentials.ts";
import { WHOLE_LIST } from "../store/records.ts";
import { refuseDelegated } from "./delegated-tokens.ts";
import {
  baseUrl,
  type Caller,
  callerRoute,
  enforce,
  guardedRoute,
  type IdentityContext,
  type IdentityRoute,
} from "./identity-route.ts";
import { listBody } from "./list-parameters.ts";

const COLLECTION = "/v3/users/:user_id/credentials/OS-EC2";
const ONE = `${COLLECTION}/:credential_id`;
const WHAT = "access credentials directly";
const ownerParameters = Type.Object({ user_id: Type.String() });
const oneParameters = Type.Object({ user_id: Type.String(), credential_id: Type.String() });

const bodyOf = ({ userId, projectId, access, secret, trustId }: Ec2Credential, base: string) => ({
  user_id: userId,
  tenant_id: projectId,
  access,
  secret,
  trust_id: trustId ?? null,
  links: { self: `${base}/users/${userId}/credentials/OS-EC2/${access}` },
});

/** The key of the path; a key of another user is none. */
const found = async (
  { user_id: userId, credential_id: access }: { user_id: string; credential_id: string },
  { database, cipher }: Pick<IdentityContext, "database" | "cipher">,
): Promise<Ec2Credential> => {
  const credential = await findEc2Credential(database, cipher, access);
  if (credential?.userId !== userId) throw notFound("credential", access);
  return credential;
};

/** The key, for who may do `operation` with it; of one that is not there everybody is told so, as Keystone does. */
const allowed = async (
  operation: string,
  params: { user_id: string; credential_id: string },
  context: IdentityContext,
  caller: Caller,
): Promise<Ec2Credential> => {
  const credential = await found(params, context);
  enforce(context, caller, operation, { user_id: params.user_id, "target.credential.user_id": credential.userId });
  refuseDelegated(caller, WHAT);
  return credential;
};

const assertUser = async (userId: string, { directory }: IdentityContext): Promise<void> => {
  if ((await directory.findUser(userId)) === undefined) throw notFound("user", userId);
};

/** Keys for S3 and EC2 clients, addressed by their access key. */
export const EC2_CREDENTIAL_ROUTES: readonly IdentityRoute[] = [
  guardedRoute({
    method: "GET",
    path: COLLECTION,
    operation: "identity:ec2_list_credentials",
    request: { params: ownerParameters },
    target: ({ params }) => ({ user_id: params.user_id }),
    handler: async (request, context, caller) => {
      refuseDelegated(caller, WHAT);
      await assertUser(request.params.user_id, context);
      const base = baseUrl(request, context);
      const rows = await context.database
        .selectFrom("credentials")
        .selectAll()
        .where("user_id", "=", request.params.user_id)
        .where("type", "=", EC2_TYPE)
        .orderBy("id")
        .limit(WHOLE_LIST.limit)
        .execute();
      const items = rows.map((row) => bodyOf(openEc2Credential(row, context.cipher), base));
      return { status: 200, body: listBody(request, "credentials", items, WHOLE_LIST, base) };
    },
  }),
  guardedRoute({
    method: "POST",
    path: COLLECTION,
    operation: "identity:ec2_create_credential",
    request: {
      params: ownerParameters,
      body: Type.Object({ tenant_id: Type.Optional(Type.Union([Type.String({ maxLength: 64 }), Type.Null()])) }),
    },
    target: ({ params }) => ({ user_id: params.user_id, "target.credential.user_id": params.user_id }),
    handler: async (request, context, caller) => {
      refuseDelegated(caller, WHAT);
      const userId = request.params.user_id;
      await assertUser(userId, context);
      const projectId = request.body.tenant_id ?? "";
      const credential = await context.changes.write(async (transaction, change) => {
        const project = await transaction
          .selectFrom("projects")
          .select("id")
          .where("id", "=", projectId)
          .executeTakeFirst();
        if (project === undefined) throw notFound("project", projectId);
        const made = await insertEc2Credential(transaction, context.cipher, userId, projectId);
        change.notify({ action: "create", resource: "credential", id: made.id });
        return made;
      });
      return { status: 201, body: { credential: bodyOf(credential, baseUrl(request, context)) } };
    },
  }),
  callerRoute({
    method: "GET",
    path: ONE,
    request: { params: oneParameters },
    handler: async (request, context, caller) => {
      const credential = await allowed("identity:ec2_get_credential", request.params, context, caller);
      return { status: 200, body: { credential: bodyOf(credential, baseUrl(request, context)) } };
    },
  }),
  callerRoute({
    method: "DELETE",
    path: ONE,
    request: { params: oneParameters },
    handler: async (request, context, caller) => {
      const { id } = await allowed("identity:ec2_delete_credential", request.params, context, caller);
      await context.changes.write(async (transaction, change) => {
        const gone = await transaction.deleteFrom("credentials").where("id", "=", id).executeTakeFirst();
        if (gone.numDeletedRows === 0n) throw notFound("credential", request.params.credential_id);
        change.revoke({ kind: "revoke", auditId: id });
        change.notify({ action: "delete", resource: "credential", id });
      });
      return { status: 204 };
    },
  }),
];
