import { TIMESTAMP_ZERO } from "../../common/hybrid-clock.ts";
import { hasCaughtUp } from "../core/partition-epoch.ts";
import { judgeJoin, type JoinVerdict, type MemberAnswer, readQuorumOf } from "../core/repair.ts";
import type { DeviceReplica } from "../device-replica.ts";
import { higherMarks, type Marks, NO_MARKS } from "../reclaim-marks.ts";
import { keptForNobody } from "../repair/kept-entries.ts";
import type { RepairSource } from "../repair/repair-peer.ts";
import { partitionSum } from "../repair/repair-source.ts";
import type { Life } from "../votes.ts";
import type { Configuration, PartitionPlace } from "../wire.ts";

/** Entries of one commit that go since nobody answers for them. */
const DISCARDED_AT_ONCE = 256;

/** Another member of a partition, and what it said of it. */
export type Member = {
  readonly id: string;
  readonly peer: RepairSource;
  readonly answer: MemberAnswer;
  readonly sum: bigint;
  readonly life: Life;
  readonly epoch: number;
  readonly isSealed: boolean;
  readonly isStranger: boolean;
  readonly marks: Marks;
};

/** A partition as this device knew it at the beginning of this round, with what its other members said of it then. */
export type Compared = {
  readonly place: PartitionPlace;
  readonly configuration: Configuration;
  readonly members: Member[];
};

export type JoiningParts = {
  readonly self: string;
  readonly replica: DeviceReplica;
  readonly configurationOf: (place: PartitionPlace) => Configuration;
  /** Every device there is was asked what partitions were moved. */
  readonly hasHeardAll: () => boolean;
  /** Undefined where a peer is away or the device fails: that is for a later round. */
  readonly attempt: <T>(work: () => Promise<T>) => Promise<T | undefined>;
  /** Told in words what an operator has to put right. */
  readonly fail: (words: string) => void;
};

/** How a device comes to vote in a partition: [M2], [M4], [E6]. */
export class PartitionJoining {
  readonly #parts: JoiningParts;

  constructor(parts: JoiningParts) {
    this.#parts = parts;
  }

  /** [E6]: takes over the marks of all who vote, before anything is pulled from them. Whether that could be kept. */
  async adoptMarks({ place, configuration: { epoch }, members }: Compared): Promise<boolean> {
    const { attempt, replica } = this.#parts;
    const voting = members.filter((member) => member.answer.isVoting && member.epoch === epoch);
    const told = voting.reduce((most, { marks }) => higherMarks(most, marks), NO_MARKS);
    return (await attempt(() => replica.deletions.adopt(place, told).then(() => true))) === true;
  }

  /** Votes from now on, if it may: "joined". "refused": not yet. @param pulledFrom members of whom nothing is missing here */
  async join(compared: Compared, pulledFrom: ReadonlySet<string>): Promise<JoinVerdict["kind"] | "refused"> {
    const { configuration, members, place } = compared;
    const { configurationOf, replica } = this.#parts;
    const { epochs, votes } = replica;
    const { epoch } = configuration;
    // What was said of an epoch that is over by now proves nothing.
    if (configurationOf(place).epoch !== epoch || this.#isStranger(compared)) return "refused";
    const present = members.filter((member) => member.epoch === epoch && isOld(configuration, member.id));
    const pulled = present.filter(({ id }) => pulledFrom.has(id));
    if (!epochs.hasCaughtUp(place) && !this.#hasCaughtUp(configuration, present, pulledFrom)) return "refused";
    const hash32 = place.partition * 2 ** (32 - place.partitionPower);
    const hasVotes = votes.votesIn(place.space, hash32);
    const verdict = hasVotes
      ? ({ kind: "joined", isFounding: false } as const)
      : this.#judge(place, configuration, pulled);
    if (verdict.kind !== "joined") return verdict.kind;
    if (!hasVotes && !(await this.#discardKept(place, configuration, pulled))) return "refused";
    if (epochs.of(place.space, hash32) !== undefined) {
      // It may have been sealed, and have forgotten it ([M3]): one of those that it pulled from has not.
      if (pulled.some(({ isSealed }) => isSealed)) await epochs.change(place, { kind: "seal", epoch });
      await epochs.change(place, { kind: "catch-up", epoch });
    }
    if (verdict.isFounding) votes.foundWith(members.map(({ life }) => life));
    replica.join(place);
    return "joined";
  }

  /** It takes itself for a member of a partition that was never moved, and those who are do not: its base ring is none of this installation's beginning. */
  #isStranger({ configuration, members, place }: Compared): boolean {
    const stranger = members.find(({ epoch, isStranger }) => isStranger && epoch === configuration.epoch);
    if (configuration.epoch !== 0 || stranger === undefined) return false;
    this.#parts.fail(
      `${stranger.id} does not know this device as one that keeps ${place.space} partition ${place.partition}: copy DIR/rings/*.base from its node`,
    );
    return true;
  }

  #hasCaughtUp(configuration: Configuration, present: readonly Member[], pulledFrom: ReadonlySet<string>): boolean {
    const witnesses = present.map(({ id, epoch, answer: { isVoting } }) => {
      return { id, epoch, isVoting, isPulled: pulledFrom.has(id) };
    });
    return hasCaughtUp(configuration, this.#parts.self, witnesses);
  }

  #judge(place: PartitionPlace, configuration: Configuration, pulled: readonly Member[]): JoinVerdict {
    const { hasHeardAll, replica, self } = this.#parts;
    const { entries } = partitionSum(replica.engine, place);
    const voters = configuration.old.length + (isOld(configuration, self) ? 0 : 1);
    const answers = pulled.map(({ answer }) => answer);
    return judgeJoin(voters, entries, answers, replica.votes.isSafe, hasHeardAll());
  }

  /** [E6]: what this device kept and nobody answers for goes, where a read quorum of those that vote can be asked. False where one does not answer. */
  async #discardKept(
    place: PartitionPlace,
    { epoch, old }: Configuration,
    pulled: readonly Member[],
  ): Promise<boolean> {
    const { attempt, configurationOf, replica } = this.#parts;
    const { registers, rows } = replica.deletions.marksOf(place);
    const voters = pulled.filter(({ answer }) => answer.isVoting);
    // Fewer may all lack what was acknowledged.
    const canTell = voters.length >= readQuorumOf(old.length);
    if (!canTell || (registers === TIMESTAMP_ZERO && rows === TIMESTAMP_ZERO)) return true;
    const isDone = await attempt(async () => {
      const peers = voters.map(({ peer }) => peer);
      const kept = await keptForNobody(replica, place, peers);
      if (configurationOf(place).epoch !== epoch) return false;
      for (let at = 0; at < kept.length; at += DISCARDED_AT_ONCE)
        await replica.deletions.discard(place, kept.slice(at, at + DISCARDED_AT_ONCE));
      return true;
    });
    return isDone === true;
  }
}

const isOld = ({ old }: Configuration, id: string): boolean => old.some((member) => member.id === id);
