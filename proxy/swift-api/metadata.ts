import { CONSTRAINTS } from "./constraints.ts";
import { type Exchange, headerText } from "./exchange.ts";
import { refuse } from "./swift-error.ts";

/** Metadata headers of one kind in a request: `set` with values, `removed` by an empty value or the remove form. */
export type MetadataChange = { readonly set: Readonly<Record<string, string>>; readonly removed: ReadonlySet<string> };

/** Reads `X-<Kind>-Meta-*` and `X-Remove-<Kind>-Meta-*`. Errors: "bad-metadata" beyond the constraints. */
export const readMetadata = (exchange: Exchange, kind: "account" | "container" | "object"): MetadataChange => {
  const prefix = `x-${kind}-meta-`;
  const removePrefix = `x-remove-${kind}-meta-`;
  const set: Record<string, string> = Object.create(null);
  const removed = new Set<string>();
  let count = 0;
  let size = 0;
  for (const [name, raw] of Object.entries(exchange.request.headers)) {
    if (name.startsWith(removePrefix)) {
      removed.add(prefix + name.slice(removePrefix.length));
      continue;
    }
    if (!name.startsWith(prefix) || raw === undefined) continue;
    const key = name.slice(prefix.length);
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
    if (value === "" && kind !== "object") removed.add(name);
    else set[name] = value;
  }
  if (count > CONSTRAINTS.max_meta_count)
    throw refuse("bad-metadata", `Too many metadata items; max ${CONSTRAINTS.max_meta_count}`);
  if (size > CONSTRAINTS.max_meta_overall_size) {
    throw refuse("bad-metadata", `Total metadata too large; max ${CONSTRAINTS.max_meta_overall_size}`);
  }
  return { set, removed };
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

/** `x-object-meta-color` as Swift writes it: `X-Object-Meta-Color`. */
export const titleCase = (name: string): string =>
  name.replace(/(^|-)([a-z])/g, (_all, dash: string, letter: string) => dash + letter.toUpperCase());
