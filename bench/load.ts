/**
 * What contest.ts asks of a generator (JSON on its standard input), and what that answers (JSON on standard output). There are two:
 * load-generator.ts takes every spec, autocannon-generator.ts those of `StandingWork`.
 */
export type LoadSpec = {
  readonly host: string;
  readonly port: number;
  readonly token: string;
  /** `/v1/ACCOUNT`. */
  readonly accountPath: string;
  readonly front: LoadPart;
  /** Runs beside `front` as long as that does; its answers are counted, not timed. */
  readonly background?: LoadPart;
  readonly limitMs: number;
  /** Where given, how far the load is goes to standard error every few seconds under this name. */
  readonly progress?: string;
};

export type LoadPart = { readonly container: string; readonly work: LoadWork; readonly clients: number };

/**
 * Requests for `PREFIX-INDEX[SUFFIX]`. Indexes begin at `first` and rise; `count` of them are used, then they begin again if `again`,
 * else the load ends before its time. `sizeBytes` is the size of the objects, sent by PUT, expected of GET and HEAD.
 */
export type ObjectWork = {
  readonly kind: "objects";
  readonly method: "PUT" | "GET" | "HEAD" | "DELETE";
  readonly prefix: string;
  readonly suffix: string;
  readonly first: number;
  readonly count: number;
  readonly again: boolean;
  readonly sizeBytes: number;
};

/** One request again and again. `headers`: whole lines, each with its line end. */
export type RequestWork = {
  readonly kind: "request";
  readonly method: "GET" | "HEAD" | "POST";
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly status: number;
};

/** Each of `requests` in turn, then the first again; answers bring at least `bytesMin` bytes of body. */
export type TurnWork = { readonly kind: "turn"; readonly requests: readonly RequestWork[]; readonly bytesMin: number };

/** One PUT over an existing name, then one listing of all `names` names as JSON; only the listings are timed. One client. */
export type ListingWork = { readonly kind: "listing"; readonly prefix: string; readonly names: number };

/** JSON pages of `names` names, each from another marker among the objects `first` … `first + count - 1`. Requires: names < count. */
export type PageWork = {
  readonly kind: "page";
  readonly prefix: string;
  readonly first: number;
  readonly count: number;
  readonly names: number;
};

/**
 * Of 100 requests 80 GET, 15 PUT, 3 DELETE, 2 listing pages. GET and pages go over the objects `first` … `first + count - 1`; PUT makes
 * new ones, `putPrefix-INDEX` from `firstPut`; DELETE removes what the same client has put, so that no request can miss its object.
 */
export type MixedWork = {
  readonly kind: "mixed";
  readonly prefix: string;
  readonly first: number;
  readonly count: number;
  readonly putPrefix: string;
  readonly firstPut: number;
  readonly sizeBytes: number;
  readonly names: number;
};

export type StandingWork = ObjectWork | RequestWork;
export type LoadWork = StandingWork | TurnWork | ListingWork | PageWork | MixedWork;

export type LoadResult = {
  /** Of every verified answer, in the order in which they came. */
  readonly latenciesUs: readonly number[];
  /** Requests of `front` that the server answered, those that are not timed too: what its CPU time is divided by. */
  readonly answered: number;
  readonly backgroundAnswered: number;
  readonly elapsedMs: number;
  /** How many different indexes were begun; of a mixed load, those of PUT. */
  readonly begun: number;
  /** CPU time of the generator while it ran the load. */
  readonly clientCpuMs: number;
  readonly failed: number;
  readonly firstFailure: string | undefined;
};

export const INDEX_DIGITS = 7;

/** The name of object `index`. Requires: index of at most INDEX_DIGITS digits. */
export const objectName = (prefix: string, index: number, suffix = ""): string =>
  `${prefix}-${String(index).padStart(INDEX_DIGITS, "0")}${suffix}`;
