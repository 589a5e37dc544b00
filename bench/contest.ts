import { type Contender, makeContainer, type Session } from "./contender.ts";
import { ContenderWatch, type LoadCost } from "./contender-watch.ts";
import type { LoadPart, LoadResult, LoadWork, ObjectWork } from "./load.ts";
import { type ObjectSet, PAGE_NAMES, type Row } from "./rows.ts";
import { runGenerator } from "./run-generator.ts";

/** One run of one row against one contender. */
export type Measurement = LoadResult &
  LoadCost & {
    /** How many names the listed container held; undefined where none is listed. */
    readonly names: number | undefined;
    /** How many names between them were put and deleted before; undefined where none were. */
    readonly deletedNames: number | undefined;
  };

export type ContestOptions = {
  /** Writing what a row needs ends after so long. */
  readonly fillLimitMs: number;
  /** Names in the container of the rows that list pages, instead of its set's limit. */
  readonly pageNames: number;
};

type Live = { from: number; to: number };

/** Objects that a row needs are written by so many clients: empty ones, which only cost names, by more. */
const FILL_CLIENTS = 32;
const FILL_CLIENTS_EMPTY = 64;
/** Deleted names lie between the live ones: the worst place for a listing. */
const DELETED_SUFFIX = "-deleted";

const listsNames = ({ action }: Row): boolean =>
  action === "list" || action === "page" || action === "page-after-deletes";

/** A marker's own name is not on its page. */
const pageNames = (live: number): number => Math.max(1, Math.min(PAGE_NAMES, live - 1));

const standingWork = (
  action: "healthcheck" | "login" | "token-check",
  { accountPath, token, auth }: Session,
): LoadWork => {
  switch (action) {
    case "healthcheck":
      return { kind: "request", method: "GET", path: "/healthcheck", headers: {}, status: 200 };
    case "token-check":
      return { kind: "request", method: "HEAD", path: accountPath, headers: { "X-Auth-Token": token }, status: 204 };
    case "login": {
      const headers = { "X-Auth-User": auth.user, "X-Auth-Key": auth.key };
      return { kind: "request", method: "GET", path: auth.path, headers, status: 200 };
    }
  }
};

/** A contender with what the rows have written to it so far: of each set the live objects are `from` … `to - 1`. */
export class Contest {
  readonly contender: Contender;
  readonly #options: ContestOptions;
  readonly #watch: ContenderWatch;
  readonly #live = new Map<string, Live>();
  /** Objects that mixed loads have begun to put. */
  #mixedPuts = 0;
  #deletedNames: number | undefined;

  constructor(contender: Contender, options: ContestOptions) {
    this.contender = contender;
    this.#options = options;
    this.#watch = new ContenderWatch(() => contender.processes());
  }

  /** See ContenderWatch. */
  measureIdle(): Promise<number> {
    return this.#watch.measureIdle();
  }

  /** Runs `row` for `limitMs`, after writing what it needs. `part`: a delete removes this share of the live objects. */
  async measure(row: Row, limitMs: number, part: number): Promise<Measurement> {
    await this.#prepare(row, limitMs);
    await this.#watch.becomeQuiet();
    const session = await this.contender.login();
    const background =
      row.beside === undefined
        ? undefined
        : { container: row.beside.set.name, work: this.#overwrite(row.beside.set), clients: row.beside.clients };
    const front = { container: row.set.name, work: this.#workOf(row, session, part), clients: row.clients };
    const measured = await this.#watch.cost(() => this.#load(session, row.generator, limitMs, front, { background }));
    return {
      ...measured,
      names: listsNames(row) ? this.#liveOf(row.set).to - this.#liveOf(row.set).from : undefined,
      deletedNames: row.action === "page-after-deletes" ? this.#deletedNames : undefined,
    };
  }

  /** A short unmeasured load, so that neither side pays for its first requests. */
  async warmUp(set: ObjectSet, limitMs: number): Promise<void> {
    await this.#makeSet(set);
    const part = { container: set.name, work: this.#write(set), clients: FILL_CLIENTS };
    await this.#load(await this.contender.login(), "raw", limitMs, part);
  }

  async #makeSet(set: ObjectSet): Promise<Live> {
    const known = this.#live.get(set.name);
    if (known !== undefined) return known;
    await makeContainer(await this.contender.login(), set.name);
    const live = { from: 0, to: 0 };
    this.#live.set(set.name, live);
    return live;
  }

  #liveOf(set: ObjectSet): Live {
    return this.#live.get(set.name) ?? { from: 0, to: 0 };
  }

  async #prepare({ action, set, beside }: Row, limitMs: number): Promise<void> {
    await this.#makeSet(set);
    if (beside !== undefined) await this.#fillUp(beside.set, beside.set.reads);
    switch (action) {
      case "put":
      case "healthcheck":
      case "login":
      case "token-check":
        return;
      case "delete": {
        const { from, to } = this.#liveOf(set);
        if (from === to) await this.#fill(set, this.#write(set), limitMs);
        return;
      }
      case "page":
        return this.#fillUp(set, this.#options.pageNames);
      case "page-after-deletes":
        await this.#fillUp(set, this.#options.pageNames);
        return this.#deleteBetween(set);
      case "get":
      case "head":
      case "overwrite":
      case "mixed":
      case "list":
        return this.#fillUp(set, set.reads);
    }
  }

  /** Makes `count` objects live, or as many as the time allows. Throws when a request fails, or when there is not one object then. */
  async #fillUp(set: ObjectSet, count: number): Promise<void> {
    const { from, to } = await this.#makeSet(set);
    const missing = count - (to - from);
    if (missing <= 0) return;
    await this.#fill(set, { ...this.#write(set), first: to, count: missing, again: false }, this.#options.fillLimitMs);
    const reached = this.#liveOf(set).to - from;
    if (reached === 0) throw new Error(`${this.contender.name}: nothing could be written to ${set.name}`);
    if (reached < count) console.log(`  ${this.contender.name}: ${reached} of ${count} objects of ${set.name} in time`);
  }

  async #fill(set: ObjectSet, work: ObjectWork, limitMs: number): Promise<LoadResult> {
    const clients = set.sizeBytes === 0 ? FILL_CLIENTS_EMPTY : FILL_CLIENTS;
    const progress = `${this.contender.name}: ${work.method} ${work.prefix}-…${work.suffix}`;
    const part = { container: set.name, work, clients };
    const result = await this.#load(await this.contender.login(), "raw", limitMs, part, { progress });
    if (result.failed > 0)
      throw new Error(`${progress}: ${result.failed} failed, the first one: ${result.firstFailure}`);
    return result;
  }

  /** As many names as are live, each behind one of them, put and deleted again. */
  async #deleteBetween(set: ObjectSet): Promise<void> {
    if (this.#deletedNames !== undefined) return;
    const { from, to } = this.#liveOf(set);
    const gone = { ...this.#objects(set), suffix: DELETED_SUFFIX, first: from, again: false };
    const { fillLimitMs } = this.#options;
    const put = await this.#fill(set, { ...gone, method: "PUT", count: to - from }, fillLimitMs);
    const removal = { ...gone, method: "DELETE" as const, count: put.begun };
    // However long it takes, every one of them has to go: pages would hold names that are not expected.
    this.#deletedNames = (await this.#fill(set, removal, Number.MAX_SAFE_INTEGER)).begun;
  }

  #objects(set: ObjectSet): Pick<ObjectWork, "kind" | "prefix" | "suffix" | "sizeBytes"> {
    return { kind: "objects", prefix: set.name, suffix: "", sizeBytes: set.sizeBytes };
  }

  /** New objects; where the set is full, the same ones again from the first. */
  #write(set: ObjectSet): ObjectWork {
    const { to } = this.#liveOf(set);
    const left = set.limit - to;
    const again = left < set.reads;
    const place = again ? { first: 0, count: set.limit } : { first: to, count: left };
    return { ...this.#objects(set), method: "PUT", ...place, again };
  }

  #overwrite(set: ObjectSet): ObjectWork {
    const { from, to } = this.#liveOf(set);
    return {
      ...this.#objects(set),
      method: "PUT",
      first: from,
      count: Math.max(1, Math.min(to - from, set.reads)),
      again: true,
    };
  }

  #workOf({ action, set, id }: Row, session: Session, part: number): LoadWork {
    const { from, to } = this.#liveOf(set);
    const count = Math.min(to - from, set.reads);
    const reads = { ...this.#objects(set), first: from, count, again: true };
    switch (action) {
      case "put":
        return this.#write(set);
      case "overwrite":
        return this.#overwrite(set);
      case "get":
        return { ...reads, method: "GET" };
      case "head":
        return { ...reads, method: "HEAD" };
      case "delete":
        return { ...reads, method: "DELETE", count: Math.ceil((to - from) * part), again: false };
      case "mixed": {
        const names = pageNames(count);
        return { ...reads, kind: "mixed", putPrefix: id, firstPut: this.#mixedPuts, names };
      }
      case "list":
        return { kind: "listing", prefix: set.name, names: to - from };
      case "page":
      case "page-after-deletes": {
        const live = to - from;
        return { kind: "page", prefix: set.name, first: from, count: live, names: pageNames(live) };
      }
      case "healthcheck":
      case "login":
      case "token-check":
        return standingWork(action, session);
    }
  }

  async #load(
    session: Session,
    generator: Row["generator"],
    limitMs: number,
    front: LoadPart,
    more: { readonly background?: LoadPart | undefined; readonly progress?: string } = {},
  ): Promise<LoadResult> {
    const { host, port, accountPath, token } = session;
    const { background, progress } = more;
    const result = await runGenerator(generator, {
      host,
      port,
      token,
      accountPath,
      front,
      limitMs,
      ...(background === undefined ? {} : { background }),
      ...(progress === undefined ? {} : { progress }),
    });
    this.#note(front, result.begun);
    return result;
  }

  #note({ container, work }: LoadPart, begun: number): void {
    if (work.kind === "mixed") this.#mixedPuts += begun;
    const live = this.#live.get(container);
    if (live === undefined || work.kind !== "objects" || work.suffix !== "") return;
    const end = work.first + Math.min(begun, work.count);
    if (work.method === "PUT") live.to = Math.max(live.to, end);
    if (work.method === "DELETE") live.from = end;
  }
}
