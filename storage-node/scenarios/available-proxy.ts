import { ballotOf, type Incarnation, timestampIn } from "../../common/ballot.ts";
import { hybridClock, type HybridClock } from "../../common/hybrid-clock.ts";
import { RingsteadError } from "../../common/errors.ts";
import { DeviceReplica } from "../device-replica.ts";
import type { Name, Proposal, Register, Row } from "../wire.ts";
import { judgeAvailable } from "../../proxy/core/available-read.ts";
import { AvailableRow, type AvailableRowEffect } from "../../proxy/core/available-row.ts";
import { type AvailableEffect, AvailableWrite, type KeepReply } from "../../proxy/core/available-write.ts";
import type { SimulatedProxy } from "../../proxy/core/containers-simulation/simulated-proxy.ts";
import {
  CONTAINER,
  firstConfigurationIn,
  indexOf,
  objectName,
  placeOf,
  type Replica,
  type SimulatedReplica,
  type World,
} from "../../proxy/core/containers-simulation/world.ts";
import type { ObjectPlace } from "../../proxy/core/object-script.ts";
import { Quorum } from "../../proxy/core/quorum.ts";
import type { WriteOutcome, WriteRecord } from "../../proxy/core/register-write.ts";
import type { RowOutcome } from "../../proxy/core/row-write.ts";
import type { Answer, Effect, Script } from "../../proxy/core/script.ts";

/** A name whose replicas others may stand in for. */
type AvailableName = Name & { readonly isAvailable?: true };

/** The storage node's replica: the simulation of containers knows less of it. */
export const deviceOf = (replica: Replica): DeviceReplica => {
  if (!(replica instanceof DeviceReplica)) throw new Error("a replica that is no device's");
  return replica;
};

/** What a read found, and whether R members said so. */
export type Found = { readonly register: Register | undefined; readonly isOfQuorum: boolean };

/** One effect as a script. */
function* alone(effect: Effect<Name>): Script<Name, Answer> {
  return yield effect;
}

/** A proxy that knows policy `available`: what hand-offs may keep it does itself, all else is done by a proxy of the containers' simulation. */
export class AvailableProxy {
  readonly #world: World;
  readonly #inner: SimulatedProxy;
  readonly #clock: HybridClock;
  readonly #process: string;
  /** Copies that hand-offs were asked to keep. */
  asked = 0;
  /** What no proxy may do, as it did it. */
  problem: string | undefined;
  /** Of a replica that it suspects it does not wait for ([H2]). */
  readonly #suspects = new Set<number>();

  /** @param number its own in ballots: the other proxy has one, too */
  constructor(world: World, inner: SimulatedProxy, number: number, skewMs: number) {
    this.#world = world;
    this.#inner = inner;
    this.#process = number.toString(16).padStart(8, "0");
    this.#clock = hybridClock({ nowMs: () => Math.floor(world.queue.nowMs()) + skewMs });
  }

  /** Suspects a device, or does no more. */
  suspect(device: number, isSuspect: boolean): void {
    if (isSuspect) this.#suspects.add(device);
    else this.#suspects.delete(device);
  }

  /** Where hand-offs may keep what is written of an object. */
  availablePlaceOf(name: string): ObjectPlace<Name> {
    const { place } = this.#inner;
    const container: AvailableName = { ...CONTAINER, isAvailable: true };
    const object: AvailableName = { ...objectName(name), isAvailable: true };
    return { ...placeOf(name, { ...place, container }), object };
  }

  strongPlaceOf(name: string): ObjectPlace<Name> {
    return placeOf(name, this.#inner.place);
  }

  async run<T>(script: Script<Name, T>): Promise<T> {
    let step = script.next();
    while (step.done !== true) {
      const answer = await this.#perform(step.value);
      step = script.next(answer);
    }
    return step.value;
  }

  #perform(effect: Effect<Name>): Promise<Answer> {
    const { isAvailable }: AvailableName = effect.set;
    if (isAvailable === true && effect.kind === "write" && effect.mode.kind === "plain")
      return this.#write(effect.set, effect.mode.record, effect.incarnation);
    if (isAvailable === true && effect.kind === "row") return this.#row(effect.set, effect.incarnation, effect.row);
    return this.#inner.run(alone(effect));
  }

  #membersOf(name: Name): readonly SimulatedReplica[] {
    return firstConfigurationIn(this.#world, name.space).old.flatMap(
      ({ id }) => this.#world.replicas[indexOf(id)] ?? [],
    );
  }

  #handOffsOf(name: Name): readonly SimulatedReplica[] {
    const members = this.#membersOf(name);
    return this.#world.replicas.filter((one) => !members.includes(one));
  }

  #ask<T>(
    replica: SimulatedReplica | undefined,
    kind: "accept" | "row" | "read",
    name: Name,
    work: (it: DeviceReplica) => Promise<T>,
  ): Promise<T | undefined> {
    return new Promise((resolve) => {
      this.#world.queue.after(this.#world.timeoutMs, () => resolve(undefined));
      replica?.call(
        this.#process,
        kind,
        name,
        (it) =>
          work(deviceOf(it)).catch((error: unknown) => {
            if (error instanceof RingsteadError) return undefined;
            throw error;
          }),
        resolve,
      );
    });
  }

  #write(name: Name, record: WriteRecord, incarnation: Incarnation): Promise<WriteOutcome> {
    const members = this.#membersOf(name);
    const handOffs = this.#handOffsOf(name);
    const newBallot = () => ballotOf(incarnation, this.#clock.next(), this.#process);
    const machine = new AvailableWrite(Quorum.stable(members.length), record, newBallot, handOffs.length);
    const bytes = Buffer.alloc(record.bodyLength);
    /** The highest ballot that a refusal told of. */
    let told = "";
    return new Promise((resolve) => {
      const perform = (effects: readonly AvailableEffect[]): void => {
        for (const effect of effects) {
          if (effect.kind === "done") {
            const { outcome } = effect;
            if (outcome.kind === "established" && outcome.isKept === true && outcome.version < told)
              this.problem ??= `${name.path} was acknowledged as kept under ${outcome.version}, below ${told}, which its writer had been told of`;
            resolve(outcome);
          } else if (effect.kind === "keep") void keep(effect);
          else
            for (const [index, { index: device }] of members.entries()) {
              void accept(effect, index);
              if (this.#suspects.has(device))
                queueMicrotask(() => perform(machine.onAccept(effect.round, undefined, index)));
            }
        }
      };
      const accept = async (
        { record: sent, round, version }: Extract<AvailableEffect, { kind: "accept" }>,
        index: number,
      ): Promise<void> => {
        const hasBody = sent.bodyLength > 0;
        const body = hasBody ? ("inline" as const) : ("none" as const);
        const proposal: Proposal = { ...sent, bodyVersion: sent.bodyVersion ?? version, body };
        const given = hasBody ? ({ kind: "bytes", bytes } as const) : ({ kind: "none" } as const);
        const reply = await this.#ask(members[index], "accept", name, (it) =>
          it.accept(name, version, version, proposal, given, [version], 0),
        );
        if (reply?.kind === "refused") {
          if (reply.seen > told) told = reply.seen;
          this.#clock.advancePast(timestampIn(reply.seen));
          this.#clock.advancePast(reply.floor);
        }
        perform(machine.onAccept(round, reply, index));
      };
      const keep = async (effect: Extract<AvailableEffect, { kind: "keep" }>): Promise<void> => {
        this.asked += 1;
        const { index, record: kept, version } = effect;
        const { bodyLength, bodyVersion = version, isTombstone, metadata } = kept;
        const register: Register = {
          version,
          ballot: version,
          state: "accepted",
          bodyVersion,
          isTombstone,
          bodyLength,
          metadata,
        };
        const body = bodyLength > 0 ? ({ kind: "bytes", bytes } as const) : ({ kind: "none" } as const);
        const answer = await this.#ask(handOffs[index], "accept", name, async (it) => {
          const before = (await it.handOffs.find(name))?.register.ballot ?? "";
          return { before, ballot: (await it.handOffs.keep(name, register, body)).ballot };
        });
        if (answer !== undefined) this.#clock.advancePast(timestampIn(answer.ballot));
        const reply: KeepReply = answer === undefined ? "failed" : answer.ballot === version ? "kept" : "refused";
        if (reply === "kept" && answer !== undefined && answer.before > version)
          this.problem ??= `a hand-off of ${name.path} counts for ${version} and keeps ${answer.before}`;
        perform(machine.onKept(effect.round, reply));
      };
      perform(machine.start());
    });
  }

  #row(name: Name, incarnation: Incarnation, row: Row): Promise<RowOutcome> {
    const members = this.#membersOf(name);
    const handOffs = this.#handOffsOf(name);
    const machine = new AvailableRow(Quorum.stable(members.length), handOffs.length);
    return new Promise((resolve) => {
      const perform = (effects: readonly AvailableRowEffect[]): void => {
        for (const effect of effects) {
          if (effect.kind === "done") resolve(effect.outcome);
          else if (effect.kind === "keep") void keep(effect.round, effect.index);
          else
            for (const [index, { index: device }] of members.entries()) {
              void send(effect.round, index);
              if (this.#suspects.has(device))
                queueMicrotask(() => perform(machine.onReply(effect.round, undefined, index)));
            }
        }
      };
      const send = async (round: number, index: number): Promise<void> => {
        const reply = await this.#ask(members[index], "row", name, (it) => it.row(name, incarnation, row, 0));
        perform(machine.onReply(round, reply, index));
      };
      const keep = async (round: number, index: number): Promise<void> => {
        this.asked += 1;
        const isKept = await this.#ask(handOffs[index], "row", name, async (it) => {
          await it.handOffs.keepRow(name, incarnation, row);
          return true;
        });
        perform(machine.onKept(round, isKept === true));
      };
      perform(machine.start());
    });
  }

  /** [H5]: what members say, and hand-offs where too few answer; "unknown" where too few devices do. */
  async get(object: string): Promise<Found | "unknown"> {
    const name = objectName(object);
    const ask = async (
      replicas: readonly SimulatedReplica[],
      read: (it: DeviceReplica) => Promise<Register | undefined>,
    ): Promise<{ readonly device: number; readonly register: Register | undefined }[]> => {
      const answers = await Promise.all(
        replicas.map(async (replica) => {
          const answer = await this.#ask(replica, "read", name, async (it) => ({ register: await read(it) }));
          return answer === undefined ? [] : [{ device: replica.index, ...answer }];
        }),
      );
      return answers.flat();
    };
    const members = this.#membersOf(name);
    const { readCount } = Quorum.stable(members.length);
    const answers = await ask(members, async (it) => (await it.read(name, 0))?.register);
    const kept =
      answers.length < readCount
        ? await ask(this.#handOffsOf(name), async (it) => (await it.handOffs.find(name))?.register)
        : [];
    for (const { register } of [...answers, ...kept])
      if (register !== undefined) this.#clock.advancePast(timestampIn(register.ballot));
    const judged = judgeAvailable(answers, kept, readCount);
    return judged === undefined ? "unknown" : { register: judged.register, isOfQuorum: answers.length >= readCount };
  }
}
