import type { Incarnation } from "../../common/ballot.ts";
import type { ContainerRecord } from "../../storage-node/wire.ts";
import type { OpenContainer, RouteMemory } from "./container-place.ts";
import { ROOT } from "./shard-ranges.ts";

/** Shards that are remembered as gone; the oldest is forgotten, and asked for again. */
const GONE_LIMIT = 64;

/** What one process remembers of one container's shards. */
export class ShardMemory implements RouteMemory {
  #found: OpenContainer | undefined;
  readonly #gone = new Set<string>();

  route(): ContainerRecord | undefined {
    return this.#found?.record;
  }

  /** A later version replaces an earlier one: answers may come in another order than that in which they were given. */
  learn(found: OpenContainer): void {
    if (this.#found === undefined || found.version > this.#found.version) this.#found = found;
  }

  isGone(incarnation: Incarnation, id: string): boolean {
    if (id === ROOT && this.#isRootGone(incarnation)) return true;
    return this.#gone.has(`${incarnation} ${id}`);
  }

  /** The container's own record says so, and what is learnt is established. */
  #isRootGone(incarnation: Incarnation): boolean {
    const record = this.#found?.record;
    const rows = record?.incarnation === incarnation ? record.shards?.rows : undefined;
    return rows === "gone" || rows === "dropped";
  }

  noteGone(incarnation: Incarnation, id: string): void {
    if (this.#gone.size >= GONE_LIMIT) for (const oldest of this.#gone) return this.#replace(oldest, incarnation, id);
    this.#gone.add(`${incarnation} ${id}`);
  }

  #replace(oldest: string, incarnation: Incarnation, id: string): void {
    this.#gone.delete(oldest);
    this.#gone.add(`${incarnation} ${id}`);
  }
}
