import type { DeviceEngine, Mutation } from "./engine/device-engine.ts";
import { spaceOfKey } from "./store/key-space.ts";
import type { PartitionPlace } from "./wire.ts";

/** Keys read at once, and how many one commit removes. */
const SCAN_COUNT = 1_000;
const COMMIT_COUNT = 256;

const HASH_BITS = 32;
/** Behind every key: a hash of all ones is followed by a kind below this. */
const AFTER_ALL = Buffer.alloc(HASH_BITS / 8 + 1, 0xff);

const firstKeyOf = ({ partition, partitionPower }: PartitionPlace): Buffer => {
  if (partition >= 2 ** partitionPower) return AFTER_ALL;
  const key = Buffer.alloc(HASH_BITS / 8);
  key.writeUInt32BE(partition * 2 ** (HASH_BITS - partitionPower), 0);
  return key;
};

async function* keysOf(engine: DeviceEngine, place: PartitionPlace): AsyncGenerator<Uint8Array> {
  const lt = firstKeyOf({ ...place, partition: place.partition + 1 });
  let gte = firstKeyOf(place);
  for (;;) {
    const page = await engine.scan({ gte, lt, limit: SCAN_COUNT });
    for (const { key } of page) if (spaceOfKey(key) === place.space) yield key;
    const last = page.at(-1)?.key;
    if (last === undefined || page.length < SCAN_COUNT) return;
    gte = Buffer.concat([last, Buffer.alloc(1)]);
  }
}

/**
 * Removes all that `engine` has of the partition: every register, row and counter with its body. Resolves when that is synced, with the number of entries.
 * Errors: "unknown-key-kind", those of `check`, which is called in the turn in which each part goes.
 */
export const erasePartition = async (
  engine: DeviceEngine,
  place: PartitionPlace,
  check: () => void,
): Promise<number> => {
  let batch: Mutation[] = [];
  let count = 0;
  const commit = async (): Promise<void> => {
    check();
    count += batch.length;
    await engine.apply(batch);
    batch = [];
  };
  for await (const key of keysOf(engine, place)) {
    batch.push({ kind: "delete", key });
    if (batch.length === COMMIT_COUNT) await commit();
  }
  if (batch.length > 0) await commit();
  return count;
};
