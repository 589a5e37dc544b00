import { CONSTRAINTS } from "./constraints.ts";
import { type Exchange, headerText } from "./exchange.ts";
import { refuse } from "./swift-error.ts";

/** Metadata headers of one kind in a request: `set` with values, `removed` by an empty value or the remove form. */
export type MetadataChange = { readonly set: Record<string, string>; readonly removed: ReadonlySet<string> };

const NOTHING_REMOVED: ReadonlySet<string> = new Set();
const X = "x".charCodeAt(0);

/** Underscores of a header's name are hyphens, as for whatever is behind a WSGI server. */
const hyphened = (name: string): string => (name.includes("_") ? name.replaceAll("_", "-") : name);

/** Reads `X-<Kind>-Meta-*` and `X-Remove-<Kind>-Meta-*`. Errors: "bad-metadata" beyond the constraints. */
export const readMetadata = (exchange: Exchange, kind: "account" | "container" | "object"): MetadataChange => {
  const prefix = `x-${kind}-meta-`;
  const removePrefix = `x-remove-${kind}-meta-`;
  const set: Record<string, string> = Object.create(null);
  let removed: Set<string> | undefined;
  let count = 0;
  let size = 0;
  const { headers } = exchange.request;
  for (const name of Object.keys(headers)) {
    if (name.charCodeAt(0) !== X) continue;
    if (name.startsWith(removePrefix)) {
      removed ??= new Set();
      removed.add(prefix + hyphened(name.slice(removePrefix.length)));
      continue;
    }
    const raw = headers[name];
    if (!name.startsWith(prefix) || raw === undefined) continue;
    const key = hyphened(name.slice(prefix.length));
    const value = headerText(Array.isArray(raw) ? raw.join(", ") : raw);
    const valueLength = Buffer.byteLength(value);
    if (key === "") throw refuse("bad-metadata", "Metadata name cannot be empty");
    if (key.length > CONSTRAINTS.max_meta_name_length) {
      throw refuse(
        "bad-metadata",
        `Metadata name too long: ${prefix}${key.slice(0, CONSTRAINTS.max_meta_name_length)}`,
      );
    }
    if (valueLength > CONSTRAINTS.max_meta_value_length) {
      throw refuse("bad-metadata", `Metadata value longer than ${CONSTRAINTS.max_meta_value_length}: ${prefix}${key}`);
    }
    count += 1;
    size += key.length + valueLength;
    if (value === "" && kind !== "object") {
      removed ??= new Set();
      removed.add(prefix + key);
    } else set[prefix + key] = value;
  }
  if (count > CONSTRAINTS.max_meta_count)
    throw refuse("bad-metadata", `Too many metadata items; max ${CONSTRAINTS.max_meta_count}`);
  if (size > CONSTRAINTS.max_meta_overall_size) {
    throw refuse("bad-metadata", `Total metadata too large; max ${CONSTRAINTS.max_meta_overall_size}`);
  }
  return { set, removed: removed ?? NOTHING_REMOVED };
};

/** Headers after a change: what is removed goes, what is set replaces. */
export const changedHeaders = (
  headers: Readonly<Record<string, string>>,
  change: MetadataChange,
): Record<string, string> => {
  const next: Record<string, string> = Object.create(null);
  for (const [name, value] of Object.entries(headers)) if (!change.removed.has(name)) next[name] = value;
  return Object.assign(next, change.set);
};

/** Names in title case that were made before; clients use few of them, and again and again. */
const titles = new Map<string, string>();
const TITLES_LIMIT = 1000;

/** `x-object-meta-color` as Swift writes it: `X-Object-Meta-Color`. */
export const titleCase = (name: string): string => {
  let title = titles.get(name);
  if (title === undefined) {
    title = name.replace(/(^|-)([a-z])/g, (_all, dash: string, letter: string) => dash + letter.toUpperCase());
    if (titles.size >= TITLES_LIMIT) titles.clear();
    titles.set(name, title);
  }
  return title;
};
