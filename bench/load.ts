/** What main.ts asks of the process load-generator.ts (JSON on its standard input), and what that answers (JSON on standard output). */
export type LoadSpec = {
  readonly host: string;
  readonly port: number;
  readonly token: string;
  /** `/v1/ACCOUNT/CONTAINER`. */
  readonly containerPath: string;
  readonly work: LoadWork;
  readonly clients: number;
  readonly limitMs: number;
};

export type LoadWork =
  /**
   * Requests for `PREFIX-INDEX`. Indexes begin at `first` and rise; `count` of them are used, then they begin again if `again`, else
   * the load ends before its time. `sizeBytes` is the size of the objects, sent by PUT, expected of GET and HEAD.
   */
  | {
      readonly kind: "objects";
      readonly method: "PUT" | "GET" | "HEAD" | "DELETE";
      readonly prefix: string;
      readonly first: number;
      readonly count: number;
      readonly again: boolean;
      readonly sizeBytes: number;
    }
  /** One PUT over an existing name, then one listing of all `names` names as JSON; only the listings are timed. One client. */
  | { readonly kind: "listing"; readonly prefix: string; readonly names: number };

export type LoadResult = {
  /** Of every verified answer, in the order in which they came. */
  readonly latenciesUs: readonly number[];
  /** Requests that the server answered, those that are not timed too: what its CPU time is divided by. */
  readonly answered: number;
  readonly elapsedMs: number;
  /** How many different indexes were begun. */
  readonly begun: number;
  readonly failed: number;
  readonly firstFailure: string | undefined;
};

/** The name of object `index`. */
export const objectName = (prefix: string, index: number): string => `${prefix}-${String(index).padStart(7, "0")}`;
