import type { Register } from "../../storage-node/wire.ts";

/** What one replica answered to a READ. */
export type ReplicaRead = { readonly replica: number; readonly register: Register | undefined };

export type ReadVerdict =
  | { readonly kind: "more" }
  | { readonly kind: "settled"; readonly register: Register | undefined; readonly holders: readonly number[] }
  | { readonly kind: "unfinished"; readonly register: Register; readonly holders: readonly number[] };

/** PROTOCOL [R1], [R2] over the answers so far of N replicas: what a read may serve, or what it has to finish first. */
export const judgeRead = (replicaCount: number, answers: readonly ReplicaRead[]): ReadVerdict => {
  const writeQuorum = Math.floor(replicaCount / 2) + 1;
  const readQuorum = replicaCount - writeQuorum + 1;
  if (answers.length < readQuorum) return { kind: "more" };
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
  return { kind: isSettled || equal >= writeQuorum ? "settled" : "unfinished", register: highest, holders };
};
