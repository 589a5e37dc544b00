import type { IncomingMessage, ServerResponse } from "node:http";
import fc from "fast-check";
import { expect, test } from "vitest";
import { RingsteadError } from "../../common/errors.ts";
import { cleanAcl, requireAcl } from "./access.ts";
import { judgeRead, parseRange, requireWriteConditions } from "./conditions.ts";
import type { Exchange } from "./exchange.ts";
import { header } from "./exchange.ts";
import { collectListing, listingFormat, parseListingQuery } from "./listing.ts";
import { answerFor } from "./swift-error.ts";
import { parseSwiftPath } from "./swift-path.ts";

const RUNS = { seed: 20_266, numRuns: 500 };

/** What a parser gives; a refusal that clients are told as one of theirs counts as an answer. */
const attempt = <T>(parse: () => T): T | undefined => {
  try {
    return parse();
  } catch (error) {
    if (error instanceof RingsteadError && answerFor(error).status < 500) return undefined;
    throw error;
  }
};

const exchangeOf = (headers: Record<string, string>, query = ""): Exchange => ({
  request: { headers, url: "/" } as unknown as IncomingMessage,
  response: {} as ServerResponse,
  method: "GET",
  query: new URLSearchParams(query),
  transactionId: "tx",
  token: undefined,
  origin: undefined,
});

/** What node's parser lets through of a header, and text made of the words that are looked for. */
const latin1 = fc.string({
  unit: fc.integer({ min: 0x20, max: 0xff }).map((code) => String.fromCharCode(code)),
  maxLength: 60,
});
const wordy = (...words: string[]): fc.Arbitrary<string> =>
  fc
    .array(fc.oneof(fc.constantFrom(...words), latin1, fc.nat().map(String)), { maxLength: 12 })
    .map((parts) => parts.join(""));

test("any request path has names without NUL, slashes or malformed UTF-8, or is refused", () => {
  const path = wordy("/v1/", "/v1.0/", "/", "//", "%00", "%2f", "%2F", "%", "%ff", "%c3%a9", "a", "..", "\u00e9").map(
    (text) => `/v1/${text}`,
  );
  fc.assert(
    fc.property(path, (text) => {
      const parsed = attempt(() => parseSwiftPath(text));
      if (parsed === undefined) return;
      const { account, container, object } = parsed;
      expect(account).not.toMatch(/[\0/]/);
      expect(container ?? "").not.toMatch(/[\0/]/);
      expect(object ?? "").not.toContain("\0");
      for (const part of [account, container ?? "", object ?? ""]) expect(part.isWellFormed()).toBe(true);
    }),
    RUNS,
  );
});

test("any Range header is ignored, unsatisfiable, or ranges within the object", () => {
  fc.assert(
    fc.property(
      wordy("bytes", "=", "bytes=", "-", ",", "0-", "-0", " ", "99999999999999999999"),
      fc.nat({ max: 2 ** 40 }),
      (text, length) => {
        const ranges = parseRange(text, length);
        if (typeof ranges === "string") return;
        expect(ranges.length).toBeGreaterThan(0);
        for (const { first, last } of ranges) {
          expect(Number.isSafeInteger(first) && Number.isSafeInteger(last)).toBe(true);
          expect(first >= 0 && first <= last && last < length).toBe(true);
        }
      },
    ),
    RUNS,
  );
});

test("any conditions are judged, for reads and for writes", () => {
  const value = fc.option(wordy('"', "W/", "*", ",", "Sat, 21 Nov 2026 10:00:00 GMT", "-1", "abc"), { nil: undefined });
  const conditions = fc.record({
    ifMatch: value,
    ifNoneMatch: value,
    ifModifiedSince: value,
    ifUnmodifiedSince: value,
  });
  fc.assert(
    fc.property(conditions, fc.nat(), (given, modifiedSeconds) => {
      const present = { etag: "abc", modifiedSeconds };
      expect(["go-on", "not-modified", "precondition-failed"]).toContain(judgeRead(given, present));
      attempt(() => requireWriteConditions(given, present));
      attempt(() => requireWriteConditions(given, undefined));
    }),
    RUNS,
  );
});

test("any ACL is stored in a form that cleaning leaves as it is, or refused, and is asked without an error", () => {
  const acl = wordy(".r:", ".ref:", ".referrer:", ".rlistings", "*", "-", ",", ":", ".", "project:user", " ");
  fc.assert(
    fc.property(acl, fc.constantFrom("x-container-read", "x-container-write"), latin1, (text, name, referer) => {
      const cleaned = attempt(() => cleanAcl(name, text));
      if (cleaned !== undefined) expect(cleanAcl(name, cleaned)).toBe(cleaned);
      for (const wanted of ["read-object", "list", "write"] as const)
        attempt(() => requireAcl(exchangeOf({ referer }), { [name]: cleaned ?? text }, wanted));
    }),
    RUNS,
  );
});

test("any listing query and Accept header are understood or refused, and a listing by them ends", async () => {
  const query = wordy(
    "limit=",
    "marker=",
    "end_marker=",
    "prefix=",
    "delimiter=",
    "path=",
    "reverse=",
    "format=",
    "json",
    "true",
    "&",
    "%",
    "%00",
    "%ff",
    "/",
    "+",
  );
  const accept = wordy("text/plain", "application/json", "*/*", ";", "q=", "0.5", ",");
  const names = ["a", "a/", "a/b", "a/b/c", "b", "b//", "\u00e9/x", "~"];
  await fc.assert(
    fc.asyncProperty(query, accept, async (text, accepted) => {
      const exchange = exchangeOf({ accept: accepted }, text);
      attempt(() => listingFormat(exchange));
      const parsed = attempt(() => parseListingQuery(exchange, 10_000));
      if (parsed === undefined) return;
      let pages = 0;
      const items = await collectListing(parsed, async ({ marker, endMarker, prefix, isReverse, limit }) => {
        pages += 1;
        expect(pages).toBeLessThan(50);
        const found = names
          .filter((name) => name.startsWith(prefix))
          .filter((name) =>
            isReverse
              ? (marker === "" || name < marker) && name > endMarker
              : name > marker && (endMarker === "" || name < endMarker),
          );
        const ordered = isReverse ? found.toReversed() : found;
        return ordered.slice(0, limit).map((name) => ({
          name,
          version: "0".repeat(48) as never,
          isDeleted: false,
          objects: 1,
          bytes: 0,
          payload: new Uint8Array(),
        }));
      });
      expect(items.length).toBeLessThanOrEqual(parsed.limit);
    }),
    RUNS,
  );
});

test("any header bytes are text, or refused", () => {
  fc.assert(
    fc.property(latin1, (value) => {
      const text = attempt(() => header(exchangeOf({ x: value }), "x"));
      if (text !== undefined) expect(text.isWellFormed()).toBe(true);
    }),
    RUNS,
  );
});
