import type { HttpRequest } from "../../common/http/route.ts";
import { blockError, notFound } from "../core/block-error.ts";
import type { BlockContext, Caller } from "./block-route.ts";
import { nextLinks, pageOf, parameter, queryOf } from "./list-parameters.ts";

/** What a back-end has, whether the API knows it or was told to forget it. */
export type Manageable = {
  readonly id: string;
  /** The name under which it is asked for: `volume-ID`. */
  readonly name: string;
  readonly sizeGib: number;
  readonly isManaged: boolean;
  /** Of a snapshot: the name of its volume. */
  readonly source?: string;
};

const SORT_COLUMNS = {
  reference: { column: "name", kind: "text" },
  size: { column: "sizeGib", kind: "number" },
} as const;

const shown = (one: Manageable, isDetailed: boolean): object => ({
  reference: { "source-name": one.name },
  size: one.sizeGib,
  safe_to_manage: !one.isManaged,
  ...(one.source === undefined ? {} : { source_reference: { "source-name": one.source } }),
  ...(isDetailed
    ? {
        reason_not_safe: one.isManaged ? "already managed" : null,
        cinder_id: one.isManaged ? one.id : null,
        extra_info: null,
      }
    : {}),
});

/** The pool that a query or a body names. Throws `bad-request`, `not-found`. */
export const poolNamed = async (context: BlockContext, host: string | undefined): Promise<string> => {
  if (host === undefined || host === "")
    throw blockError("bad-request", "Invalid input received: Host or cluster must be given.");
  const { pools } = await context.hosts.reports();
  const found = pools.find(({ name }) => name === host || name.split("#", 1)[0] === host);
  if (found === undefined) throw notFound("Service", host);
  return found.name;
};

/** One page of what a back-end has, by name, largest name first unless told otherwise. */
export const manageablePage = (
  name: string,
  request: HttpRequest,
  context: BlockContext,
  caller: Caller,
  all: readonly Manageable[],
  isDetailed: boolean,
): object => {
  const given = queryOf(request.query);
  const query = parameter(given, "sort") === undefined ? { sort_key: "reference", ...given } : given;
  const { limit, offset, marker, order } = pageOf(query, SORT_COLUMNS, context.config.listLimit);
  const sorted = all.toSorted((a, b) => {
    for (const { column, descending } of order) {
      const way = descending ? -1 : 1;
      if (column === "sizeGib" && a.sizeGib !== b.sizeGib) return way * (a.sizeGib - b.sizeGib);
      if (column !== "sizeGib" && a.name !== b.name) return a.name < b.name ? -way : way;
    }
    return 0;
  });
  const behind = marker === undefined ? 0 : sorted.findIndex((one) => one.id === marker) + 1;
  if (marker !== undefined && behind === 0) throw notFound("Marker", marker);
  const page = sorted.slice(behind + offset, behind + offset + limit);
  const last = page.length === limit ? page.at(-1)?.id : undefined;
  return {
    [name]: page.map((one) => shown(one, isDetailed)),
    ...nextLinks(name, request, context, caller, last),
  };
};

/** The id in `volume-ID`, as `source-name` or `source-id` of a reference. Throws `bad-request`. */
export const referredId = (reference: Readonly<Record<string, unknown>>, prefix: string): string => {
  const value = reference["source-name"] ?? reference["source-id"];
  if (typeof value !== "string" || value === "")
    throw blockError("bad-request", "Invalid input received: ref must contain 'source-name' or 'source-id'.");
  return value.startsWith(`${prefix}-`) ? value.slice(prefix.length + 1) : value;
};

/** What Cinder says of a reference to nothing that could be managed. */
export const noSuchReference = (reason: string): Error =>
  blockError("bad-request", `Manage existing failed due to invalid backend reference: ${reason}`);
