import { randomBytes } from "node:crypto";
import { RingsteadError } from "../common/errors.ts";
import {
  admit,
  type EpochEvent,
  type EpochState,
  type EpochUse,
  firstConfiguration,
  firstState,
  sinceOf,
  step,
} from "./core/partition-epoch.ts";
import type { DeviceEngine, ScannedEntry } from "./engine/device-engine.ts";
import type { PartitionPlace } from "./wire.ts";
import { decodeEpochState, encodeEpochState } from "./store/epoch-format.ts";
import { EPOCH_KEYS, epochKey, placeOfPartitionKey } from "./store/keys.ts";
import { CONFIGURATION_PATH, type Configuration, type Name, packConfiguration, type Space } from "./wire.ts";

/** Who keeps partitions that were never moved: `node/device` of each; `identity` tells that ring from others. */
export type FirstMembers = Readonly<
  Record<
    Space,
    { readonly partitionPower: number; idsOf(partition: number): readonly string[]; readonly identity?: string }
  >
>;

/** Entries that are read at once when a device is opened. */
const SCAN_LIMIT = 10_000;

type SpaceEpochs = {
  readonly shift: number;
  readonly states: Map<number, EpochState>;
  /** Partitions that this device enters: it is to be a member, or is one by now, and has not caught up. */
  readonly entering: Set<number>;
  /** Of each partition whether this device kept it from the beginning, as far as it was asked for; undefined where nobody asks. */
  readonly first: Uint8Array | undefined;
};

const IS_FIRST = 1;
const IS_NOT_FIRST = 2;

/**
 * What a device knows of the members of its partitions: for those that were ever moved it is an entry of the device, and in memory; for the
 * others it is what the ring says, in epoch 0. A message costs one look into a map that is mostly empty.
 */
export class PartitionEpochs {
  readonly self: string;
  readonly #engine: DeviceEngine;
  readonly #first: FirstMembers;
  readonly #spaces: Readonly<Record<Space, SpaceEpochs>>;
  readonly #life = randomBytes(6).toString("hex");
  #changeCount = 0;
  /** Changes of one partition come one after the other. */
  readonly #changes = new Map<string, Promise<unknown>>();

  private constructor(engine: DeviceEngine, self: string, first: FirstMembers, areMembersKnown = true) {
    this.#engine = engine;
    this.self = self;
    this.#first = first;
    const of = (space: Space): SpaceEpochs => ({
      shift: 32 - first[space].partitionPower,
      states: new Map(),
      entering: new Set(),
      first: areMembersKnown ? new Uint8Array(2 ** first[space].partitionPower) : undefined,
    });
    this.#spaces = { object: of("object"), container: of("container"), account: of("account") };
  }

  /**
   * As the device's own entries say.
   *
   * @param entries those of `EPOCH_KEYS`
   * @throws RingsteadError `epoch-damaged`, `epoch-other-power` where a partition was moved under a ring of another partition power
   */
  static recorded(
    engine: DeviceEngine,
    self: string,
    first: FirstMembers,
    entries: readonly ScannedEntry[],
  ): PartitionEpochs {
    const epochs = new PartitionEpochs(engine, self, first);
    for (const { key, value } of entries) {
      const place = placeOfPartitionKey(key);
      epochs.requirePower(place);
      epochs.#set(place, decodeEpochState(value));
    }
    return epochs;
  }

  /** Of a device that was just opened. Errors: as above. */
  static async opened(engine: DeviceEngine, self: string, first: FirstMembers): Promise<PartitionEpochs> {
    const entries: ScannedEntry[] = [];
    for await (const page of engine.scanPages({ ...EPOCH_KEYS, limit: SCAN_LIMIT })) entries.push(...page);
    return PartitionEpochs.recorded(engine, self, first, entries);
  }

  /** Of a device whose partitions never move: every message is of epoch 0. */
  static none(engine: DeviceEngine): PartitionEpochs {
    const nobody = { partitionPower: 1, idsOf: () => [] };
    return new PartitionEpochs(engine, "", { object: nobody, container: nobody, account: nobody }, false);
  }

  /** Undefined where the partition was never moved. */
  of(space: Space, hash32: number): EpochState | undefined {
    const { shift, states } = this.#spaces[space];
    return states.size === 0 ? undefined : states.get(hash32 >>> shift);
  }

  /**
   * Lets a message of an epoch in, with the state that it finds. Errors (thrown): "epoch-behind" with the configuration in its fields,
   * "epoch-ahead", "epoch-sealed", "device-joining", "not-a-member".
   */
  admit(name: Name, epoch: number, use: EpochUse): EpochState | undefined {
    const state = this.of(name.space, name.hash32);
    if (state === undefined) {
      if (epoch === 0 && this.#isFirst(name)) return undefined;
      if (epoch === 0) throw new RingsteadError("not-a-member", "this device does not keep that partition");
      throw new RingsteadError("epoch-ahead", "this replica has not heard of that epoch");
    }
    switch (admit(state, this.self, epoch, use, name.path === CONFIGURATION_PATH)) {
      case "serve":
        return state;
      case "behind": {
        const { configuration } = state;
        const fields = { configuration: packConfiguration(configuration) };
        throw new RingsteadError("epoch-behind", "the partition has other members by now", fields);
      }
      case "ahead":
        throw new RingsteadError("epoch-ahead", "this replica has not heard of that epoch");
      case "sealed":
        throw new RingsteadError("epoch-sealed", "the partition changes its members in a moment");
      case "joining":
        throw new RingsteadError("device-joining", "this replica has not caught up with the others yet");
      case "stranger":
        throw new RingsteadError("not-a-member", "this device does not keep that partition");
    }
  }

  /** Whether this device keeps a name's partition if that was never moved: who has another idea of the beginning gets no answer from it. */
  #isFirst({ hash32, space }: Name): boolean {
    const { first, shift } = this.#spaces[space];
    if (first === undefined) return true;
    const partition = hash32 >>> shift;
    if (first[partition] === 0)
      first[partition] = this.#first[space].idsOf(partition).includes(this.self) ? IS_FIRST : IS_NOT_FIRST;
    return first[partition] === IS_FIRST;
  }

  /** The partition in which a name lies. */
  partitionOf(space: Space, hash32: number): number {
    return hash32 >>> this.#spaces[space].shift;
  }

  /** The partition's state, that of the ring where it was never moved. */
  stateOf({ partition, space }: PartitionPlace): EpochState {
    return this.#spaces[space].states.get(partition) ?? firstState(this.self, this.#firstOf(space, partition));
  }

  configurationOf(place: PartitionPlace): Configuration {
    return this.stateOf(place).configuration;
  }

  /** Whether this device has everything that a member has, for all that its members' changes are concerned. */
  hasCaughtUp({ partition, space }: PartitionPlace): boolean {
    const state = this.#spaces[space].states.get(partition);
    return state === undefined || sinceOf(state.configuration, this.self) === state.caughtUp;
  }

  /** Whether another device neither is nor becomes a member, as far as this one knows. */
  isStranger(place: PartitionPlace, id: string): boolean {
    if (place.partitionPower !== this.#first[place.space].partitionPower) return false;
    const { configuration } = this.stateOf(place);
    return configuration.old.length > 0 && sinceOf(configuration, id) === undefined;
  }

  /** Tells the ring by which this device knows who kept partitions at the beginning from others. */
  baseIdentityOf(space: Space): string | undefined {
    return this.#first[space].identity;
  }

  /** Whether this device is, was or is to be a member of a partition, by what it knows or by that configuration. */
  concerns(place: PartitionPlace, told: Configuration): boolean {
    const known = this.stateOf(place).configuration;
    const first = this.#firstOf(place.space, place.partition);
    return [known, first, told].some((one) => sinceOf(one, this.self) !== undefined);
  }

  /** Partitions that were ever moved. */
  *moved(space: Space): Generator<readonly [number, EpochState]> {
    yield* this.#spaces[space].states;
  }

  /** Some of those, from a number on and in order. Errors (thrown): "epoch-other-power". */
  movedFrom(space: Space, partitionPower: number, from: number, limit: number): (readonly [number, EpochState])[] {
    this.requirePower({ space, partitionPower });
    const { states } = this.#spaces[space];
    const found: (readonly [number, EpochState])[] = [];
    if (states.size === 0) return found;
    for (let partition = from; partition < 2 ** partitionPower && found.length < limit; partition++) {
      const state = states.get(partition);
      if (state !== undefined) found.push([partition, state]);
    }
    return found;
  }

  /** Another text after each change of what `movedFrom` gives, and in each process. */
  get stamp(): string {
    return `${this.#life} ${this.#changeCount}`;
  }

  /** What the device holds of a partition that was moved has changed. */
  noteReleased(): void {
    this.#changeCount += 1;
  }

  /** Partitions that this device enters, and has not everything of yet. */
  entering(space: Space): ReadonlySet<number> {
    return this.#spaces[space].entering;
  }

  get isEntering(): boolean {
    const { account, container, object } = this.#spaces;
    return object.entering.size > 0 || container.entering.size > 0 || account.entering.size > 0;
  }

  /** Gives the state after the event, which counts from the moment on at which it is durable. Errors: "epoch-other-power", the engine's. */
  async change(place: PartitionPlace, event: EpochEvent): Promise<EpochState> {
    this.requirePower(place);
    const { partition, partitionPower, space } = place;
    const key = epochKey(space, partitionPower, partition);
    const id = key.toString("latin1");
    const change = async (): Promise<EpochState> => {
      const before = this.stateOf(place);
      const after = step(before, this.self, event);
      if (after === before) return before;
      await this.#engine.apply([{ kind: "put", key, value: encodeEpochState(after), body: { kind: "none" } }]);
      this.#set(place, after);
      return after;
    };
    const result = (this.#changes.get(id) ?? Promise.resolve()).then(change, change);
    this.#changes.set(id, result);
    const isLast = (): void => {
      if (this.#changes.get(id) === result) this.#changes.delete(id);
    };
    result.then(isLast, isLast);
    return await result;
  }

  #set({ partition, space }: PartitionPlace, state: EpochState): void {
    const { entering, states } = this.#spaces[space];
    states.set(partition, state);
    this.#changeCount += 1;
    const since = sinceOf(state.configuration, this.self);
    if (since === undefined || since === state.caughtUp) entering.delete(partition);
    else entering.add(partition);
  }

  /** Errors (thrown): "epoch-other-power". */
  requirePower({ partitionPower, space }: Pick<PartitionPlace, "partitionPower" | "space">): void {
    const own = this.#first[space].partitionPower;
    if (partitionPower === own) return;
    throw new RingsteadError("epoch-other-power", `this ring has 2^${own} partitions, not 2^${partitionPower}`);
  }

  #firstOf(space: Space, partition: number): Configuration {
    return firstConfiguration(this.#first[space].idsOf(partition));
  }
}
