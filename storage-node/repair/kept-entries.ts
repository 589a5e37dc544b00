import { type Doomed, isAtOrBelow } from "../core/reclaim.ts";
import type { DeviceReplica } from "../device-replica.ts";
import { isRegisterKey } from "../store/key-space.ts";
import { nameOfRow } from "../store/keys.ts";
import type { PartitionPlace } from "../wire.ts";
import { stampOf } from "./entry-list.ts";
import type { RepairSource } from "./repair-peer.ts";
import { bucketSums, type KeyRange, rangesThatDiffer, scanSpace } from "./repair-source.ts";

/** Tells what is held under a key from what is held of other names: the two rows of a name are one. */
const nameIn = (key: string): string => {
  const bytes = Buffer.from(key, "latin1");
  return isRegisterKey(bytes) ? key : nameOfRow(bytes);
};

/**
 * [E6]: what this device holds of a partition, at or below its marks there, and none of `voters` holds anything of the name of. Asked of each are the sums of its
 * buckets, and the keys where no two agree: after a pull that is nothing, or what is to go. Errors: those of the voters.
 *
 * Requires: this device does not vote there, has taken over the marks of the voters, and pulled from them since.
 */
export const keptForNobody = async (
  replica: DeviceReplica,
  place: PartitionPlace,
  voters: readonly RepairSource[],
): Promise<readonly Doomed[]> => {
  const there = await Promise.all(voters.map((voter) => voter.buckets(place)));
  const found: Doomed[] = [];
  for (const range of rangesThatDiffer(place, bucketSums(replica.engine, place), there)) {
    const kept = await oldEntries(replica, place, range);
    for (const voter of voters) if (kept.size > 0) await strikeHeld(kept, place, range, voter);
    for (const some of kept.values()) found.push(...some);
  }
  return found;
};

/** Those at or below the marks, by their names. */
const oldEntries = async (
  { deletions, engine }: DeviceReplica,
  place: PartitionPlace,
  { gte, lt }: KeyRange,
): Promise<Map<string, Doomed[]>> => {
  const marks = deletions.marksOf(place);
  const found = new Map<string, Doomed[]>();
  for (let from: Uint8Array | undefined = gte; from !== undefined; ) {
    const page: Awaited<ReturnType<typeof scanSpace>> = await scanSpace(engine, place.space, { gte: from, lt });
    for (const { key, value } of page.entries) {
      const { key: text, stamp: ballot } = stampOf(key, value);
      if (!isAtOrBelow(ballot, isRegisterKey(key) ? marks.registers : marks.rows)) continue;
      const name = nameIn(text);
      found.set(name, [...(found.get(name) ?? []), { key, ballot }]);
    }
    from = page.next;
  }
  return found;
};

/** Takes those out of which a voter holds something. */
const strikeHeld = async (
  kept: Map<string, unknown>,
  { space }: PartitionPlace,
  { gte, lt }: KeyRange,
  voter: RepairSource,
): Promise<void> => {
  for (let from = gte; ; ) {
    const page = await voter.entries(space, from, lt);
    for (const { key } of page.entries) kept.delete(nameIn(key));
    if (page.next === undefined || Buffer.compare(page.next, from) <= 0) return;
    from = page.next;
  }
};
