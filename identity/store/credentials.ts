import { randomBytes, randomUUID } from "node:crypto";
import type { CredentialCipher } from "./credential-cipher.ts";
import type { IdentityDatabase } from "./rows.ts";

export type Ec2Credential = {
  readonly access: string;
  readonly secret: string;
  readonly userId: string;
  readonly projectId: string;
};

type Row = { id: string; access: string; blob: Uint8Array; user_id: string; project_id: string };

const opened = (row: Row, cipher: CredentialCipher): Ec2Credential => ({
  access: row.access,
  secret: cipher.open(row.id, row.blob),
  userId: row.user_id,
  projectId: row.project_id,
});

export const findEc2Credential = async (
  database: IdentityDatabase,
  cipher: CredentialCipher,
  access: string,
): Promise<Ec2Credential | undefined> => {
  const row = await database.selectFrom("credentials").selectAll().where("access", "=", access).executeTakeFirst();
  return row && opened(row, cipher);
};

/** The user's first credential in the project. */
export const ec2CredentialOf = async (
  database: IdentityDatabase,
  cipher: CredentialCipher,
  userId: string,
  projectId: string,
): Promise<Ec2Credential | undefined> => {
  const row = await database
    .selectFrom("credentials")
    .selectAll()
    .where("user_id", "=", userId)
    .where("project_id", "=", projectId)
    .where("type", "=", "ec2")
    .orderBy("id")
    .executeTakeFirst();
  return row && opened(row, cipher);
};

/** Access and secret are 32 hexadecimal digits each, as in Keystone. */
export const insertEc2Credential = async (
  database: IdentityDatabase,
  cipher: CredentialCipher,
  userId: string,
  projectId: string,
): Promise<void> => {
  const id = randomUUID().replaceAll("-", "");
  const access = randomBytes(16).toString("hex");
  const blob = cipher.seal(id, randomBytes(16).toString("hex"));
  await database
    .insertInto("credentials")
    .values({ id, type: "ec2", user_id: userId, project_id: projectId, access, blob })
    .execute();
};
