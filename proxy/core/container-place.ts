import type { Ballot, Incarnation } from "../../common/ballot.ts";
import type { ContainerRecord } from "../../storage-node/wire.ts";
import { ROOT } from "./shard-ranges.ts";

/** The registers and row spaces that belong to one container, and what a process remembers of them. */
export type ContainerPlace<S> = {
  readonly container: S;
  readonly account: S;
  readonly name: string;
  /** The replicas of one of its shards. */
  shardOf(incarnation: Incarnation, id: string): S;
  readonly memory: RouteMemory;
};

/** What a process remembers of where a container's rows are; it may be out of date, or nothing. */
export type RouteMemory = {
  /** The container's record. */
  route(): ContainerRecord | undefined;
  learn(found: OpenContainer): void;
  /** Whether a shard's rows are known to be elsewhere, which they stay. */
  isGone(incarnation: Incarnation, id: string): boolean;
  noteGone(incarnation: Incarnation, id: string): void;
};

/** Where a part of a container's rows is. */
export const setOf = <S>(place: ContainerPlace<S>, incarnation: Incarnation, id: string): S =>
  id === ROOT ? place.container : place.shardOf(incarnation, id);

export type OpenContainer = { readonly record: ContainerRecord; readonly version: Ballot };
