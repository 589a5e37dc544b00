import type { Incarnation } from "../../common/ballot.ts";
import type { ContainerRecord, ShardRange } from "../../storage-node/wire.ts";

/** The container's own register, which keeps all rows before the listing is split for the first time. */
export const ROOT = "";

/** No client's account begins with a dot. */
export const SHARD_ACCOUNT_PREFIX = ".shards_";

const WHOLE: readonly ShardRange[] = [{ upTo: "", id: ROOT }];

const SURROGATE_FIRST = 0xd800;
const SURROGATE_LAST = 0xdfff;

/** Names as the bytes of their UTF-8 compare: JavaScript's order differs where one has a character beyond the first plane. */
export const compareNames = (left: string, right: string): number => {
  const length = Math.min(left.length, right.length);
  for (let at = 0; at < length; at++) {
    const [a, b] = [left.charCodeAt(at), right.charCodeAt(at)];
    if (a === b) continue;
    const isPairA = a >= SURROGATE_FIRST && a <= SURROGATE_LAST;
    const isPairB = b >= SURROGATE_FIRST && b <= SURROGATE_LAST;
    return isPairA === isPairB ? a - b : isPairA ? 1 : -1;
  }
  return left.length - right.length;
};

/** The name after `name`: nothing lies between, since no name has a zero byte. */
export const nextName = (name: string): string => `${name}\0`;

/** Where the names of a container are listed, in their order. */
export const rangesIn = (record: ContainerRecord | undefined): readonly ShardRange[] => record?.shards?.index ?? WHOLE;

/** The range that a name belongs to. Requires: it lies in one of them; the end of the last one is not looked at. */
export const rangeOfName = (ranges: readonly ShardRange[], name: string): ShardRange => {
  let low = 0;
  let high = ranges.length - 1;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (compareNames(name, ranges[middle]?.upTo ?? "") <= 0) high = middle;
    else low = middle + 1;
  }
  const range = ranges[low];
  if (range === undefined) throw new Error("a container without ranges");
  return range;
};

/** Where a change that is under way puts a name that stands in shard `id` now; undefined where it leaves that alone. */
export const successorOf = ({ shards }: ContainerRecord, id: string, name: string): string | undefined => {
  const change = shards?.change;
  if (change === undefined || !change.from.includes(id)) return undefined;
  return rangeOfName(change.to, name).id;
};

/** An index in which neighbours `from` are replaced. Requires: they stand there, one after the other, and `to` ends where the last of them does. */
export const replaced = (
  index: readonly ShardRange[],
  from: readonly string[],
  to: readonly ShardRange[],
): readonly ShardRange[] => {
  const first = index.findIndex(({ id }) => id === from[0]);
  return [...index.slice(0, first), ...to, ...index.slice(first + from.length)];
};

/** The name of a shard in its hidden account: the container's life and the shard's number, both of fixed width, then the container. */
export const shardName = (container: string, incarnation: Incarnation, id: string): string =>
  `${incarnation}-${id}-${container}`;

const SHARD_NAME = /^([0-9a-f]{24})-([0-9a-f]{25})-(.+)$/s;

/** What a shard is one of; undefined for a name that is no shard's. */
export const shardPlaceOf = (
  account: string,
  name: string,
):
  | { readonly account: string; readonly container: string; readonly incarnation: Incarnation; readonly id: string }
  | undefined => {
  const parts = account.startsWith(SHARD_ACCOUNT_PREFIX) ? SHARD_NAME.exec(name) : null;
  const [, incarnation, id, container] = parts ?? [];
  if (incarnation === undefined || id === undefined || container === undefined) return undefined;
  return {
    account: account.slice(SHARD_ACCOUNT_PREFIX.length),
    container,
    incarnation: incarnation as Incarnation,
    id,
  };
};
