import { expect, test } from "vitest";
import { type Ballot, ballotOf, type Incarnation, timestampIn } from "../../common/ballot.ts";
import type { Clock } from "../../common/clock.ts";
import { hybridClock, type HybridClock } from "../../common/hybrid-clock.ts";
import { type Random, seededRandom } from "../../common/random.ts";
import { EventQueue, SimulatedNetwork, settlePromises } from "../../common/simulation/event-queue.ts";
import { isLinearizable, type RegisterOperation } from "../../common/simulation/linearizability.ts";
import { PowerCuts } from "../../common/simulation/power-cuts.ts";
import { chosenSeeds } from "../../common/simulation/seeds.ts";
import { DeviceReplica } from "../../storage-node/device-replica.ts";
import { MemoryDevice } from "../../storage-node/engine/memory-device.ts";
import type { Name, Proposal, Register } from "../../storage-node/wire.ts";
import { Quorum } from "./quorum.ts";
import { judgeRead, type ReplicaRead } from "./register-read.ts";
import {
  RegisterWrite,
  type Unsent,
  type WriteEffect,
  type Proposed,
  type WriteMode,
  type WriteOutcome,
  type WriteRecord,
} from "./register-write.ts";

const NAME: Name = { space: "object", hash32: 7, path: "/a/c/o" };
const INCARNATION = "1".repeat(24) as Incarnation;
const START_MS = 1_700_000_000_000;
const TIMEOUT_MS = 60;
const OPERATION_LIMIT = 12;

type PoweredReplica = { readonly replica: DeviceReplica; afterCrash(): PoweredReplica };

const powered = (device: MemoryDevice, clock: Clock): PoweredReplica => ({
  replica: new DeviceReplica(device, clock, [1n, 2n]),
  afterCrash: () => powered(device.afterCrash(), clock),
});

/** One replica with its power cuts. */
class SimulatedReplica {
  readonly #network: SimulatedNetwork;
  readonly power: PowerCuts<PoweredReplica>;
  /** It stores nothing then, and says so; promises and reads go on. */
  isFull = false;
  /** No message to it goes out, and who sends one knows. */
  isAway = false;

  constructor({ queue, random, network }: World) {
    this.#network = network;
    this.power = new PowerCuts(queue, random, (syncAfter) => powered(new MemoryDevice(syncAfter), queue));
  }

  /** Calls the replica as the network would. */
  call<T>(work: (replica: DeviceReplica) => Promise<T> | T, answer: (value: T) => void): void {
    this.power.call(
      (_way, deliver) => this.#network.send(deliver),
      ({ replica }) => work(replica),
      answer,
    );
  }
}

type World = {
  readonly queue: EventQueue;
  readonly random: Random;
  readonly network: SimulatedNetwork;
  readonly replicas: SimulatedReplica[];
};

/** A proxy with a skewed clock; it may die between any two messages, after which it says nothing more. */
class SimulatedProxy {
  readonly #world: World;
  readonly #clock: HybridClock;
  readonly #process: string;
  isDead = false;

  constructor(world: World, index: number) {
    this.#world = world;
    const skewMs = Math.floor(world.random.unit() * 40) - 20;
    this.#clock = hybridClock({ nowMs: () => Math.floor(world.queue.nowMs()) + skewMs });
    this.#process = index.toString(16).padStart(8, "0");
  }

  write(mode: WriteMode): Promise<WriteOutcome> {
    const { replicas, queue, random } = this.#world;
    const newBallot = (): Ballot => ballotOf(INCARNATION, this.#clock.next(), this.#process);
    const machine = new RegisterWrite(Quorum.stable(replicas.length), mode, newBallot, random.below(4) === 0);
    return new Promise((resolve) => {
      const perform = (effect: WriteEffect | undefined): void => {
        if (effect === undefined || this.isDead) return;
        switch (effect.kind) {
          case "done":
            resolve(effect.outcome);
            return;
          case "wait":
            queue.after(random.unit() * effect.atMostMs, () => perform(machine.onTimer(effect.round)));
            return;
          case "prepare":
            for (const replica of replicas) {
              this.#send(
                replica,
                (it) => it.prepare(NAME, effect.ballot, effect.own),
                (reply) => {
                  if (reply?.kind === "refused") this.#heard(reply.seen);
                  perform(machine.onPrepare(effect.round, reply));
                },
              );
            }
            return;
          case "supply":
            throw new Error("nothing here keeps a body that could be missing");
          case "accept": {
            const proposal: Proposal = { ...effect.record, bodyVersion: effect.version, body: "none" };
            for (const [index, replica] of replicas.entries()) {
              this.#send(
                replica,
                async (it) =>
                  replica.isFull
                    ? ({ kind: "no-space" } as const)
                    : it.accept(NAME, effect.version, effect.ballot, proposal, { kind: "none" }, effect.own),
                (reply) => {
                  if (reply?.kind === "refused") {
                    this.#heard(reply.seen);
                    this.#clock.advancePast(reply.floor);
                  }
                  perform(machine.onAccept(effect.round, reply, index));
                },
              );
            }
          }
        }
      };
      perform(machine.start());
    });
  }

  async read(): Promise<Register | undefined | "unknown"> {
    for (let attempt = 0; attempt < 8; attempt++) {
      const answers = await this.#collect();
      const verdict = judgeRead(Quorum.stable(this.#world.replicas.length), answers);
      if (verdict.kind === "more") continue;
      if (verdict.kind === "settled") return verdict.register;
      const { register } = verdict;
      this.#heard(register.ballot);
      const record: WriteRecord = {
        isTombstone: register.isTombstone,
        bodyLength: 0,
        metadata: register.metadata,
        body: "none",
        bodyVersion: undefined,
      };
      const outcome = await this.write({ kind: "finish", version: register.version, ballot: register.ballot, record });
      if (outcome.kind === "established") {
        this.confirm(register.version);
        return register;
      }
    }
    return "unknown";
  }

  confirm(version: Ballot): void {
    for (const replica of this.#world.replicas)
      replica.call(
        (it) => it.confirm(NAME, version, false),
        () => {},
      );
  }

  #collect(): Promise<ReplicaRead[]> {
    const { replicas, random, queue } = this.#world;
    return new Promise((resolve) => {
      const answers: ReplicaRead[] = [];
      let failed = 0;
      const wanted = random.unit() < 0.5 ? 2 : 3;
      for (const [index, replica] of replicas.entries()) {
        this.#ask(
          replica,
          async (it) => ({ register: (await it.read(NAME))?.register }),
          (read) => {
            if (read === undefined) failed += 1;
            else answers.push({ replica: index, register: read.register });
            if (answers.length === wanted || answers.length + failed === replicas.length)
              queue.after(0, () => resolve([...answers]));
          },
        );
      }
    });
  }

  /** Asks one replica that may be away. */
  #send<T>(
    replica: SimulatedReplica,
    work: (replica: DeviceReplica) => Promise<T>,
    answer: (value: T | Unsent | undefined) => void,
  ): void {
    if (!replica.isAway) return this.#ask(replica, work, answer);
    this.#world.queue.after(0, () => {
      if (!this.isDead) answer({ kind: "unsent" });
    });
  }

  /** Asks one replica; undefined stands for a time-out. */
  #ask<T>(
    replica: SimulatedReplica,
    work: (replica: DeviceReplica) => Promise<T>,
    answer: (value: T | undefined) => void,
  ): void {
    let isAnswered = false;
    const once = (value: T | undefined): void => {
      if (isAnswered || this.isDead) return;
      isAnswered = true;
      answer(value);
    };
    replica.call(work, once);
    this.#world.queue.after(TIMEOUT_MS, () => once(undefined));
  }

  #heard(ballot: Ballot): void {
    this.#clock.advancePast(timestampIn(ballot));
  }
}

const recordOf = (value: string | undefined): WriteRecord => ({
  isTombstone: value === undefined,
  bodyLength: 0,
  metadata: Buffer.from(value ?? ""),
  body: "none",
  bodyVersion: undefined,
});

const valueOf = (register: Register | undefined): string | undefined =>
  register === undefined || register.isTombstone ? undefined : Buffer.from(register.metadata).toString();

/** One seeded life of a name under faults; gives its history, without the writes that were told to have had no space. */
const run = async (seed: bigint): Promise<{ readonly history: RegisterOperation[]; readonly withoutSpace: number }> => {
  const random = seededRandom(seed);
  const queue = new EventQueue(START_MS);
  const network = new SimulatedNetwork(queue, random, { lossChance: 0.03, repeatChance: 0.05, longDelayChance: 0.1 });
  const world: World = { queue, random, network, replicas: [] };
  for (let index = 0; index < 3; index++) world.replicas.push(new SimulatedReplica(world));
  const history: RegisterOperation[] = [];
  const withoutSpace = new Set<number>();

  const operate = async (index: number): Promise<void> => {
    const proxy = new SimulatedProxy(world, index + 1);
    if (random.unit() < 0.15)
      queue.after(random.unit() * 12, () => {
        proxy.isDead = true;
      });
    const start = queue.nowMs();
    const choice = random.unit();
    const pending = { start, end: Number.POSITIVE_INFINITY };
    if (choice < 0.35) {
      const value = choice < 0.07 ? undefined : `v${index}`;
      const slot = history.push({ ...pending, kind: "write", value, expected: undefined, succeeded: undefined }) - 1;
      const outcome = await proxy.write({ kind: "plain", record: recordOf(value) });
      if (outcome.kind === "no-space" && !proxy.isDead) withoutSpace.add(slot);
      if (outcome.kind !== "established" || proxy.isDead) return;
      proxy.confirm(outcome.version);
      history[slot] = { start, end: queue.nowMs(), kind: "write", value, expected: undefined, succeeded: undefined };
    } else if (choice < 0.6) {
      const value = `c${index}`;
      const slot =
        history.push({ ...pending, kind: "compare-and-set", value, expected: undefined, succeeded: undefined }) - 1;
      let earlier: Proposed | undefined;
      for (let attempt = 0; attempt < 6; attempt++) {
        const outcome = await proxy.write({
          kind: "conditional",
          earlier,
          decide: (base) => (valueOf(base) === undefined ? recordOf(value) : "stop"),
        });
        if (proxy.isDead) return;
        if (outcome.kind === "no-space") withoutSpace.add(slot);
        if (outcome.kind === "unfinished") {
          earlier = outcome.own;
          await proxy.read();
          continue;
        }
        if (outcome.kind === "established") proxy.confirm(outcome.version);
        else if (outcome.kind !== "stopped") return;
        history[slot] = {
          start,
          end: queue.nowMs(),
          kind: "compare-and-set",
          value,
          expected: undefined,
          succeeded: outcome.kind === "established",
        };
        return;
      }
    } else {
      const register = await proxy.read();
      if (register === "unknown" || proxy.isDead) return;
      history.push({
        start,
        end: queue.nowMs(),
        kind: "read",
        value: undefined,
        expected: valueOf(register),
        succeeded: undefined,
      });
    }
  };

  for (let index = 0; index < OPERATION_LIMIT; index++) queue.after(random.unit() * 150, () => void operate(index));
  for (let crash = 0; crash < 3; crash++) {
    if (random.unit() < 0.5) continue;
    const replica = world.replicas[random.below(3)]!;
    const atMs = random.unit() * 150;
    queue.after(atMs, () => replica.power.crash());
    queue.after(atMs + 1 + random.unit() * 30, () => replica.power.restart());
  }
  for (const replica of world.replicas) {
    if (random.unit() < 0.7) continue;
    const atMs = random.unit() * 100;
    queue.after(atMs, () => {
      replica.isFull = true;
    });
    queue.after(atMs + random.unit() * 60, () => {
      replica.isFull = false;
    });
  }
  // All at once, as those of one process, or one alone.
  const areTogether = random.unit() < 0.5;
  for (const [index, replica] of world.replicas.entries()) {
    if (!areTogether && random.unit() < 0.7) continue;
    const atMs = areTogether ? 40 + index : random.unit() * 100;
    queue.after(atMs, () => {
      replica.isAway = true;
    });
    queue.after(atMs + random.unit() * 60, () => {
      replica.isAway = false;
    });
  }
  let steps = 0;
  while (queue.step() && ++steps < 100_000) await settlePromises();
  return { history: history.filter((_, slot) => !withoutSpace.has(slot)), withoutSpace: withoutSpace.size };
};

const seeds = chosenSeeds(400);

test("a name is a linearizable register under crashes, lost, late and repeated messages, unreachable replicas, skewed clocks, full devices and dying proxies [A1-A3, D1, D2, W1-W3, C1, C2, R1, R2]", async () => {
  let acknowledged = 0;
  let lackingSpace = 0;
  for (let index = 0n; index < BigInt(seeds.count); index++) {
    const seed = seeds.first + index;
    const { history, withoutSpace } = await run(seed);
    lackingSpace += withoutSpace;
    acknowledged += history.filter((operation) => operation.end !== Number.POSITIVE_INFINITY).length;
    expect(isLinearizable(history), `SEED=${seed} ./scripts/test simulation\n${JSON.stringify(history)}`).toBe(true);
  }
  expect(acknowledged).toBeGreaterThan(seeds.count * 4);
  if (seeds.count >= 100) expect(lackingSpace).toBeGreaterThan(0);
});
