import type { Incarnation } from "../../common/ballot.ts";
import type { HybridTimestamp } from "../../common/hybrid-clock.ts";
import type { DevicesClient, PartAnswer } from "../../storage-node/client.ts";
import { encodeRowValue, type Name, packRows, type Row, type RowReply } from "../../storage-node/wire.ts";
import { type RowEffect, type RowOutcome, RowWrite } from "../core/row-write.ts";
import { asked, failureOf, forUnasked, meets, MESSAGE_TIMEOUT_MS, type Phase } from "./messages.ts";
import type { Members, ReplicaSet } from "./partition.ts";
import type { ReplicaGroup } from "./replicas.ts";

/** What goes to the devices of one node, and how many bytes it is about. */
export type RowMessage = {
  readonly bytes: number;
  send(client: DevicesClient, owner: Name, timeoutMs: number, answer: PartAnswer<RowReply>, epoch: number): void;
};

/** One row of a listing. `isPlaced`: it is in the one that is to follow already. */
export const oneRow = (incarnation: Incarnation, row: Row, isPlaced: boolean): RowMessage => ({
  bytes: row.payload.length,
  send: (client, owner, timeoutMs, answer, epoch) =>
    client.row(owner, incarnation, row, timeoutMs, answer, epoch, isPlaced),
});

/** Copies for a listing that is being filled. */
export const copiedRows = (
  incarnation: Incarnation,
  rows: readonly Row[],
  mark: HybridTimestamp,
  partitionPower: number,
): RowMessage => {
  const packed = packRows(
    rows.map((row) => ({ name: Buffer.from(row.name), value: encodeRowValue(row), isDeleted: row.isDeleted })),
  );
  return {
    bytes: packed.length,
    send: (client, owner, timeoutMs, answer, epoch) =>
      client.rows(owner, incarnation, packed, mark, partitionPower, timeoutMs, answer, epoch),
  };
};

/** Rows on their way to a quorum: the machine of `core/row-write.ts` over the clients of storage nodes. */
export class RowSend {
  readonly #set: ReplicaSet;
  readonly #message: RowMessage;
  readonly #resolve: (outcome: RowOutcome) => void;
  readonly #machine: RowWrite;
  #members: Members;

  constructor(set: ReplicaSet, message: RowMessage, resolve: (outcome: RowOutcome) => void) {
    this.#set = set;
    this.#message = message;
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
        const groups = asked(this.#set.name, members.groups, this.#message.bytes);
        for (const group of groups) this.#send(round, members, group, 1);
        forUnasked(members.replicas, groups, (index) => this.#perform(this.#machine.onReply(round, undefined, index)));
      }
    }
  }

  #send(round: number, asking: Members, { client, members }: ReplicaGroup, attempt: number): void {
    this.#message.send(
      client,
      this.#set.name,
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
