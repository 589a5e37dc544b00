import type { Incarnation } from "../../common/ballot.ts";
import type { ContainerRecord } from "../../storage-node/wire.ts";
import type { ContainerPlace, OpenContainer, RouteMemory } from "../core/container-place.ts";
import { ShardMemory } from "../core/shard-memory.ts";
import { SHARD_ACCOUNT_PREFIX, shardName } from "../core/shard-ranges.ts";
import type { ReplicaSet } from "./partition.ts";
import type { Partitions } from "./partitions.ts";

/** Containers whose shards are remembered; the oldest is forgotten, and learned anew. */
const MEMORIES_LIMIT = 10_000;

/** What this process knows of the shards of containers; nothing of those that have none. */
export type ShardMemories = Map<string, ShardMemory>;

/** Where a container's record, its shards and its row in the account are kept, and what this process remembers of that: one for each operation. */
export class ContainerAt implements ContainerPlace<ReplicaSet>, RouteMemory {
  readonly account: ReplicaSet;
  readonly container: ReplicaSet;
  readonly name: string;
  readonly #accountName: string;
  readonly #partitions: Partitions;
  readonly #memories: ShardMemories;

  constructor(partitions: Partitions, memories: ShardMemories, account: string, name: string) {
    this.container = partitions.container(account, name);
    this.account = partitions.account(account);
    this.name = name;
    this.#accountName = account;
    this.#partitions = partitions;
    this.#memories = memories;
  }

  get memory(): RouteMemory {
    return this;
  }

  shardOf(incarnation: Incarnation, id: string): ReplicaSet {
    const account = SHARD_ACCOUNT_PREFIX + this.#accountName;
    return this.#partitions.container(account, shardName(this.name, incarnation, id));
  }

  route(): ContainerRecord | undefined {
    return this.#memories.size === 0 ? undefined : this.#memories.get(this.#id)?.route();
  }

  learn(found: OpenContainer): void {
    const known = this.#memories.get(this.#id);
    if (known === undefined && found.record.shards === undefined) return;
    (known ?? this.#remember()).learn(found);
  }

  isGone(incarnation: Incarnation, id: string): boolean {
    return this.#memories.get(this.#id)?.isGone(incarnation, id) === true;
  }

  noteGone(incarnation: Incarnation, id: string): void {
    (this.#memories.get(this.#id) ?? this.#remember()).noteGone(incarnation, id);
  }

  get #id(): string {
    return this.container.name.path;
  }

  #remember(): ShardMemory {
    const memory = new ShardMemory();
    if (this.#memories.size >= MEMORIES_LIMIT) {
      const oldest = this.#memories.keys().next();
      if (!oldest.done) this.#memories.delete(oldest.value);
    }
    this.#memories.set(this.#id, memory);
    return memory;
  }
}
