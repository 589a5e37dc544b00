import { randomBytes } from "node:crypto";
import type { Clock } from "../common/clock.ts";
import { RingsteadError } from "../common/errors.ts";
import { type HybridTimestamp, timestampAt } from "../common/hybrid-clock.ts";
import type { DeviceEngine, Mutation } from "./engine/device-engine.ts";
import { CEILING_KEY, FOUNDERS_KEY, NEWCOMER_KEY } from "./store/keys.ts";
import type { Space } from "./wire.ts";

/** Until when a promise that this device gave and forgot may bind somebody: ballots are refused that are further ahead of its clock. */
export const FORGOTTEN_PROMISE_MS = 30_000;

/** Makes durable that no promise is above `ceiling` ([D2]). */
export const ceilingMutation = (ceiling: HybridTimestamp): Mutation => ({
  kind: "put",
  key: CEILING_KEY,
  value: Buffer.from(ceiling, "latin1"),
  body: { kind: "none" },
});

/** u8 version, f64 since when, life. */
const NEWCOMER_BYTES = 9 + 8;

/** What became of the device's memory, as far as its votes are concerned. */
type Newcomer = {
  readonly sinceMs: number;
  /** Which emptiness this is: 16 hexadecimal digits, drawn anew each time. */
  readonly life: Life;
};

/** One life of a device without votes, 16 hexadecimal digits. */
export type Life = string & { readonly brand: "Life" };
/** Of a device that votes. */
export const NO_LIFE = "0".repeat(16) as Life;
const LIFE_BYTES = 8;

const randomLife = (): Life => randomBytes(LIFE_BYTES).toString("hex") as Life;

/** True of text that has a life's form; what comes from the wire is checked with it. */
export const isLife = (text: unknown): text is Life => typeof text === "string" && /^[0-9a-f]{16}$/.test(text);

/** The value under `NEWCOMER_KEY` (store/FORMAT.md). */
export const encodeNewcomer = ({ sinceMs, life }: Newcomer): Uint8Array => {
  const value = Buffer.alloc(NEWCOMER_BYTES);
  value[0] = 1;
  value.writeDoubleBE(sinceMs, 1);
  value.write(life, 9, "hex");
  return value;
};

/** A record that cannot be read is as good as one of now. */
const decodeNewcomer = (value: Uint8Array, nowMs: number): Newcomer => {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.length);
  if (bytes.length !== NEWCOMER_BYTES || bytes[0] !== 1) return { sinceMs: nowMs, life: NO_LIFE };
  return { sinceMs: bytes.readDoubleBE(1), life: bytes.toString("hex", 9) as Life };
};

const encodeFounders = (lives: ReadonlySet<Life>): Uint8Array => Buffer.from([...lives].join(""), "hex");

/** What cannot be read is nobody: they wait then. */
const decodeFounders = (value: Uint8Array | undefined): Set<Life> => {
  const lives = new Set<Life>();
  const bytes = Buffer.from(value ?? []);
  for (let at = 0; at + LIFE_BYTES <= bytes.length; at += LIFE_BYTES)
    lives.add(bytes.toString("hex", at, at + LIFE_BYTES) as Life);
  return lives;
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
  /** Devices that were as empty when this one began to vote, by their lives then. */
  readonly #founders: Set<Life>;
  /** By space: how many bits of the hash number a partition, and which of them this device votes in. */
  readonly #joined = new Map<Space, { readonly power: number; readonly partitions: Set<number> }>();

  private constructor(
    engine: DeviceEngine,
    clock: Clock,
    newcomer: Newcomer | undefined,
    founders: Set<Life>,
    forgottenPromiseMs: number,
  ) {
    this.#founders = founders;
    this.#engine = engine;
    this.#clock = clock;
    this.#forgottenPromiseMs = forgottenPromiseMs;
    this.#newcomer = newcomer;
  }

  /** As the device's own records say. */
  static recorded(engine: DeviceEngine, clock: Clock, forgottenPromiseMs = FORGOTTEN_PROMISE_MS): Votes {
    const known = engine.get(NEWCOMER_KEY);
    const newcomer = known === undefined ? undefined : decodeNewcomer(known.value, clock.nowMs());
    return new Votes(engine, clock, newcomer, decodeFounders(engine.get(FOUNDERS_KEY)?.value), forgottenPromiseMs);
  }

  /**
   * Of a device that was just opened: a newcomer where it never voted, or where its recovery found a hole in the log. Resolves when that is
   * durable.
   *
   * @param isFounding nobody was ever told anything by this cluster: what is empty is so by right
   * @param newLife gives another life each time
   */
  static async opened(
    engine: DeviceEngine,
    clock: Clock,
    isFounding: boolean,
    newLife: () => Life = randomLife,
  ): Promise<Votes> {
    // The next start must not take what was empty by right for emptied.
    if (isFounding && engine.get(CEILING_KEY) === undefined)
      await engine.apply([ceilingMutation(timestampAt(clock.nowMs()))]);
    const hasVoted = engine.get(CEILING_KEY) !== undefined;
    const hasLost = (engine.figures()["quarantinedRanges"] ?? 0) > 0;
    const isKnown = engine.get(NEWCOMER_KEY) !== undefined;
    // One that was catching up may have voted somewhere already, and lost that now: it is another life.
    if (hasLost || (!isKnown && !hasVoted)) {
      const value = encodeNewcomer({ sinceMs: clock.nowMs(), life: newLife() });
      await engine.apply([{ kind: "put", key: NEWCOMER_KEY, value, body: { kind: "none" } }]);
    }
    return Votes.recorded(engine, clock);
  }

  get isNewcomer(): boolean {
    return this.#newcomer !== undefined;
  }

  /** Tells other devices who asks. */
  get life(): Life {
    return this.#newcomer?.life ?? NO_LIFE;
  }

  /** Those that this device began together with: nobody had ever voted on anything then, they neither. */
  foundWith(lives: Iterable<Life>): void {
    for (const life of lives) if (life !== NO_LIFE) this.#founders.add(life);
  }

  /** Whether the asker, of that life, began together with this device. */
  isFounder(life: Life): boolean {
    return life !== NO_LIFE && this.#founders.has(life);
  }

  /** Whether no promise that was forgotten can still bind. */
  get isSafe(): boolean {
    return this.#newcomer === undefined || this.#clock.nowMs() >= this.#newcomer.sinceMs + this.#forgottenPromiseMs;
  }

  /** How long it still takes until that is so. */
  get safeInMs(): number {
    if (this.#newcomer === undefined) return 0;
    return Math.max(0, this.#newcomer.sinceMs + this.#forgottenPromiseMs - this.#clock.nowMs());
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
    const founders = encodeFounders(this.#founders);
    await this.#engine.apply([
      ceiling,
      { kind: "put", key: FOUNDERS_KEY, value: founders, body: { kind: "none" } },
      { kind: "delete", key: NEWCOMER_KEY },
    ]);
  }
}
