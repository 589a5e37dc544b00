/** A set of objects of one size in a container of its own; rows write, read and delete the same ones. */
export type ObjectSet = { readonly name: string; readonly sizeBytes: number; readonly limit: number };

const KIB = 1024;
const MIB = 1024 * KIB;

/** `limit`: more objects than that are not made, later PUTs overwrite; bounds the disk that a comparison takes. */
const SETS = {
  small: { name: "small", sizeBytes: 4 * KIB, limit: 1_000_000 },
  mib: { name: "mib", sizeBytes: MIB, limit: 2000 },
  large: { name: "large", sizeBytes: 64 * MIB, limit: 32 },
  names: { name: "names", sizeBytes: 0, limit: 10_000 },
} as const satisfies Record<string, ObjectSet>;

/** Reads and overwrites go over this many objects. */
export const DISTINCT_OBJECTS = 10_000;

export type Action = "put" | "get" | "head" | "overwrite" | "delete" | "list";

/** `reach`: how many times faster than Swift the project wants to be (issue 3). */
export type Row = {
  readonly id: string;
  readonly title: string;
  readonly action: Action;
  readonly set: ObjectSet;
  readonly clients: number;
  readonly reach: number | undefined;
};

const row = (id: string, title: string, action: Action, set: ObjectSet, clients: number, reach?: number): Row => ({
  id,
  title,
  action,
  set,
  clients,
  reach,
});

/** In the order in which they run: what reads comes after what writes, what deletes is last. */
export const ROWS: readonly [Row, ...Row[]] = [
  row("put-4k", "PUT 4 KiB, 32 clients", "put", SETS.small, 32, 30),
  row("get-4k", "GET 4 KiB, 32 clients", "get", SETS.small, 32, 15),
  row("head-4k", "HEAD 4 KiB, 32 clients", "head", SETS.small, 32, 15),
  row("overwrite-4k", "overwrite 4 KiB, 32 clients", "overwrite", SETS.small, 32),
  row("put-4k-1", "PUT 4 KiB, 1 client", "put", SETS.small, 1, 6),
  row("get-4k-1", "GET 4 KiB, 1 client", "get", SETS.small, 1, 5),
  row("delete-4k", "DELETE 4 KiB, 32 clients", "delete", SETS.small, 32, 15),
  row("put-1m", "PUT 1 MiB, 8 clients", "put", SETS.mib, 8, 2),
  row("get-1m", "GET 1 MiB, 8 clients", "get", SETS.mib, 8, 3),
  row("put-64m", "PUT 64 MiB, 4 clients", "put", SETS.large, 4, 1.2),
  row("get-64m", "GET 64 MiB, 4 clients", "get", SETS.large, 4, 1.5),
  row("list-10000", "list 10,000 names, JSON", "list", SETS.names, 1, 15),
];
