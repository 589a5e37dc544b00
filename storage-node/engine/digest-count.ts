import { messageOf } from "../../common/errors.ts";
import type { DigestTable } from "./digest-table.ts";
import { BackgroundPause } from "./background-pause.ts";
import type { EngineTimer } from "./engine-timer.ts";
import { type IntactValue, readIntact } from "./index-format.ts";
import type { Index } from "./index-port.ts";
import type { Pending } from "./log-writer.ts";
import { nameOf } from "./scan-merge.ts";

const PAGE_ENTRIES = 1000;
/** Between two pages, so that requests come first. */
const PAUSE_MS = 2;
const RETRY_MS = 60_000;

/** Counts a device's digests anew in the background, range by range, while it serves. */
export class DigestCount {
  readonly #index: Index;
  readonly #pendingIn: (low: string, high: string) => Pending[];
  readonly #table: DigestTable;
  readonly #pauses: BackgroundPause;
  #running: Promise<void> | undefined;
  #isClosed = false;
  #failure: string | undefined;
  countedGroups = 0;

  constructor(
    index: Index,
    /** Changes of a range that the index lacks in this turn. */
    pendingIn: (low: string, high: string) => Pending[],
    table: DigestTable,
    timer: EngineTimer,
  ) {
    this.#index = index;
    this.#pendingIn = pendingIn;
    this.#table = table;
    this.#pauses = new BackgroundPause(timer);
  }

  get isRunning(): boolean {
    return this.#running !== undefined;
  }

  /** Why the last count failed; it is tried again. */
  get failure(): string | undefined {
    return this.#failure;
  }

  /** Nothing where one is under way. */
  start(): void {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
  }

  /** Counts while what is known still counts; how many buckets were wrong. Undefined where a count was under way or could not be finished. */
  async recount(): Promise<number | undefined> {
    if (this.#running !== undefined || this.#isClosed) return undefined;
    let wrong: number | undefined;
    const counting = async (): Promise<void> => {
      try {
        if (await this.#count()) wrong = this.#table.finishCount();
      } catch (error) {
        this.#failure = messageOf(error);
      } finally {
        if (wrong === undefined) this.#table.abandonCount();
        this.#running = undefined;
      }
    };
    this.#running = counting();
    await this.#running;
    // Doubt that came up meanwhile, which a finished count has answered.
    if (!this.#table.isCertain) this.start();
    return wrong;
  }

  async #run(): Promise<void> {
    while (!this.#isClosed) {
      try {
        if (await this.#count()) this.#table.finishCount();
        else this.#table.abandonCount();
        this.#failure = undefined;
        return;
      } catch (error) {
        // An index that cannot be read says so to those who need what is in it.
        this.#table.abandonCount();
        this.#failure = messageOf(error);
      }
      await this.#pauses.pause(RETRY_MS);
    }
  }

  /** False where it was cut short. */
  async #count(): Promise<boolean> {
    const { scheme } = this.#table;
    this.#table.beginCount();
    const groups = scheme.bucketCount / scheme.groupSize;
    for (this.countedGroups = 0; this.countedGroups < groups; this.countedGroups++)
      if (!(await this.#countGroup(this.countedGroups))) return false;
    return true;
  }

  async #countGroup(group: number): Promise<boolean> {
    const table = this.#table;
    const { scheme } = table;
    const gte = scheme.firstKeyOf(group);
    const lt = scheme.firstKeyOf(group + 1);
    // In one turn: the cursor sees the index as it is now, the overlay is what that lacks, and what comes later is counted as it comes.
    const overlay = new Map(this.#pendingIn(nameOf(gte), nameOf(lt)).map((pending) => [pending.name, pending]));
    const cursor = this.#index.cursor({ gte, lt, reverse: false });
    const intact: IntactValue = { bodyKind: 0, digest: 0n };
    table.beginGroup(group);
    try {
      for (const { name, live } of overlay.values()) {
        const key = Buffer.from(name, "latin1");
        const bucket = live === undefined ? -1 : scheme.bucketOf(key);
        if (live !== undefined && bucket >= 0) table.countEntry(bucket, live.digest);
      }
      let sincePause = 0;
      for (let page = await cursor.next(PAGE_ENTRIES); page.length > 0; page = await cursor.next(PAGE_ENTRIES)) {
        if (this.#isClosed) return false;
        for (const [key, bytes] of page) {
          const bucket = scheme.bucketOf(key);
          if (bucket < 0 || (overlay.size > 0 && overlay.has(nameOf(key)))) continue;
          // A damaged entry is superseded like an absent one.
          if (readIntact(bytes, intact)) table.countEntry(bucket, intact.digest);
        }
        sincePause += page.length;
        if (sincePause >= PAGE_ENTRIES) await this.#pauses.pause(PAUSE_MS);
      }
      return !this.#isClosed;
    } finally {
      await cursor.close();
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#pauses.end();
    await this.#running;
  }
}
