import type { Clock } from "../common/clock.ts";
import { RingsteadError } from "../common/errors.ts";
import type { DeviceEngine, Mutation } from "./engine/device-engine.ts";
import { CEILING_KEY, NEWCOMER_KEY } from "./store/keys.ts";
import type { Space } from "./wire.ts";

/** Until when a promise that this device gave and forgot may bind somebody: ballots are refused that are further ahead of its clock. */
export const FORGOTTEN_PROMISE_MS = 30_000;

/** What became of the device's memory, as far as its votes are concerned. */
type Newcomer = { readonly sinceMs: number };

/** The value under `NEWCOMER_KEY` (store/FORMAT.md). */
export const encodeNewcomer = ({ sinceMs }: Newcomer): Uint8Array => {
  const value = Buffer.alloc(9);
  value[0] = 1;
  value.writeDoubleBE(sinceMs, 1);
  return value;
};

/** A record that cannot be read is as good as one of now. */
const decodeNewcomer = (value: Uint8Array, nowMs: number): Newcomer => {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.length);
  return { sinceMs: bytes.length === 9 && bytes[0] === 1 ? bytes.readDoubleBE(1) : nowMs };
};

/**
 * In which partitions a device votes ([M4]). One that is new, was emptied or has lost a part of its log is a newcomer: it answers nothing as
 * a replica, in each partition, until it has caught up with the others there. That it is one is a record of its own, so a restart
 * in between begins again.
 */
export class Votes {
  readonly #engine: DeviceEngine;
  readonly #clock: Clock;
  readonly #forgottenPromiseMs: number;
  #newcomer: Newcomer | undefined;
  /** By space: how many bits of the hash number a partition, and which of them this device votes in. */
  readonly #joined = new Map<Space, { readonly power: number; readonly partitions: Set<number> }>();

  private constructor(engine: DeviceEngine, clock: Clock, newcomer: Newcomer | undefined, forgottenPromiseMs: number) {
    this.#engine = engine;
    this.#clock = clock;
    this.#forgottenPromiseMs = forgottenPromiseMs;
    this.#newcomer = newcomer;
  }

  /** As the device's own records say. */
  static recorded(engine: DeviceEngine, clock: Clock, forgottenPromiseMs = FORGOTTEN_PROMISE_MS): Votes {
    const known = engine.get(NEWCOMER_KEY);
    const newcomer = known === undefined ? undefined : decodeNewcomer(known.value, clock.nowMs());
    return new Votes(engine, clock, newcomer, forgottenPromiseMs);
  }

  /**
   * Of a device that was just opened: a newcomer where it never voted, or where its recovery found a hole in the log. Resolves when that is
   * durable.
   *
   * @param isFounding nobody was ever told anything by this cluster: what is empty is so by right
   */
  static async opened(engine: DeviceEngine, clock: Clock, isFounding: boolean): Promise<Votes> {
    const hasVoted = isFounding || engine.get(CEILING_KEY) !== undefined;
    const hasLost = (engine.figures()["quarantinedRanges"] ?? 0) > 0;
    if (engine.get(NEWCOMER_KEY) === undefined && (!hasVoted || hasLost)) {
      const value = encodeNewcomer({ sinceMs: clock.nowMs() });
      await engine.apply([{ kind: "put", key: NEWCOMER_KEY, value, body: { kind: "none" } }]);
    }
    return Votes.recorded(engine, clock);
  }

  get isNewcomer(): boolean {
    return this.#newcomer !== undefined;
  }

  /** Whether no promise that was forgotten can still bind. */
  get isSafe(): boolean {
    return this.#newcomer === undefined || this.#clock.nowMs() >= this.#newcomer.sinceMs + this.#forgottenPromiseMs;
  }

  votesIn(space: Space, hash32: number): boolean {
    if (this.#newcomer === undefined) return true;
    const joined = this.#joined.get(space);
    return joined?.partitions.has(hash32 >>> (32 - joined.power)) === true;
  }

  /** Errors (thrown): "device-joining". */
  require(space: Space, hash32: number): void {
    if (this.#newcomer !== undefined && !this.votesIn(space, hash32))
      throw new RingsteadError("device-joining", "this replica has not caught up with the others yet");
  }

  /** Requires: everything of the partition is here and durable, as `judgeJoin` says. */
  join(space: Space, power: number, partition: number): void {
    let joined = this.#joined.get(space);
    if (joined?.power !== power) {
      joined = { power, partitions: new Set() };
      this.#joined.set(space, joined);
    }
    joined.partitions.add(partition);
  }

  /** It votes everywhere from now on. `ceiling` is a mutation that makes its floor durable. Resolves when both are. */
  async joinAll(ceiling: Mutation): Promise<void> {
    this.#newcomer = undefined;
    this.#joined.clear();
    await this.#engine.apply([ceiling, { kind: "delete", key: NEWCOMER_KEY }]);
  }
}
