import { refuse } from "./swift-error.ts";

/** The validators of the present version: the quoted-less ETag and the time in whole seconds. */
export type Validators = { readonly etag: string; readonly modifiedSeconds: number };
export type ConditionHeaders = {
  readonly ifMatch: string | undefined;
  readonly ifNoneMatch: string | undefined;
  readonly ifModifiedSince: string | undefined;
  readonly ifUnmodifiedSince: string | undefined;
};

const tags = (value: string): string[] =>
  value.split(",").map((part) =>
    part
      .trim()
      .replace(/^W\//, "")
      .replace(/^"(.*)"$/, "$1"),
  );

const matches = (value: string, etag: string): boolean => tags(value).some((tag) => tag === "*" || tag === etag);

let lastSeconds = Number.NaN;
let lastDate = "";

/** An HTTP date; answers of one second share the text. */
export const httpDateOf = (seconds: number): string => {
  if (seconds !== lastSeconds) {
    lastSeconds = seconds;
    lastDate = new Date(seconds * 1000).toUTCString();
  }
  return lastDate;
};

/** Seconds since 1970 of an HTTP date; undefined for what is none, which RFC 9110 has ignored. */
export const httpDateSeconds = (value: string | undefined): number | undefined => {
  if (value === undefined) return undefined;
  const ms = Date.parse(value);
  return Number.isNaN(ms) ? undefined : Math.floor(ms / 1000);
};

/** RFC 9110 section 13.2.2 for GET and HEAD. */
export const judgeRead = (
  conditions: ConditionHeaders,
  present: Validators,
): "go-on" | "not-modified" | "precondition-failed" => {
  if (conditions.ifMatch !== undefined) {
    if (!matches(conditions.ifMatch, present.etag)) return "precondition-failed";
  } else {
    const unmodified = httpDateSeconds(conditions.ifUnmodifiedSince);
    if (unmodified !== undefined && present.modifiedSeconds > unmodified) return "precondition-failed";
  }
  if (conditions.ifNoneMatch !== undefined)
    return matches(conditions.ifNoneMatch, present.etag) ? "not-modified" : "go-on";
  const modified = httpDateSeconds(conditions.ifModifiedSince);
  return modified !== undefined && present.modifiedSeconds <= modified ? "not-modified" : "go-on";
};

/** The same for writes; `present` is undefined where there is no object. Errors: "precondition-failed". */
export const requireWriteConditions = (conditions: ConditionHeaders, present: Validators | undefined): void => {
  const fail = (): Error => refuse("precondition-failed", "A precondition for this request was not met.");
  if (conditions.ifMatch !== undefined && (present === undefined || !matches(conditions.ifMatch, present.etag)))
    throw fail();
  if (conditions.ifNoneMatch !== undefined && present !== undefined && matches(conditions.ifNoneMatch, present.etag))
    throw fail();
  const unmodified = httpDateSeconds(conditions.ifUnmodifiedSince);
  if (unmodified !== undefined && present !== undefined && present.modifiedSeconds > unmodified) throw fail();
};

export type ByteRange = { readonly first: number; readonly last: number };
const RANGE_LIMIT = 50;

/**
 * The ranges of a Range header that an object of `length` bytes can satisfy; "ignore" for what is no byte range, "unsatisfiable" for 416.
 */
export const parseRange = (value: string, length: number): readonly ByteRange[] | "ignore" | "unsatisfiable" => {
  const match = /^\s*bytes\s*=(.*)$/i.exec(value);
  if (match === null) return "ignore";
  const specs = (match[1] ?? "")
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
  if (specs.length === 0) return "ignore";
  if (specs.length > RANGE_LIMIT) return "unsatisfiable";
  const ranges: ByteRange[] = [];
  for (const spec of specs) {
    const parts = /^(\d*)\s*-\s*(\d*)$/.exec(spec);
    if (parts === null || (parts[1] === "" && parts[2] === "")) return "ignore";
    if (parts[1] === "") {
      const suffix = Number(parts[2]);
      // A suffix of nothing is all of it.
      if (suffix > 0 && length === 0) return "ignore";
      if (suffix > 0) ranges.push({ first: Math.max(0, length - suffix), last: length - 1 });
      continue;
    }
    const first = Number(parts[1]);
    const last = parts[2] === "" ? length - 1 : Math.min(Number(parts[2]), length - 1);
    if (parts[2] !== "" && Number(parts[2]) < first) return "ignore";
    if (first < length) ranges.push({ first, last });
  }
  return ranges.length === 0 ? "unsatisfiable" : ranges;
};
