import type { RingsteadError } from "../../common/errors.ts";
import type { Name } from "../../storage-node/wire.ts";
import type { NoSpace, Unsent } from "../core/register-write.ts";
import type { Members, Partition } from "./partition.ts";
import { groupByNode, type Replica, type ReplicaGroup } from "./replicas.ts";

/** One message's time; a replica that needs longer is suspected. */
export const MESSAGE_TIMEOUT_MS = 2000;
/** A replica that has not heard of an epoch is told, and asked again, so often by one operation's phase. */
const TELL_ATTEMPTS = 3;

const NO_SPACE: NoSpace = { kind: "no-space" };
const UNSENT: Unsent = { kind: "unsent" };

/** The groups without suspects for whom too much waits already. */
export const asked = (name: Name, groups: readonly ReplicaGroup[], bodyBytes: number): readonly ReplicaGroup[] => {
  let isAnySuspect = false;
  for (const { members } of groups) for (const { isSuspect } of members) if (isSuspect) isAnySuspect = true;
  if (!isAnySuspect) return groups;
  const members = groups.flatMap((group) => group.members);
  for (const replica of members) replica.probe(name);
  const taking = members.filter((replica) => replica.mayTake(bodyBytes));
  return taking.length === members.length ? groups : groupByNode(taking);
};

/** Calls `failed` for each of `replicas` that no message goes to, never before this returns. */
export const forUnasked = (
  replicas: readonly Replica[],
  groups: readonly ReplicaGroup[],
  failed: (index: number) => void,
): void => {
  let missing = replicas.length;
  for (const { members } of groups) missing -= members.length;
  if (missing === 0) return;
  for (const [index, replica] of replicas.entries())
    if (!groups.some(({ members }) => members.includes(replica))) queueMicrotask(() => failed(index));
};

/** One phase of an operation: what goes to the members of one epoch ([M1]). */
export type Phase = {
  readonly partition: Partition;
  readonly asked: Members;
  /** Begins anew where the partition has other members by now; whether it has. */
  follow(): boolean;
  /** Sends the message once more to those that were told of the epoch, unless the phase is over. */
  again(group: ReplicaGroup, attempt: number): void;
  /** Too few may answer because members change in a moment. */
  changing?(): void;
};

/** Whether the error of a replica, asked for the `attempt`th time, is about the partition's members and is dealt with: it counts as no answer then. */
export const meets = (phase: Phase, error: RingsteadError, replica: Replica, attempt: number): boolean => {
  const { asked: members, partition } = phase;
  switch (partition.meet(error, members)) {
    case "moved":
      phase.follow();
      return true;
    case "untold":
      if (attempt === TELL_ATTEMPTS) return false;
      partition.tell(replica, members, () => {
        if (phase.follow()) return;
        for (const group of groupByNode([replica])) phase.again(group, attempt + 1);
      });
      return true;
    case "changing":
      phase.changing?.();
      return false;
    case "none":
      return false;
  }
};

/** What a machine of `core/` makes of an error. */
export const failureOf = (error: RingsteadError | undefined): NoSpace | Unsent | undefined => {
  if (error?.code === "rpc-unsent") return UNSENT;
  return error?.code === "device-full" || error?.code === "device-read-only" ? NO_SPACE : undefined;
};
