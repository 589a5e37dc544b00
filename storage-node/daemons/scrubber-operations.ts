import { codeOf } from "../../common/errors.ts";
import type { DeviceReplica } from "../device-replica.ts";
import type { Entry } from "../engine/device-engine.ts";
import type { HealEvent } from "../repair/heal-journal.ts";
import { registerKey } from "../store/keys.ts";
import { decodeRegister } from "../store/register-format.ts";
import {
  CONFIGURATION_PATH,
  decodeContainerRecord,
  type HeaderReader,
  type Name,
  type Register,
  type Shards,
  type VersionState,
} from "../wire.ts";
import type { ScrubReport } from "./scrubber.ts";
import type { DeviceUpkeep } from "./scrubber-upkeep.ts";

export const SCRUB_ACTIONS = ["status", "start", "stop"] as const;
export type ScrubAction = (typeof SCRUB_ACTIONS)[number];

/** A device's scrubber and healer, as SCRUB tells. */
export type DeviceScrubReport = ScrubReport & {
  readonly waitingEntries: number;
  readonly healedEntries: number;
  readonly unhealedEntries: number;
};

/** What a replica says of itself, as EXPLAIN tells. */
export type ReplicaReport = {
  readonly isVoting: boolean;
  /** "damaged": it cannot be read, and answers nothing of this name until it is healed. */
  readonly state: VersionState | "absent" | "damaged";
  readonly version?: string;
  readonly ballot?: string;
  readonly bodyVersion?: string;
  readonly isTombstone?: boolean;
  /** Of a container whose listing was split, or of a shard: where its rows are. */
  readonly shards?: Shards & { readonly incarnation: string };
  readonly bodyLength?: number;
  /** Where the body lies. */
  readonly bodyKind?: Entry["body"]["kind"];
  /** "unread" where nobody asked for it to be read. */
  readonly body?: "whole" | "damaged" | "gone" | "unread";
  readonly why?: string;
  readonly lastScrubMs?: number;
  readonly lastScrubDamaged?: number;
  /** What it keeps of the name for a member that was away. */
  readonly kept?: { readonly version: string; readonly isTombstone: boolean; readonly bodyLength: number };
  readonly events: readonly HealEvent[];
};

/** Read of a body at once. */
const PIECE_BYTES = 1024 * 1024;
const EVENTS_LIMIT = 20;

/** JSON as a body: few ask, and people read it. */
export type OperatorAnswer = { readonly header: readonly unknown[]; readonly body: Uint8Array };
const answer = (value: unknown): OperatorAnswer => ({ header: [], body: Buffer.from(JSON.stringify(value)) });

/** SCRUB: starts or stops a round, and tells how far it is. */
export const scrub = (reader: HeaderReader) => {
  const action = reader.oneOf(SCRUB_ACTIONS);
  return async (_replica: DeviceReplica, { scrubber, healer }: DeviceUpkeep): Promise<OperatorAnswer> => {
    if (action === "start") scrubber.start();
    if (action === "stop") scrubber.stop();
    const { waitingEntries, healedEntries, unhealedEntries } = healer.figures;
    const report: DeviceScrubReport = { ...scrubber.report(), waitingEntries, healedEntries, unhealedEntries };
    return answer(report);
  };
};

/** EXPLAIN: what the device has of a name; with the flag it reads the body to its end. */
export const explain = (reader: HeaderReader) => {
  const name = reader.name();
  const readsBody = reader.flag();
  return async (replica: DeviceReplica, { scrubber, journal }: DeviceUpkeep): Promise<OperatorAnswer> => {
    const { last } = scrubber.report();
    const kept = (await replica.handOffs.find(name))?.register;
    const report: ReplicaReport = {
      isVoting: replica.votes.votesIn(name.space, name.hash32),
      ...(await stateOf(replica, name, readsBody)),
      ...(last === undefined ? {} : { lastScrubMs: last.endedMs, lastScrubDamaged: last.damaged }),
      ...(kept === undefined ? {} : { kept: keptOf(kept) }),
      events: await journal.of(name.path, EVENTS_LIMIT),
    };
    return answer(report);
  };
};

const keptOf = ({ bodyLength, isTombstone, version }: Register): NonNullable<ReplicaReport["kept"]> => ({
  version,
  isTombstone,
  bodyLength,
});

const stateOf = async (
  replica: DeviceReplica,
  name: Name,
  readsBody: boolean,
): Promise<Omit<ReplicaReport, "isVoting" | "events">> => {
  try {
    // With the confirmations that wait in memory.
    const entry = replica.entry(registerKey(name));
    if (entry === undefined) return { state: "absent" };
    const { metadata, ...register } = decodeRegister(entry.value);
    const { kind } = entry.body;
    if (name.space === "container" && name.path !== CONFIGURATION_PATH) {
      const { incarnation, shards } = decodeContainerRecord(metadata);
      if (shards !== undefined) return { ...register, bodyKind: kind, shards: { ...shards, incarnation } };
    }
    if (kind === "none") return { ...register, bodyKind: kind };
    return { ...register, bodyKind: kind, ...(readsBody ? await bodyOf(replica, entry) : { body: "unread" }) };
  } catch (error) {
    const code = codeOf(error);
    if (code !== "entry-damaged" && code !== "register-damaged") throw error;
    return { state: "damaged", why: code };
  }
};

const bodyOf = async ({ engine }: DeviceReplica, { body }: Entry): Promise<Pick<ReplicaReport, "body">> => {
  const length = body.kind === "none" ? 0 : body.length;
  try {
    for (let offset = 0; offset < length; offset += PIECE_BYTES) await engine.readBody(body, offset, PIECE_BYTES);
    return { body: "whole" };
  } catch (error) {
    const code = codeOf(error);
    if (code === "body-damaged") return { body: "damaged" };
    if (code === "body-gone") return { body: "gone" };
    throw error;
  }
};
