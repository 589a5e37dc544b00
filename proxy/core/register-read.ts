import { timestampIn } from "../../common/ballot.ts";
import { type HybridTimestamp, TIMESTAMP_ZERO } from "../../common/hybrid-clock.ts";
import type { Register } from "../../storage-node/wire.ts";
import type { Quorum } from "./quorum.ts";

/** What one replica answered to a READ. */
export type ReplicaRead = { readonly replica: number; readonly register: Register | undefined };

export type ReadVerdict =
  | { readonly kind: "more" }
  | { readonly kind: "settled"; readonly register: Register | undefined; readonly holders: readonly number[] }
  | { readonly kind: "unfinished"; readonly register: Register; readonly holders: readonly number[] };

/**
 * PROTOCOL [R1], [R2] over the answers so far: what a read may serve, or what it has to finish first. That replicas agree proves nothing in a
 * joint phase, where the new members may lack what the old ones have ([M1]), and nothing at or below the partition's floor ([M5]).
 */
export const judgeRead = (
  quorum: Quorum,
  answers: readonly ReplicaRead[],
  floor: HybridTimestamp = TIMESTAMP_ZERO,
): ReadVerdict => {
  if (answers.length < quorum.readCount) return { kind: "more" };
  let highest: Register | undefined;
  for (const { register } of answers) {
    if (register !== undefined && (highest === undefined || register.ballot > highest.ballot)) highest = register;
  }
  if (highest === undefined) return { kind: "settled", register: undefined, holders: [] };
  let equal = 0;
  let isSettled = false;
  const holders: number[] = [];
  for (const { replica, register } of answers) {
    if (register === undefined || register.version !== highest.version) continue;
    holders.push(replica);
    if (register.ballot === highest.ballot) equal += 1;
    if (register.state !== "accepted") {
      isSettled = true;
      if (highest.state !== register.state) highest = { ...highest, state: register.state };
    }
  }
  const provesNothing = quorum.isJoint || timestampIn(highest.ballot) <= floor;
  const writeQuorum = provesNothing ? Number.POSITIVE_INFINITY : quorum.promiseCount;
  return { kind: isSettled || equal >= writeQuorum ? "settled" : "unfinished", register: highest, holders };
};
