/** A set of objects of one size in a container of its own; rows write, read and delete the same ones. */
export type ObjectSet = {
  readonly name: string;
  readonly sizeBytes: number;
  /** More objects than that are not made, later PUTs overwrite: bounds the disk that a comparison takes. */
  readonly limit: number;
  /** Reads and overwrites go over this many objects, which are written first where they are missing. */
  readonly reads: number;
};

const KIB = 1024;
const MIB = 1024 * KIB;

const SETS = {
  small: { name: "small", sizeBytes: 4 * KIB, limit: 1_000_000, reads: 10_000 },
  mib: { name: "mib", sizeBytes: MIB, limit: 2000, reads: 400 },
  large: { name: "large", sizeBytes: 64 * MIB, limit: 32, reads: 8 },
  names: { name: "names", sizeBytes: 0, limit: 10_000, reads: 10_000 },
  million: { name: "million", sizeBytes: 0, limit: 1_000_000, reads: 1_000_000 },
} as const satisfies Record<string, ObjectSet>;

/** Names of one page of a listing. */
export const PAGE_NAMES = 1000;

export type Action =
  | "put"
  | "get"
  | "head"
  | "overwrite"
  | "delete"
  | "mixed"
  /** All names of the set, with a PUT between any two listings. */
  | "list"
  | "page"
  /** The same after as many names between those of the set were put and deleted. */
  | "page-after-deletes"
  | "healthcheck"
  | "login"
  | "token-check";

/** What the project wants to reach (issues 3 and 4). */
export type Reach = {
  /** How many times faster than the other contender. */
  readonly ratio?: number;
  readonly requestsPerSecond?: number;
  readonly p99Ms?: number;
  readonly cpuUsPerRequest?: number;
};

export type Row = {
  readonly id: string;
  readonly title: string;
  readonly action: Action;
  readonly set: ObjectSet;
  readonly clients: number;
  readonly generator: "raw" | "autocannon";
  /** What the ratio and the chart compare. */
  readonly metric: "rate" | "p99";
  readonly reach: Reach;
  /** PUTs that go on meanwhile. */
  readonly beside: { readonly set: ObjectSet; readonly clients: number } | undefined;
  /** Swift takes hours to fill it: compared with `--full` only, and then as far as Swift can fill it. */
  readonly isLong: boolean;
};

const row = (
  id: string,
  title: string,
  action: Action,
  set: ObjectSet,
  clients: number,
  reach: Reach = {},
  more: Partial<Pick<Row, "generator" | "metric" | "beside" | "isLong">> = {},
): Row => ({
  id,
  title,
  action,
  set,
  clients,
  generator: "raw",
  metric: "rate",
  beside: undefined,
  isLong: false,
  ...more,
  reach,
});

const BESIDE_MIB = { set: SETS.mib, clients: 8 };
const AUTOCANNON = { generator: "autocannon" } as const;
const LONG_PAGE = { metric: "p99", isLong: true } as const;

/** In the order in which they run: what reads comes after what writes, what deletes is last, what fills for long is very last. */
export const ROWS: readonly [Row, ...Row[]] = [
  row("put-4k", "PUT 4 KiB, 32 clients", "put", SETS.small, 32, { ratio: 30, cpuUsPerRequest: 500 }),
  row("get-4k", "GET 4 KiB, 32 clients", "get", SETS.small, 32, { ratio: 15, cpuUsPerRequest: 180 }),
  row("get-4k-autocannon", "GET 4 KiB, 32 clients (autocannon)", "get", SETS.small, 32, {}, AUTOCANNON),
  row("head-4k", "HEAD 4 KiB, 32 clients", "head", SETS.small, 32, { ratio: 15 }),
  row("overwrite-4k", "overwrite 4 KiB, 32 clients", "overwrite", SETS.small, 32),
  row("put-4k-1", "PUT 4 KiB, 1 client", "put", SETS.small, 1, { ratio: 6 }),
  row("get-4k-1", "GET 4 KiB, 1 client", "get", SETS.small, 1, { ratio: 5 }),
  row("head-4k-1", "HEAD 4 KiB, 1 client", "head", SETS.small, 1),
  row("mixed-4k", "80 GET, 15 PUT, 3 DELETE, 2 lists; 32 clients", "mixed", SETS.small, 32),
  row("delete-4k-1", "DELETE 4 KiB, 1 client", "delete", SETS.small, 1),
  row("delete-4k", "DELETE 4 KiB, 32 clients", "delete", SETS.small, 32, { ratio: 15 }),
  row("put-1m", "PUT 1 MiB, 8 clients", "put", SETS.mib, 8, { ratio: 2 }),
  row("get-1m", "GET 1 MiB, 8 clients", "get", SETS.mib, 8, { ratio: 3 }),
  row(
    "put-4k-beside-1m",
    "PUT 4 KiB, 32 clients, beside 8 of 1 MiB",
    "put",
    SETS.small,
    32,
    {},
    { metric: "p99", beside: BESIDE_MIB },
  ),
  row("put-64m", "PUT 64 MiB, 4 clients", "put", SETS.large, 4, { ratio: 1.2 }),
  row("get-64m", "GET 64 MiB, 4 clients", "get", SETS.large, 4, { ratio: 1.5 }),
  row("healthcheck", "GET /healthcheck, 32 clients", "healthcheck", SETS.small, 32, {}, AUTOCANNON),
  row("token-check", "HEAD account, 32 clients", "token-check", SETS.small, 32, {}, AUTOCANNON),
  row("login", "v1 login, 8 clients", "login", SETS.small, 8, {}, AUTOCANNON),
  row("list-10000", "list 10,000 names, JSON", "list", SETS.names, 1, { ratio: 15 }),
  row("page-million", "page of 1,000 of a million names", "page", SETS.million, 1, { p99Ms: 20 }, LONG_PAGE),
  row(
    "page-million-deletes",
    "the same after a million deletes",
    "page-after-deletes",
    SETS.million,
    1,
    { p99Ms: 20 },
    LONG_PAGE,
  ),
];
