import type { IncomingMessage } from "node:http";

/** `Authorization` of signature version 4 (also its elliptic-curve form, 4A) and of version 2. */
const SIGNED_HEADER = /^AWS(4-[A-Z0-9-]+)? /;
/** A presigned URL has its algorithm or its signature in the query: version 4, or both parts of version 2. */
const SIGNED_QUERY = /[?&]X-Amz-(Algorithm|Signature)=/i;
const SIGNED_QUERY_2 = /[?&]AWSAccessKeyId=/;

/**
 * Whether a request speaks S3 on the port that both faces share: it carries an AWS signature, in its header or in its query.
 * Anonymous S3 requests cannot be told from anonymous Swift ones there; the port of S3 alone takes them.
 */
export const isS3Request = ({ headers, url }: Pick<IncomingMessage, "headers" | "url">): boolean => {
  if (headers.authorization !== undefined && SIGNED_HEADER.test(headers.authorization)) return true;
  if (url === undefined || !url.includes("?")) return false;
  return SIGNED_QUERY.test(url) || (SIGNED_QUERY_2.test(url) && url.includes("Signature="));
};
