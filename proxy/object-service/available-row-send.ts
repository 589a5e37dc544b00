import type { Incarnation } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import type { Row } from "../../storage-node/wire.ts";
import { AvailableRow, type AvailableRowEffect } from "../core/available-row.ts";
import type { RowOutcome } from "../core/row-write.ts";
import { askHandOff } from "./available-send.ts";
import { asked, failureOf, forUnasked, meets, MESSAGE_TIMEOUT_MS, type Phase } from "./messages.ts";
import type { Members, ReplicaSet } from "./partition.ts";
import { healthyFirst, type Replica, type ReplicaGroup } from "./replicas.ts";
import { oneRow } from "./row-send.ts";

/** One row under policy `available` on its way: the machine of `core/available-row.ts` over the clients of storage nodes. */
export class AvailableRowSend {
  readonly #set: ReplicaSet;
  readonly #incarnation: Incarnation;
  readonly #row: Row;
  readonly #isPlaced: boolean;
  readonly #handOffs: readonly Replica[];
  readonly #resolve: (outcome: RowOutcome) => void;
  readonly #machine: AvailableRow;
  #members: Members;
  #isDone = false;

  constructor(
    set: ReplicaSet,
    incarnation: Incarnation,
    row: Row,
    isPlaced: boolean,
    resolve: (outcome: RowOutcome) => void,
  ) {
    this.#set = set;
    this.#incarnation = incarnation;
    this.#row = row;
    this.#isPlaced = isPlaced;
    this.#handOffs = healthyFirst(set.name, set.handOffs ?? []);
    this.#resolve = resolve;
    this.#members = set.partition.members;
    this.#machine = new AvailableRow(this.#members.quorum, this.#handOffs.length);
  }

  start(): void {
    this.#perform(this.#machine.start());
  }

  #perform(effects: readonly AvailableRowEffect[]): void {
    for (const effect of effects) {
      switch (effect.kind) {
        case "row":
          this.#send(effect.round);
          break;
        case "keep":
          void this.#keep(effect.index).then((isKept) => this.#perform(this.#machine.onKept(effect.round, isKept)));
          break;
        case "done":
          this.#isDone = true;
          this.#resolve(effect.outcome);
      }
    }
  }

  #send(round: number): void {
    const members = this.#members;
    const groups = asked(this.#set.name, members.groups, this.#row.payload.length);
    for (const group of groups) this.#sendTo(round, members, group, 1);
    const fail = (index: number): void => this.#perform(this.#machine.onReply(round, undefined, index));
    forUnasked(members.replicas, groups, fail);
    for (const [index, { isSuspect }] of members.replicas.entries()) if (isSuspect) queueMicrotask(() => fail(index));
  }

  #sendTo(round: number, asking: Members, { client, members }: ReplicaGroup, attempt: number): void {
    const message = oneRow(this.#incarnation, this.#row, this.#isPlaced);
    message.send(
      client,
      this.#set.name,
      MESSAGE_TIMEOUT_MS,
      (error, reply, part) => {
        const replica = members[part];
        if (replica === undefined) return;
        replica.heard(error);
        if (error !== undefined && meets(this.#phase(round, asking), error, replica, attempt)) return;
        const index = asking.replicas.indexOf(replica);
        this.#perform(this.#machine.onReply(round, reply ?? failureOf(error), index));
      },
      asking.epoch,
    );
  }

  #phase(round: number, asking: Members): Phase {
    const { partition } = this.#set;
    const again = (group: ReplicaGroup, attempt: number): void => this.#sendTo(round, asking, group, attempt);
    const follow = (): boolean => {
      const { members } = partition;
      if (this.#isDone) return true;
      if (members === this.#members) return false;
      this.#members = members;
      this.#perform(this.#machine.onEpoch(members.quorum));
      return true;
    };
    return { partition, asked: asking, follow, again };
  }

  async #keep(index: number): Promise<boolean> {
    const replica = this.#handOffs[index];
    // One that has become a member meanwhile counts as such alone.
    if (replica === undefined || this.#members.replicas.includes(replica)) return false;
    const answer = await askHandOff(replica, (client) =>
      client.keepRow(this.#set.name, this.#incarnation, this.#row, MESSAGE_TIMEOUT_MS),
    );
    return !(answer instanceof RingsteadError);
  }
}
