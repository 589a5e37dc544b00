import { createHmac } from "node:crypto";

const hmac = (key: string | Buffer, text: string | Buffer): Buffer => createHmac("sha256", key).update(text).digest();

/** What a text of signature version 4 begins with, and what its credential scope ends with. */
export const AWS4_ALGORITHM = "AWS4-HMAC-SHA256";
export const AWS4_REQUEST = "aws4_request";

/** The key of one day (YYYYMMDD), region and service. Source: AWS Signature Version 4. */
export const awsSigningKey = (secret: string, day: string, region: string, service: string): Buffer =>
  hmac(hmac(hmac(hmac(`AWS4${secret}`, day), region), service), AWS4_REQUEST);

/** The signature of a text under such a key, in hexadecimal digits. */
export const awsSignature = (signingKey: Buffer, text: string | Buffer): string =>
  hmac(signingKey, text).toString("hex");
