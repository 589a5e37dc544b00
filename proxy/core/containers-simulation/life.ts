import { NO_INCARNATION } from "../../../common/ballot.ts";
import { settlePromises } from "../../../common/simulation/event-queue.ts";
import type { Register } from "../../../storage-node/wire.ts";
import { finishContainer } from "../container-closing.ts";
import { readContainer, settleContainer } from "../container-script.ts";
import type { Operation } from "./history.ts";
import { ALL_ROWS, perform } from "./operations.ts";
import { moveOnce, settleConfigurations } from "./simulated-mover.ts";
import { SimulatedProxy } from "./simulated-proxy.ts";
import { settleShards } from "./shard-life.ts";
import { ACCOUNT, CONTAINER, membersIn, objectName, placeOf, textOf, type World } from "./world.ts";
import { listRows } from "../list-rows.ts";
import { finishObject, settleObject } from "../object-script.ts";
import { listContainer } from "../shard-list.ts";

/** How old a deletion is that replicas may forget, in a life of a second and in one of a minute. */
export const RECLAIM_AGE_MS = 150;

type ProblemOf = (world: World, history: readonly Operation[]) => string | undefined;

const SPACES = ["account", "container", "object"] as const;
const STEP_LIMIT = 200_000;
const RECLAIM_ROUNDS = 2;
const REPAIR_ROUNDS = 20;
const MOVE_ROUNDS = 20;
/** Ballots may be ahead of the clock by the steps in which ceilings are raised. */
const REPAIR_ROUND_MS = 3000;

/** One life of a container and its objects: what is done in a world, and what came of it. */
export class ContainersLife {
  readonly world: World;
  readonly #history: Operation[] = [];
  #processes = 0;
  #steps = 0;

  readonly #problemOf: ProblemOf;
  readonly #stepLimit: number;

  /** @param problemOf what is wrong with a history and what it left behind, if anything */
  constructor(world: World, problemOf: ProblemOf, stepLimit = STEP_LIMIT) {
    this.world = world;
    this.#problemOf = problemOf;
    this.#stepLimit = stepLimit;
  }

  get history(): readonly Operation[] {
    return this.#history;
  }

  newProxy(): SimulatedProxy {
    return new SimulatedProxy(this.world, ++this.#processes);
  }

  /** Does one operation through `proxy` and writes it down; `index` tells what it writes from what others write. */
  async operate(proxy: SimulatedProxy, index: number, kind: Operation["kind"], name: string): Promise<Operation> {
    const { queue } = this.world;
    const start = queue.nowMs();
    const value = kind === "post" ? `+p${index}` : `v${index}`;
    const isRead = kind === "get" || kind === "look" || kind === "list";
    const pending: Operation = { start, end: Number.POSITIVE_INFINITY, kind, name, value, status: undefined };
    const slot = isRead ? -1 : this.#history.push(pending) - 1;
    const outcome = await perform(this.world, kind, proxy, name, value, 10 + index);
    if (proxy.isDead || outcome.status === undefined) return pending;
    const done: Operation = { ...pending, ...outcome, end: queue.nowMs() };
    if (isRead) this.#history.push(done);
    else this.#history[slot] = done;
    return done;
  }

  /** One event, and what follows of it; false when there was none. */
  async step(): Promise<boolean> {
    const isStep = this.world.queue.step();
    if (++this.#steps > this.#stepLimit) throw new Error("the run does not end");
    await (this.world.settle ?? settlePromises)();
    return isStep;
  }

  async drain(): Promise<void> {
    // Between two of its messages a script may need more turns than one.
    while ((await this.step()) || (await this.step()));
  }

  /** What a worker would finish is finished, what a reader would see is read, all is checked. Requires: faults are over. */
  async conclude(): Promise<string | undefined> {
    const reclaimBeforeMs = this.world.queue.nowMs() - RECLAIM_AGE_MS;
    for (const replica of this.world.replicas) replica.restart();
    await this.#repairAll();
    if (this.world.replicas.some(({ joiningCount }) => joiningCount > 0)) return "a replica never got its vote back";
    const last = this.newProxy();
    if (this.world.moves !== undefined && !(await this.#moveAll())) return "a partition never came to its members";
    if (this.world.shards !== undefined) {
      void this.#listBefore(last);
      await this.drain();
    }
    void this.#settle(last);
    await this.drain();
    let problem: string | undefined;
    void this.#readEverything(last).then((found) => (problem = found));
    await this.drain();
    await this.#repairAll();
    await this.#reclaimAll(reclaimBeforeMs);
    return problem ?? this.world.moves?.problem ?? this.#problemOf(this.world, this.#history);
  }

  /** Rounds of repair, and two more when all replicas vote: one that lost its disk waits until its promises are too old. */
  async #repairAll(): Promise<void> {
    let left = 2;
    for (let round = 0; round < REPAIR_ROUNDS && left > 0; round++) {
      this.world.queue.after(REPAIR_ROUND_MS, () => {});
      await this.drain();
      if (this.world.replicas.every(({ joiningCount }) => joiningCount === 0)) left -= 1;
      for (const replica of this.world.replicas) void replica.repair();
      await this.drain();
    }
  }

  /** What some have forgotten all forget: the first who may cannot before the others have it, and the last one does before the next round. */
  async #reclaimAll(olderThanMs: number): Promise<void> {
    for (let round = 0; round < RECLAIM_ROUNDS; round++) {
      for (const replica of this.world.replicas) {
        void replica.reclaim(olderThanMs);
        await this.drain();
      }
    }
    await this.#repairAll();
  }

  /** Every partition comes to its target; false where one does not. */
  async #moveAll(): Promise<boolean> {
    const open = new Map(this.world.moves?.targets);
    for (let round = 0; round < MOVE_ROUNDS && open.size > 0; round++) {
      for (const [space, target] of open)
        void moveOnce(this.world, this.newProxy(), space, target).then((outcome) => {
          if (outcome === "done") open.delete(space);
        });
      await this.drain();
      await this.#repairAll();
    }
    return open.size === 0;
  }

  /** Before anything is finished, which writes the rows of every name once more, and so those that a split has lost. */
  async #listBefore(last: SimulatedProxy): Promise<void> {
    const start = this.world.queue.nowMs();
    const outcome = await perform(this.world, "list", last, "", "", 0);
    if (outcome.status !== undefined)
      this.#history.push({ kind: "list", name: "", value: "", ...outcome, start, end: this.world.queue.nowMs() });
  }

  async #settle(last: SimulatedProxy): Promise<void> {
    const { blind } = this.world;
    // A replica that was down refuses what is below its floor once; the refusal teaches the proxy's clock.
    for (let attempt = 0; attempt < 3; attempt++) {
      for (const { replica } of membersIn(this.world, CONTAINER)) {
        const found = (await replica.held(CONTAINER))?.register;
        if (found?.state === "accepted") await last.run(finishContainer(last.place, found));
      }
      for (const name of this.world.names) {
        for (const { replica } of membersIn(this.world, objectName(name))) {
          const stored: Register | undefined = (await replica.held(objectName(name)))?.register;
          const left = blind === undefined ? stored : blind.wholeRegister(stored);
          if (left?.state === "accepted") await last.run(finishObject(placeOf(name, last.place), left, false));
        }
      }
      await last.run(settleContainer(last.place));
      if (this.world.shards !== undefined) await settleShards(this.world, last);
      if (this.world.moves !== undefined)
        for (const space of SPACES) await settleConfigurations(this.world, last, space);
    }
    for (const name of this.world.names) {
      for (let attempt = 0; attempt < 3; attempt++)
        await last.run(settleObject(placeOf(name, last.place), NO_INCARNATION));
    }
    for (let attempt = 0; attempt < 3; attempt++) {
      const found = await last.run(readContainer(last.place));
      if (typeof found !== "string") await last.run(listContainer(last.place, found.record, ALL_ROWS));
      await last.run(listRows(ACCOUNT, NO_INCARNATION, ALL_ROWS));
    }
  }

  async #readEverything(last: SimulatedProxy): Promise<string | undefined> {
    let problem: string | undefined;
    const gets = this.world.names.map((name) => ["get", name] as const);
    for (const [kind, name] of [["look", ""], ["list", ""], ...gets] as const) {
      const start = this.world.queue.nowMs();
      const outcome = await perform(this.world, kind, last, name, "", 0);
      if (outcome.status === undefined) problem ??= `after the faults, ${kind} ${name} is not answered`;
      else this.#history.push({ kind, name, value: "", ...outcome, start, end: this.world.queue.nowMs() });
    }
    const listed = await last.run(listRows(ACCOUNT, NO_INCARNATION, ALL_ROWS));
    const isOpen = this.#history.findLast(({ kind }) => kind === "look")?.status === 200;
    if (typeof listed === "string" || listed.some((row) => row.name === "c") !== isOpen)
      problem ??= "the account's listing and the container disagree";
    return problem;
  }

  /** The history, one line for each operation. */
  toString(): string {
    const asText = (key: string, value: unknown): unknown =>
      key === "payload" && value instanceof Uint8Array ? textOf(value) : value;
    return this.#history.map((it) => JSON.stringify(it, asText)).join("\n");
  }
}
