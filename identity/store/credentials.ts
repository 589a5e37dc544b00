import { createHash, randomBytes } from "node:crypto";
import type { CredentialCipher } from "./credential-cipher.ts";
import type { IdentityDatabase, IdentityTransaction } from "./records.ts";
import type { Credential } from "./schema.ts";

/** What the blob of an EC2 credential says, with what delegated the right where it was made by a delegated token. */
export type Ec2Credential = {
  readonly id: string;
  readonly access: string;
  readonly secret: string;
  readonly userId: string;
  readonly projectId: string;
  readonly trustId: string | undefined;
};

export const EC2_TYPE = "ec2";

/** Keystone's id of an EC2 credential. */
export const ec2CredentialId = (access: string): string => createHash("sha256").update(access, "utf8").digest("hex");

/** The members of an EC2 credential's blob; undefined where it is none. */
export const parseEc2Blob = (text: string): Readonly<Record<string, unknown>> | undefined => {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Readonly<Record<string, unknown>>)
      : undefined;
  } catch {
    return undefined;
  }
};

const textOr = <Other>(value: unknown, other: Other): string | Other => (typeof value === "string" ? value : other);

/** The blob is JSON, as clients of `/v3/credentials` write it; in the oldest rows the bare secret. */
export const openEc2Credential = (row: Credential, cipher: CredentialCipher): Ec2Credential => {
  const text = cipher.open(row.id, row.blob);
  const blob = parseEc2Blob(text) ?? { secret: text };
  return {
    id: row.id,
    access: row.access ?? "",
    secret: textOr(blob["secret"], ""),
    userId: row.user_id,
    projectId: row.project_id ?? "",
    trustId: textOr(blob["trust_id"], undefined),
  };
};

export const findEc2Credential = async (
  database: IdentityDatabase,
  cipher: CredentialCipher,
  access: string,
): Promise<Ec2Credential | undefined> => {
  const row = await database.selectFrom("credentials").selectAll().where("access", "=", access).executeTakeFirst();
  return row && openEc2Credential(row, cipher);
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
    .where("type", "=", EC2_TYPE)
    .orderBy("id")
    .executeTakeFirst();
  return row && openEc2Credential(row, cipher);
};

/** Makes a key. Access and secret are 32 hexadecimal digits each, as in Keystone. */
export const insertEc2Credential = async (
  transaction: IdentityDatabase | IdentityTransaction,
  cipher: CredentialCipher,
  userId: string,
  projectId: string,
): Promise<Ec2Credential> => {
  const access = randomBytes(16).toString("hex");
  const secret = randomBytes(16).toString("hex");
  const id = ec2CredentialId(access);
  const blob = cipher.seal(id, JSON.stringify({ access, secret, trust_id: null }));
  await transaction
    .insertInto("credentials")
    .values({ id, type: EC2_TYPE, user_id: userId, project_id: projectId, access, blob, extra: "{}" })
    .execute();
  return { id, access, secret, userId, projectId, trustId: undefined };
};
