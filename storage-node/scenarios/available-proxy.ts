import { type Ballot, ballotOf, type Incarnation, timestampIn } from "../../common/ballot.ts";
import { hybridClock, type HybridClock } from "../../common/hybrid-clock.ts";
import { RingsteadError } from "../../common/errors.ts";
import { DeviceReplica } from "../device-replica.ts";
import type { Name, Proposal, Register, Row } from "../wire.ts";
import { judgeAvailable } from "../../proxy/core/available-read.ts";
import { AvailableRow, type AvailableRowEffect } from "../../proxy/core/available-row.ts";
import { type AvailableEffect, AvailableWrite, copyToKeep, type KeepReply } from "../../proxy/core/available-write.ts";
import {
  isOfMembers,
  type Place,
  type SimulatedProxy,
} from "../../proxy/core/containers-simulation/simulated-proxy.ts";
import {
  CONTAINER,
  objectName,
  placeOf,
  type Replica,
  type SimulatedReplica,
  type World,
} from "../../proxy/core/containers-simulation/world.ts";
import type { ObjectPlace } from "../../proxy/core/object-script.ts";
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
  /** Its name on the network, and in ballots. */
  readonly process: string;
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
    this.process = number.toString(16).padStart(8, "0");
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

  /** Those that stand in for members, as far as this proxy knows who these are. */
  #handOffsOf({ replicas }: Place): readonly SimulatedReplica[] {
    return this.#world.replicas.filter((one) => !replicas.includes(one));
  }

  /** Asks a hand-off, of whatever epoch it knows. */
  #ask<T>(
    replica: SimulatedReplica | undefined,
    kind: "accept" | "row" | "read",
    name: Name,
    work: (it: DeviceReplica) => Promise<T>,
  ): Promise<T | undefined> {
    return new Promise((resolve) => {
      this.#world.queue.after(this.#world.timeoutMs, () => resolve(undefined));
      replica?.call(
        this.process,
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

  /** Sends one phase to all members of an epoch. A suspect is not waited for ([H2]). */
  #askMembers<T>(
    { moved, name, place }: { readonly place: Place; readonly name: Name; readonly moved: () => void },
    kind: "accept" | "row",
    work: (it: DeviceReplica, epoch: number) => Promise<T>,
    answer: (value: T | undefined, index: number) => void,
  ): void {
    for (const [index, replica] of place.replicas.entries()) {
      const sent = (it: Replica, epoch: number): Promise<T | undefined> =>
        work(deviceOf(it), epoch).catch((error: unknown) => {
          // What is about the partition's members is for the proxy of the containers' simulation.
          if (error instanceof RingsteadError && !isOfMembers(error)) return undefined;
          throw error;
        });
      this.#inner.ask(place, replica, kind, name, sent, (value) => answer(value, index), moved);
      if (this.#suspects.has(replica.index)) queueMicrotask(() => answer(undefined, index));
    }
  }

  #write(name: Name, record: WriteRecord, incarnation: Incarnation): Promise<WriteOutcome> {
    let place = this.#inner.placeOf(name.space);
    const handOffs = this.#handOffsOf(place);
    const newBallot = (): Ballot => ballotOf(incarnation, this.#clock.next(), this.process);
    const machine = new AvailableWrite(place.quorum, record, newBallot, handOffs.length);
    const bytes = Buffer.alloc(record.bodyLength);
    /** The highest ballot that a refusal told of. */
    let told = "";
    const own = new Set<Ballot>();
    let isDone = false;
    return new Promise((resolve) => {
      const moved = (): void => {
        const present = this.#inner.placeOf(name.space);
        if (present === place || isDone) return;
        place = present;
        perform(machine.onEpoch(place.quorum));
      };
      const perform = (effects: readonly AvailableEffect[]): void => {
        for (const effect of effects) {
          if (effect.kind === "done") {
            isDone = true;
            const { outcome } = effect;
            if (outcome.kind === "established" && outcome.isKept === true && outcome.version < told)
              this.problem ??= `${name.path} was acknowledged as kept under ${outcome.version}, below ${told}, which its writer had been told of`;
            resolve(outcome);
          } else if (effect.kind === "keep") void keep(effect);
          else accept(effect);
        }
      };
      const accept = ({ record: sent, round, version }: Extract<AvailableEffect, { kind: "accept" }>): void => {
        const hasBody = sent.bodyLength > 0;
        const body = hasBody ? ("inline" as const) : ("none" as const);
        const proposal: Proposal = { ...sent, bodyVersion: sent.bodyVersion ?? version, body };
        const given = hasBody ? ({ kind: "bytes", bytes } as const) : ({ kind: "none" } as const);
        this.#askMembers(
          { place, name, moved },
          "accept",
          (it, epoch) => it.accept(name, version, version, proposal, given, [version], epoch),
          (reply, index) => {
            if (reply?.kind === "refused") {
              if (reply.seen > told) told = reply.seen;
              this.#clock.advancePast(timestampIn(reply.seen));
              this.#clock.advancePast(reply.floor);
            }
            perform(machine.onAccept(round, reply, index));
          },
        );
      };
      const keep = async (effect: Extract<AvailableEffect, { kind: "keep" }>): Promise<void> => {
        this.asked += 1;
        const { index, record: kept, version } = effect;
        const { bodyLength } = kept;
        own.add(version);
        const register = copyToKeep(version, kept);
        const body = bodyLength > 0 ? ({ kind: "bytes", bytes } as const) : ({ kind: "none" } as const);
        const handOff = handOffs[index];
        // It became a member meanwhile.
        if (handOff !== undefined && place.replicas.includes(handOff))
          return queueMicrotask(() => perform(machine.onKept(effect.round, "failed")));
        const answer = await this.#ask(handOff, "accept", name, async (it) => {
          const before = (await it.handOffs.find(name))?.register.ballot ?? "";
          return { before, ballot: (await it.handOffs.keep(name, register, body)).ballot };
        });
        if (answer !== undefined) this.#clock.advancePast(timestampIn(answer.ballot));
        const reply: KeepReply = answer === undefined ? "failed" : answer.ballot === version ? "kept" : "refused";
        if (reply === "kept" && answer !== undefined && answer.before > version)
          this.problem ??= `a hand-off of ${name.path} counts for ${version} and keeps ${answer.before}`;
        // A hand-off that keeps what this write gave it later has refused nothing.
        if (reply === "refused" && answer !== undefined && answer.ballot > told && !own.has(answer.ballot))
          told = answer.ballot;
        perform(machine.onKept(effect.round, reply, answer?.ballot));
      };
      perform(machine.start());
    });
  }

  #row(name: Name, incarnation: Incarnation, row: Row): Promise<RowOutcome> {
    let place = this.#inner.placeOf(name.space);
    const handOffs = this.#handOffsOf(place);
    const machine = new AvailableRow(place.quorum, handOffs.length);
    let isDone = false;
    return new Promise((resolve) => {
      const moved = (): void => {
        const present = this.#inner.placeOf(name.space);
        if (present === place || isDone) return;
        place = present;
        perform(machine.onEpoch(place.quorum));
      };
      const perform = (effects: readonly AvailableRowEffect[]): void => {
        for (const effect of effects) {
          if (effect.kind === "done") {
            isDone = true;
            resolve(effect.outcome);
          } else if (effect.kind === "keep") void keep(effect.round, effect.index);
          else
            this.#askMembers(
              { place, name, moved },
              "row",
              (it, epoch) => it.row(name, incarnation, row, epoch),
              (reply, index) => perform(machine.onReply(effect.round, reply, index)),
            );
        }
      };
      const keep = async (round: number, index: number): Promise<void> => {
        this.asked += 1;
        const handOff = handOffs[index];
        if (handOff !== undefined && place.replicas.includes(handOff))
          return queueMicrotask(() => perform(machine.onKept(round, false)));
        const isKept = await this.#ask(handOff, "row", name, async (it) => {
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
    const { quorum, replicas } = this.#inner.placeOf(name.space);
    const members = replicas.slice(0, quorum.voterCount);
    const { readCount } = quorum;
    const { epoch } = this.#inner.known(name.space);
    const answers = await ask(members, async (it) => (await it.read(name, epoch))?.register);
    const kept =
      answers.length < readCount
        ? await ask(
            this.#handOffsOf(this.#inner.placeOf(name.space)),
            async (it) => (await it.handOffs.find(name))?.register,
          )
        : [];
    for (const { register } of [...answers, ...kept])
      if (register !== undefined) this.#clock.advancePast(timestampIn(register.ballot));
    const judged = judgeAvailable(answers, kept, readCount);
    return judged === undefined ? "unknown" : { register: judged.register, isOfQuorum: answers.length >= readCount };
  }
}
