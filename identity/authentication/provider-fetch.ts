import { messageOf } from "../../common/errors.ts";
import { identityError } from "../core/identity-error.ts";
import { isSafeUrl } from "../core/safe-url.ts";

const TIMEOUT_MS = 5_000;
/** Key sets, discovery documents and claims are a few KiB. */
const ANSWER_MAX_BYTES = 256 * 1024;

const unavailable = (url: URL, reason: string) =>
  identityError("directory-unavailable", "The identity provider does not answer.", { url: url.origin, reason });

/** The body, cut off where it is larger than any that is meant. */
const boundedBody = async (response: Response): Promise<Buffer | undefined> => {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    const bytes = chunk as Uint8Array;
    size += bytes.length;
    if (size > ANSWER_MAX_BYTES) return undefined;
    chunks.push(bytes);
  }
  return Buffer.concat(chunks);
};

export type ProviderRequest = Pick<RequestInit, "method" | "body"> & {
  readonly headers?: Readonly<Record<string, string>>;
};

/**
 * An answer of a provider, whole. Redirects are not followed: an address that the operator did not name has no say. Throws
 * `directory-unavailable`.
 */
export const providerFetch = async (url: URL, request: ProviderRequest = {}): Promise<Response> => {
  if (!isSafeUrl(url)) throw unavailable(url, "neither https nor loopback");
  try {
    const response = await fetch(url, { ...request, redirect: "error", signal: AbortSignal.timeout(TIMEOUT_MS) });
    const body = await boundedBody(response);
    if (body !== undefined) {
      return new Response(body.length === 0 ? null : new Uint8Array(body), {
        status: response.status,
        headers: response.headers,
      });
    }
  } catch (thrown) {
    throw unavailable(url, messageOf(thrown));
  }
  throw unavailable(url, `more than ${ANSWER_MAX_BYTES} bytes`);
};
