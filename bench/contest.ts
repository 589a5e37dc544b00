import { spawn } from "node:child_process";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { type Contender, makeContainer } from "./contender.ts";
import type { LoadResult, LoadSpec, LoadWork } from "./load.ts";
import { type Usage, usageOf } from "./process-usage.ts";
import { DISTINCT_OBJECTS, type ObjectSet, type Row } from "./rows.ts";

/** One run of one row against one contender. */
export type Measurement = LoadResult & { readonly cpuMs: number; readonly memory: Omit<Usage, "cpuMs"> };

const GENERATOR = join(import.meta.dirname, "load-generator.ts");
/** Objects that are only needed by another row are written by so many clients, in at most this time. */
const FILL_CLIENTS = 32;
const FILL_LIMIT_MS = 600_000;

const generate = async (spec: LoadSpec): Promise<LoadResult> => {
  const child = spawn(process.execPath, [GENERATOR], { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.end(JSON.stringify(spec));
  const output = await text(child.stdout);
  if (output === "") throw new Error("the load generator ended without a result; see above");
  return JSON.parse(output);
};

/** A contender with what the rows have written to it so far: of each set the live objects are `from` … `to - 1`. */
export class Contest {
  readonly contender: Contender;
  readonly #live = new Map<string, { from: number; to: number }>();

  constructor(contender: Contender) {
    this.contender = contender;
  }

  /** Runs `row` for `limitMs`, after writing what it needs. `part`: a delete removes this share of the live objects. */
  async measure(row: Row, limitMs: number, part: number): Promise<Measurement> {
    await this.#prepare(row, limitMs);
    const before = usageOf(this.contender.processes());
    const result = await this.#load(row.set, this.#workOf(row, part), row.clients, limitMs);
    const { cpuMs, ...memory } = usageOf(this.contender.processes());
    return { ...result, cpuMs: cpuMs - before.cpuMs, memory };
  }

  /** A short unmeasured load, so that neither side pays for its first requests. */
  async warmUp(set: ObjectSet, limitMs: number): Promise<void> {
    await this.#makeSet(set);
    await this.#load(set, this.#write(set), FILL_CLIENTS, limitMs);
  }

  async #makeSet(set: ObjectSet): Promise<{ from: number; to: number }> {
    const known = this.#live.get(set.name);
    if (known !== undefined) return known;
    await makeContainer(await this.contender.login(), set.name);
    const live = { from: 0, to: 0 };
    this.#live.set(set.name, live);
    return live;
  }

  async #prepare({ action, set }: Row, limitMs: number): Promise<void> {
    const live = await this.#makeSet(set);
    if (action === "list") {
      const missing = set.limit - live.to;
      if (missing > 0) await this.#load(set, this.#write(set), FILL_CLIENTS, FILL_LIMIT_MS);
      if (live.to < set.limit) throw new Error(`only ${live.to} of ${set.limit} names could be written`);
    } else if (action !== "put" && live.to === live.from) {
      await this.#load(set, this.#write(set), FILL_CLIENTS, limitMs);
    }
  }

  #write(set: ObjectSet): LoadWork {
    const { to } = this.#live.get(set.name) ?? { to: 0 };
    const isFull = to >= set.limit;
    return {
      kind: "objects",
      method: "PUT",
      prefix: set.name,
      first: isFull ? 0 : to,
      count: isFull ? set.limit : set.limit - to,
      again: isFull,
      sizeBytes: set.sizeBytes,
    };
  }

  #workOf({ action, set }: Row, part: number): LoadWork {
    const { from, to } = this.#live.get(set.name) ?? { from: 0, to: 0 };
    const objects = { kind: "objects", prefix: set.name, first: from, sizeBytes: set.sizeBytes } as const;
    const count = Math.min(to - from, DISTINCT_OBJECTS);
    switch (action) {
      case "put":
        // A bounded set begins again within one run; the objects made before are then written over.
        return to < set.limit && set.limit - to < DISTINCT_OBJECTS
          ? { ...objects, method: "PUT", first: 0, count: set.limit, again: true }
          : this.#write(set);
      case "overwrite":
        return { ...objects, method: "PUT", count, again: true };
      case "get":
        return { ...objects, method: "GET", count, again: true };
      case "head":
        return { ...objects, method: "HEAD", count, again: true };
      case "delete":
        return { ...objects, method: "DELETE", count: Math.ceil((to - from) * part), again: false };
      case "list":
        return { kind: "listing", prefix: set.name, names: set.limit };
    }
  }

  async #load(set: ObjectSet, work: LoadWork, clients: number, limitMs: number): Promise<LoadResult> {
    const { host, port, accountPath, token } = await this.contender.login();
    const containerPath = `${accountPath}/${set.name}`;
    const result = await generate({ host, port, token, containerPath, work, clients, limitMs });
    this.#note(set, work, result.begun);
    return result;
  }

  #note(set: ObjectSet, work: LoadWork, begun: number): void {
    const live = this.#live.get(set.name);
    if (live === undefined || work.kind === "listing") return;
    const end = work.first + Math.min(begun, work.count);
    if (work.method === "PUT") live.to = Math.max(live.to, end);
    if (work.method === "DELETE") live.from = end;
  }
}
