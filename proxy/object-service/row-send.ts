import type { Incarnation } from "../../common/ballot.ts";
import type { Row } from "../../storage-node/wire.ts";
import { type RowEffect, type RowOutcome, RowWrite } from "../core/row-write.ts";
import { asked, failureOf, forUnasked, meets, MESSAGE_TIMEOUT_MS, type Phase } from "./messages.ts";
import type { Members, ReplicaSet } from "./partition.ts";
import type { ReplicaGroup } from "./replicas.ts";

/** One row on its way to a quorum: the machine of `core/row-write.ts` over the clients of storage nodes. */
export class RowSend {
  readonly #set: ReplicaSet;
  readonly #incarnation: Incarnation;
  readonly #row: Row;
  readonly #resolve: (outcome: RowOutcome) => void;
  readonly #machine: RowWrite;
  #members: Members;

  constructor(set: ReplicaSet, incarnation: Incarnation, row: Row, resolve: (outcome: RowOutcome) => void) {
    this.#set = set;
    this.#incarnation = incarnation;
    this.#row = row;
    this.#resolve = resolve;
    this.#members = set.partition.members;
    this.#machine = new RowWrite(this.#members.quorum);
  }

  start(): void {
    this.#perform(this.#machine.start());
  }

  #perform(effect: RowEffect | undefined): void {
    if (effect === undefined) return;
    switch (effect.kind) {
      case "done":
        this.#resolve(effect.outcome);
        return;
      case "wait":
        setTimeout(() => {
          this.#follow();
          this.#perform(this.#machine.onTimer(effect.round));
        }, Math.random() * effect.atMostMs);
        return;
      case "row": {
        const { round } = effect;
        const members = this.#members;
        const groups = asked(this.#set.name, members.groups, this.#row.payload.length);
        for (const group of groups) this.#send(round, members, group, 1);
        forUnasked(members.replicas, groups, (index) => this.#perform(this.#machine.onReply(round, undefined, index)));
      }
    }
  }

  #send(round: number, asking: Members, { client, members }: ReplicaGroup, attempt: number): void {
    client.row(
      this.#set.name,
      this.#incarnation,
      this.#row,
      MESSAGE_TIMEOUT_MS,
      (error, reply, part) => {
        const replica = members[part];
        if (replica === undefined) return;
        replica.heard(error);
        if (error !== undefined && meets(this.#phase(round, asking), error, replica, attempt)) return;
        this.#perform(this.#machine.onReply(round, reply ?? failureOf(error), asking.replicas.indexOf(replica)));
      },
      asking.epoch,
    );
  }

  #phase(round: number, asked: Members): Phase {
    const { partition } = this.#set;
    const again = (group: ReplicaGroup, attempt: number): void => this.#send(round, asked, group, attempt);
    return { partition, asked, follow: () => this.#follow(), again };
  }

  /** Begins the phase anew where the partition has other members by now ([M1]); whether it has. */
  #follow(): boolean {
    const { members } = this.#set.partition;
    if (members === this.#members) return false;
    this.#members = members;
    this.#perform(this.#machine.onEpoch(members.quorum));
    return true;
  }
}
