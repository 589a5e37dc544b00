import { timestampIn } from "../../common/ballot.ts";
import { millisecondsOf } from "../../common/hybrid-clock.ts";
import type { Row } from "../../storage-node/wire.ts";
import type { PageQuery } from "../object-service/row-reader.ts";
import { decodeObjectRow } from "../object-service/object-metadata.ts";
import { type Exchange, header } from "./exchange.ts";
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
const TRUE_WORDS = new Set(["true", "1", "yes", "on", "t", "y"]);

const parameter = (query: URLSearchParams, name: string): string => {
  const value = query.get(name) ?? "";
  if (value.includes("\0") || value.includes("\ufffd"))
    throw refuse("bad-path", `Invalid UTF8 or contains NULL in ${name}`);
  return value;
};

/** Errors: "precondition-failed" for a limit above the maximum or no number, "bad-path". */
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
    marker: parameter(query, "marker"),
    endMarker: parameter(query, "end_marker"),
    prefix: path === null ? parameter(query, "prefix") : folder,
    delimiter: path === null ? parameter(query, "delimiter") : "/",
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
  throw refuse("not-acceptable", "The requested listing format is not available.");
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

export const renderObjectsJson = (items: readonly ListingItem[]): string => {
  let text = "";
  for (const item of items) {
    if (text !== "") text += ",";
    if ("subdir" in item) {
      text += `{"subdir":${JSON.stringify(item.subdir)}}`;
      continue;
    }
    const { row } = item;
    const { etag, contentType } = decodeObjectRow(row.payload);
    text += `{"bytes":${row.bytes},"content_type":${typeJson(contentType)},"hash":"${etag}","last_modified":"${isoTime(row)}","name":${JSON.stringify(row.name)}}`;
  }
  return `[${text}]`;
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
