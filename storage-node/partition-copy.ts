import assert from "node:assert/strict";
import { RingsteadError } from "../common/errors.ts";
import type { DeviceEngine, Entry, Mutation, NewBody } from "./engine/device-engine.ts";
import { CEILING_KEY } from "./store/keys.ts";
import { spaceOfKey } from "./store/key-space.ts";
import type { Space } from "./wire.ts";

/** Keys read at once, and how much one commit carries: both bound memory. */
const SCAN_COUNT = 1_000;
const COMMIT_COUNT = 256;
const COMMIT_BYTES = 4 * 1024 * 1024;
const READ_BYTES = 1024 * 1024;

/** One partition of one ring. */
export type PartitionPlace = { readonly space: Space; readonly partition: number; readonly partitionPower: number };

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

const copyOfBody = async (source: DeviceEngine, target: DeviceEngine, { body }: Entry): Promise<NewBody> => {
  switch (body.kind) {
    case "none":
      return { kind: "none" };
    case "log":
      return { kind: "bytes", bytes: await source.readBody(body, 0, body.length) };
    case "file": {
      const staged = await target.stage();
      for (let offset = 0; offset < body.length; offset += READ_BYTES) {
        await staged.write(await source.readBody(body, offset, Math.min(READ_BYTES, body.length - offset)));
      }
      return { kind: "staged", file: staged.file, length: await staged.seal() };
    }
  }
};

/** Removes all that `engine` has of the partition. Resolves when that is synced. */
export const erasePartition = async (engine: DeviceEngine, place: PartitionPlace): Promise<void> => {
  let batch: Mutation[] = [];
  for await (const key of keysOf(engine, place)) {
    batch.push({ kind: "delete", key });
    if (batch.length < COMMIT_COUNT) continue;
    await engine.apply(batch);
    batch = [];
  }
  if (batch.length > 0) await engine.apply(batch);
};

/**
 * Makes `target` the replica of the partition that `source` is: every register, row and counter with its body, nothing else. Requires: no
 * process serves either device. Resolves when all of it is synced, with what was copied. Throws RingsteadError `body-damaged`,
 * `device-full`, `unknown-key-kind`; the target then holds a part that the next call erases first.
 */
export const copyPartition = async (
  source: DeviceEngine,
  target: DeviceEngine,
  place: PartitionPlace,
): Promise<{ readonly entries: number; readonly bytes: number }> => {
  assert(source !== target, "a partition that is copied onto itself would be erased");
  await erasePartition(target, place);
  await raiseCeiling(source, target);
  let entries = 0;
  let bytes = 0;
  let batch: Mutation[] = [];
  let batchBytes = 0;
  for await (const key of keysOf(source, place)) {
    const entry = source.get(key);
    if (entry === undefined) throw new RingsteadError("device-changed", "a key is gone while its partition is copied");
    const body = await copyOfBody(source, target, entry);
    batch.push({ kind: "put", key, value: entry.value, body });
    entries += 1;
    bytes += entry.body.kind === "none" ? 0 : entry.body.length;
    batchBytes += entry.value.length + (body.kind === "bytes" ? body.bytes.length : 0);
    if (batch.length < COMMIT_COUNT && batchBytes < COMMIT_BYTES) continue;
    await target.apply(batch);
    batch = [];
    batchBytes = 0;
  }
  if (batch.length > 0) await target.apply(batch);
  return { entries, bytes };
};

/** The promises that the source gave bind the target too ([D2]). Ceilings compare as their bytes do. */
const raiseCeiling = async (source: DeviceEngine, target: DeviceEngine): Promise<void> => {
  const promised = source.get(CEILING_KEY)?.value;
  if (promised === undefined) return;
  const own = target.get(CEILING_KEY)?.value;
  if (own !== undefined && Buffer.compare(own, promised) >= 0) return;
  await target.apply([{ kind: "put", key: CEILING_KEY, value: promised, body: { kind: "none" } }]);
};
