import { randomBytes } from "node:crypto";
import { xxh64 } from "../../common/hash.ts";
import { timestampIn } from "../../common/ballot.ts";
import { millisecondsOf } from "../../common/hybrid-clock.ts";
import type { PackedRun, Row } from "../../storage-node/wire.ts";
import type { PageQuery } from "../object-service/row-reader.ts";
import { decodeObjectRow } from "../object-service/object-metadata.ts";
import { type Exchange, header } from "./exchange.ts";
import { FragmentCache } from "./fragment-cache.ts";
import { refuse } from "./swift-error.ts";

/** What a listing asks for, from its query. */
export type ListingQuery = {
  readonly limit: number;
  readonly marker: string;
  readonly endMarker: string;
  readonly prefix: string;
  readonly delimiter: string;
  readonly isReverse: boolean;
  /** The older `path` form: only what lies directly in a pseudo-folder, without sub-folders. */
  readonly omitsSubdirs: boolean;
};

export type ListingFormat = "text/plain" | "application/json" | "text/xml" | "application/xml";

/** One line: a row, or names below a delimiter rolled up. */
export type ListingItem = { readonly subdir: string } | { readonly row: Row };

const HIGHEST_CHARACTER = "\u{10ffff}";
const PAGE_LIMIT = 10_000;
const ROLL_UP_PAGE = 1000;
/** Rendered runs that are kept. */
const FRAGMENTS_BYTES = 16 * 1024 * 1024;
/** Shorter runs are rendered as quickly as they are found. */
const RUN_ROWS_MIN = 16;
const TRUE_WORDS = new Set(["true", "1", "yes", "on", "t", "y"]);

/** Whether bytes of the query were no UTF-8, and are replacement characters now. */
const isBroken = (exchange: Exchange): boolean => {
  const { url = "" } = exchange.request;
  try {
    decodeURIComponent(url.slice(url.indexOf("?") + 1));
    return false;
  } catch {
    return true;
  }
};

const parameter = (exchange: Exchange, name: string): string => {
  const value = exchange.query.get(name) ?? "";
  if (value.includes("\0")) throw refuse("bad-path", `Invalid UTF8 or contains NULL in ${name}`);
  if (value.includes("\ufffd") && isBroken(exchange)) {
    throw refuse("bad-request", `"${name}" parameter not valid UTF-8`);
  }
  return value;
};

/** Errors: "precondition-failed" for a limit above the maximum or no number, "bad-path", "bad-request". */
export const parseListingQuery = (exchange: Exchange, maximum: number): ListingQuery => {
  const { query } = exchange;
  const limitText = query.get("limit");
  let limit = maximum;
  if (limitText !== null && limitText !== "") {
    if (!/^\d+$/.test(limitText)) throw refuse("precondition-failed", "Value must be an integer");
    limit = Number(limitText);
    if (limit > maximum) throw refuse("precondition-failed", `Maximum limit is ${maximum}`);
  }
  const path = query.get("path");
  const folder = path === null || path === "" ? "" : `${path.replace(/\/+$/, "")}/`;
  return {
    limit,
    marker: parameter(exchange, "marker"),
    endMarker: parameter(exchange, "end_marker"),
    prefix: path === null ? parameter(exchange, "prefix") : folder,
    delimiter: path === null ? parameter(exchange, "delimiter") : "/",
    isReverse: TRUE_WORDS.has((query.get("reverse") ?? "").toLowerCase()),
    omitsSubdirs: path !== null,
  };
};

/** The format by `format=`, else by Accept. Errors: "not-acceptable". */
export const listingFormat = (exchange: Exchange): ListingFormat => {
  switch ((exchange.query.get("format") ?? "").toLowerCase()) {
    case "json":
      return "application/json";
    case "xml":
      return "application/xml";
    case "plain":
      return "text/plain";
    default:
  }
  const accept = header(exchange, "accept");
  if (accept === undefined || accept === "") return "text/plain";
  const wanted = accept
    .split(",")
    .map((part) => {
      const [type = "", ...parameters] = part.split(";").map((piece) => piece.trim());
      const quality = parameters.find((piece) => piece.startsWith("q="));
      return { type: type.toLowerCase(), quality: quality === undefined ? 1 : Number(quality.slice(2)) };
    })
    .filter(({ quality }) => quality > 0)
    .sort((a, b) => b.quality - a.quality);
  for (const { type } of wanted) {
    if (type === "*/*" || type === "text/*" || type === "text/plain") return "text/plain";
    if (type === "application/json" || type === "application/*") return "application/json";
    if (type === "application/xml" || type === "text/xml") return type;
  }
  throw refuse("not-acceptable", "The resource is not available in a format acceptable to your browser.");
};

/** Collects the lines of a listing, rolling names up at the delimiter and skipping over what was rolled up. */
export const collectListing = async (
  query: ListingQuery,
  page: (query: PageQuery) => Promise<Row[]>,
): Promise<ListingItem[]> => {
  const items: ListingItem[] = [];
  let { marker } = query;
  const { prefix, delimiter, isReverse } = query;
  // The marker may itself be a rolled-up name: what lies below it was shown with it.
  if (delimiter !== "" && marker !== "" && !isReverse && marker.endsWith(delimiter) && marker.length > prefix.length) {
    marker += HIGHEST_CHARACTER;
  }
  while (items.length < query.limit) {
    const wanted = delimiter === "" ? Math.min(query.limit - items.length, PAGE_LIMIT) : ROLL_UP_PAGE;
    const rows = await page({ marker, endMarker: query.endMarker, prefix, isReverse, limit: wanted });
    let skipping: string | undefined;
    if (delimiter === "") {
      for (const row of rows) items.push({ row });
      marker = rows.at(-1)?.name ?? marker;
      if (rows.length < wanted) break;
      continue;
    }
    for (const row of rows) {
      if (items.length >= query.limit) break;
      if (skipping !== undefined && row.name.startsWith(skipping)) continue;
      const end = row.name.indexOf(delimiter, prefix.length);
      if (end === -1) {
        skipping = undefined;
        marker = row.name;
        items.push({ row });
        continue;
      }
      skipping = row.name.slice(0, end + delimiter.length);
      marker = isReverse ? skipping : skipping + HIGHEST_CHARACTER;
      if (!query.omitsSubdirs) items.push({ subdir: skipping });
      else if (row.name === skipping && row.name.length > prefix.length) items.push({ row });
    }
    if (rows.length < wanted) break;
  }
  return items;
};

let lastSecond = Number.NaN;
let lastSecondText = "";

/** Swift's form, six decimals. Rows that were written together share the text of their second: a Date for each costs more than all else. */
const isoTime = (row: Row): string => {
  const ms = row.changedMs ?? millisecondsOf(timestampIn(row.version));
  const second = Math.floor(ms / 1000);
  if (second !== lastSecond) {
    lastSecond = second;
    lastSecondText = new Date(second * 1000).toISOString().slice(0, 20);
  }
  const rest = ms - second * 1000;
  return `${lastSecondText}${rest < 10 ? "00" : rest < 100 ? "0" : ""}${rest}000`;
};

let lastType = "";
let lastTypeJson = '""';

const typeJson = (contentType: string): string => {
  if (contentType !== lastType) {
    lastType = contentType;
    lastTypeJson = JSON.stringify(contentType);
  }
  return lastTypeJson;
};

export const renderText = (items: readonly ListingItem[]): string =>
  items.length === 0 ? "" : `${items.map((item) => ("subdir" in item ? item.subdir : item.row.name)).join("\n")}\n`;

const objectJson = (row: Row): string => {
  const { etag, contentType } = decodeObjectRow(row.payload);
  return `{"bytes":${row.bytes},"content_type":${typeJson(contentType)},"hash":"${etag}","last_modified":"${isoTime(row)}","name":${JSON.stringify(row.name)}}`;
};

/** Lines of JSON without the brackets, by the packed rows that they were made from. */
const fragments = new FragmentCache(FRAGMENTS_BYTES);
/** Nobody outside can choose rows whose hashes meet those of others. */
const fragmentSeeds = [randomBytes(8).readBigUInt64LE(), randomBytes(8).readBigUInt64LE()] as const;

const fragmentOf = (run: PackedRun, rows: readonly ListingItem[], first: number): Buffer => {
  const id = `${xxh64(run.bytes, fragmentSeeds[0]).toString(36)} ${xxh64(run.bytes, fragmentSeeds[1]).toString(36)}`;
  let fragment = fragments.get(id);
  if (fragment === undefined) {
    fragment = Buffer.from(linesOf(rows, first, first + run.count));
    fragments.add(id, fragment);
  }
  return fragment;
};

const linesOf = (items: readonly ListingItem[], first: number, end: number): string => {
  let text = "";
  for (let index = first; index < end; index++) {
    const item = items[index];
    if (item === undefined) break;
    if (text !== "") text += ",";
    text += "subdir" in item ? `{"subdir":${JSON.stringify(item.subdir)}}` : objectJson(item.row);
  }
  return text;
};

const OPEN = Buffer.from("[");
const CLOSE = Buffer.from("]");
const COMMA = Buffer.from(",");

/**
 * A listing in JSON. Rows come in runs that storage nodes keep as they are until one of their rows changes; the lines of a run that was
 * rendered before are used again. Ten thousand rows take 20 ms otherwise.
 */
export const renderObjectsJson = (items: readonly ListingItem[]): Buffer => {
  const parts: Buffer[] = [OPEN];
  let plainFrom = 0;
  const add = (part: Buffer): void => {
    if (parts.length > 1) parts.push(COMMA);
    parts.push(part);
  };
  for (let index = 0; index < items.length; ) {
    const item = items[index];
    const run = item !== undefined && "row" in item ? item.row.run : undefined;
    if (run === undefined || run.count < RUN_ROWS_MIN || !holdsRun(items, index, run)) {
      index += 1;
      continue;
    }
    if (plainFrom < index) add(Buffer.from(linesOf(items, plainFrom, index)));
    add(fragmentOf(run, items, index));
    index += run.count;
    plainFrom = index;
  }
  if (plainFrom < items.length) add(Buffer.from(linesOf(items, plainFrom, items.length)));
  parts.push(CLOSE);
  return Buffer.concat(parts);
};

/** Whether the whole run stands here, in its order: not rolled up, cut by the limit, or merged with another replica's. */
const holdsRun = (items: readonly ListingItem[], first: number, run: PackedRun): boolean => {
  for (let index = first; index < first + run.count; index++) {
    const item = items[index];
    if (item === undefined || "subdir" in item || item.row.run !== run) return false;
  }
  return true;
};

export const renderContainersJson = (items: readonly ListingItem[]): string => {
  const parts = items.map((item) =>
    "subdir" in item
      ? `{"subdir":${JSON.stringify(item.subdir)}}`
      : `{"name":${JSON.stringify(item.row.name)},"count":${item.row.objects},"bytes":${item.row.bytes},"last_modified":"${isoTime(item.row)}"}`,
  );
  return `[${parts.join(",")}]`;
};

const escapeXml = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");

const subdirXml = (subdir: string): string =>
  `<subdir name="${escapeXml(subdir)}"><name>${escapeXml(subdir)}</name></subdir>`;

export const renderObjectsXml = (container: string, items: readonly ListingItem[]): string => {
  const parts = items.map((item) => {
    if ("subdir" in item) return subdirXml(item.subdir);
    const { row } = item;
    const { etag, contentType } = decodeObjectRow(row.payload);
    return `<object><name>${escapeXml(row.name)}</name><hash>${etag}</hash><bytes>${row.bytes}</bytes><content_type>${escapeXml(contentType)}</content_type><last_modified>${isoTime(row)}</last_modified></object>`;
  });
  return `<?xml version="1.0" encoding="UTF-8"?>\n<container name="${escapeXml(container)}">${parts.join("")}</container>`;
};

export const renderContainersXml = (account: string, items: readonly ListingItem[]): string => {
  const parts = items.map((item) =>
    "subdir" in item
      ? subdirXml(item.subdir)
      : `<container><name>${escapeXml(item.row.name)}</name><count>${item.row.objects}</count><bytes>${item.row.bytes}</bytes><last_modified>${isoTime(item.row)}</last_modified></container>`,
  );
  return `<?xml version="1.0" encoding="UTF-8"?>\n<account name="${escapeXml(account)}">${parts.join("")}</account>`;
};
