import { randomBytes } from "node:crypto";
import type { CredentialCipher } from "./credential-cipher.ts";
import { type IdentityDatabase, newId } from "./records.ts";
import type { Credential } from "./schema.ts";

export type Ec2Credential = {
  readonly access: string;
  readonly secret: string;
  readonly userId: string;
  readonly projectId: string;
};

/** The blob of an EC2 credential is JSON, `{"access","secret"}`, as clients of `/v3/credentials` write it; in old rows the bare secret. */
const opened = (row: Credential, cipher: CredentialCipher): Ec2Credential => {
  const text = cipher.open(row.id, row.blob);
  const secret: unknown = text.startsWith("{") ? (JSON.parse(text) as { secret?: unknown }).secret : text;
  return {
    access: row.access ?? "",
    secret: typeof secret === "string" ? secret : "",
    userId: row.user_id,
    projectId: row.project_id ?? "",
  };
};

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
  const id = newId();
  const access = randomBytes(16).toString("hex");
  const blob = cipher.seal(id, JSON.stringify({ access, secret: randomBytes(16).toString("hex") }));
  await database
    .insertInto("credentials")
    .values({ id, type: "ec2", user_id: userId, project_id: projectId, access, blob, extra: "{}" })
    .execute();
};
