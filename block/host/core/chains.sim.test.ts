import { expect, test } from "vitest";
import { codeOf, RingsteadError } from "../../../common/errors.ts";
import { type Random, seededRandom } from "../../../common/random.ts";
import { chosenSeeds } from "../../../common/simulation/seeds.ts";
import { type OpenVolumes, type Records, type Space, VolumeChanges } from "../volume-changes.ts";
import {
  beginClone,
  beginCreate,
  beginCreateFromSnapshot,
  beginExtend,
  beginRestore,
  beginRevert,
  beginSnapshot,
  type Chains,
  chainOf,
  garbageOf,
  type Flatten,
  type Layer,
  type LayerCopy,
  type LayerId,
  layerOf,
  type Merge,
  NO_CHAINS,
  type Pending,
  pendingOf,
  volumeOf,
  withoutSnapshot,
  withoutVolume,
} from "./chains.ts";
import { askFlatten, copyOf, isFlat } from "./layer-copies.ts";

/*
 * Volumes of a few blocks on a disk that is a map, under clients that write whenever the host takes a step. The host is killed between any two
 * of its steps, and in the middle of what it begins again; daemons die, refuse, and go on without it; the pool is full; layers cannot grow.
 * Daemons copy layers meanwhile, down to merge them and up to make volumes independent, and are interrupted in that, too.
 */

const SEEDS = 300;
const OPERATIONS = 80;
const BLOCKS = 6;
/** More than all volumes together ever have layers. */
const COPIES_LIMIT = 200;

class Killed extends Error {}

type Content = Map<number, number>;
/** `copying`: what the daemon copies; with `isHeld` it answers no client. */
type Daemon = {
  chain: LayerId[];
  size: number;
  copying?: { copy: LayerCopy; isReady: boolean; isHeld: boolean } | undefined;
};
/** What clients may expect: what was acknowledged. `size` is in blocks. */
type Expected = { content: Content; size: number; snapshots: Map<string, Content> };

const isCopied = ({ kind }: Pending): boolean => kind === "merge" || kind === "flatten";

class World {
  readonly random: Random;
  chains: Chains = NO_CHAINS;
  readonly disk = new Map<LayerId, Content>();
  readonly daemons = new Map<string, Daemon>();
  readonly exported = new Set<string>();
  readonly expected = new Map<string, Expected>();
  /** What backups hold, by the id of the restoration that they are for. */
  readonly backups = new Map<string, Content>();
  readonly #restored = new Map<string, string>();
  /** Layers whose space cannot be given back for now: they stay in the record, whatever else is done meanwhile. */
  readonly stuck = new Set<LayerId>();
  readonly #grown = new Map<LayerId, number>();
  isDown = false;
  isCalm = false;
  merges = 0;
  flattened = 0;
  #host: VolumeChanges | undefined;
  #writes = 0;
  #names = 0;

  constructor(seed: bigint) {
    this.random = seededRandom(seed);
  }

  chance(percent: number): boolean {
    return !this.isCalm && this.random.below(100) < percent;
  }

  pick<Value>(values: readonly Value[]): Value | undefined {
    return values.length === 0 ? undefined : values[this.random.below(values.length)];
  }

  newName(): string {
    this.#names += 1;
    return String(this.#names).padStart(20, "0");
  }

  /** A point between two steps: the host may be killed, a daemon may die, clients write. */
  step(): void {
    if (this.isDown) throw new Killed();
    for (const volumeId of this.daemons.keys()) {
      if (this.chance(40) && this.exported.has(volumeId)) this.write(volumeId);
      if (this.chance(2)) this.daemons.delete(volumeId);
    }
    if (this.chance(4)) {
      this.isDown = true;
      throw new Killed();
    }
  }

  nextValue(): number {
    this.#writes += 1;
    return this.#writes;
  }

  write(volumeId: string): void {
    const daemon = this.daemons.get(volumeId);
    const expected = this.expected.get(volumeId);
    const top = this.disk.get(daemon?.chain[0] ?? "");
    if (daemon === undefined || expected === undefined || daemon.copying?.isHeld === true) return;
    if (top === undefined) throw new Error("a daemon writes to a layer that is gone");
    const block = this.random.below(Math.min(daemon.size, expected.size));
    const value = this.nextValue();
    top.set(block, value);
    expected.content.set(block, value);
  }

  readThrough(layers: readonly LayerId[], block: number): number {
    for (const [index, id] of layers.entries()) {
      // Beyond its end a base reads as zeros, whatever is in its space.
      const layer = this.chains.layers.get(id);
      if (index > 0 && layer !== undefined && block >= layer.virtualBytes) return 0;
      const content = this.disk.get(id);
      if (content === undefined) throw new Error(`layer ${id} is read and is gone`);
      const value = content.get(block);
      if (value !== undefined) return value;
    }
    return 0;
  }

  contentOf(layers: readonly LayerId[], size: number): Content {
    const content: Content = new Map();
    for (let block = 0; block < size; block++) {
      const value = this.readThrough(layers, block);
      if (value !== 0) content.set(block, value);
    }
    return content;
  }

  readonly records: Records = Object.defineProperty(
    {
      chains: NO_CHAINS,
      change: (next: Chains) => {
        this.step();
        const begun = next.pending.find((one) => !this.chains.pending.includes(one));
        if (begun?.kind === "merge") this.merges += 1;
        if (begun?.kind === "flatten") this.flattened += 1;
        this.chains = next;
        this.step();
      },
    },
    "chains",
    { get: () => this.chains },
  );

  readonly space: Space = {
    make: async (layer: Layer) => {
      this.step();
      if (this.chance(8)) throw new RingsteadError("pool-full", "full");
      this.disk.set(layer.id, new Map(this.backups.get(layer.backup?.backupId ?? "")));
      // Another volume's change ends meanwhile, and gives back what nothing reaches.
      if (this.chance(20)) await this.#host?.collect();
      this.step();
    },
    grow: async (layer: Layer, size: number) => {
      this.step();
      expect(this.disk.has(layer.id)).toBe(true);
      // What has grown has grown.
      if ((this.#grown.get(layer.id) ?? 0) >= size) return true;
      if (this.chance(3)) throw new RingsteadError("pool-full", "full");
      if (this.chance(40)) return false;
      this.#grown.set(layer.id, size);
      this.step();
      return true;
    },
    remove: async (layer: Layer) => {
      this.step();
      if (this.chance(5)) this.stuck.add(layer.id);
      if (this.stuck.has(layer.id)) throw new RingsteadError("pool-missing", "its pool is not there");
      for (const { chain } of this.daemons.values()) expect(chain).not.toContain(layer.id);
      this.disk.delete(layer.id);
      this.step();
    },
  };

  readonly open: OpenVolumes = {
    switchTo: async (volumeId, layer) => this.#change(volumeId, layer, undefined),
    reopen: async (volumeId, layer, size) => this.#change(volumeId, layer, size),
    holdCopy: async (volumeId, copy) => {
      this.step();
      const copying = this.daemons.get(volumeId)?.copying;
      if (copying?.isReady !== true || copying.copy !== copy || this.chance(5)) {
        this.stopCopying(volumeId);
        throw new RingsteadError("copy-failed", "no");
      }
      this.copyBlocks(copy);
      copying.isHeld = copy.kind === "merge";
      this.step();
    },
    stopCopy: async (volumeId) => {
      this.step();
      this.stopCopying(volumeId);
    },
    leave: async (volumeId, { upper }) => {
      this.step();
      if (this.chance(20)) await this.#host?.collect();
      const daemon = this.daemons.get(volumeId);
      if (daemon === undefined) return;
      if (this.chance(5)) {
        this.daemons.delete(volumeId);
        throw new RingsteadError("daemon-lost", "gone");
      }
      daemon.chain = daemon.chain.filter((id) => id !== upper);
      this.step();
      this.stopCopying(volumeId);
      this.step();
    },
    cut: async (volumeId, { layer }) => {
      this.step();
      if (this.chance(50)) await this.#forgetOthers(volumeId);
      const daemon = this.daemons.get(volumeId);
      if (daemon === undefined) return;
      if (this.chance(5)) {
        this.daemons.delete(volumeId);
        throw new RingsteadError("daemon-lost", "gone");
      }
      daemon.chain = daemon.chain.slice(0, daemon.chain.indexOf(layer) + 1);
      this.step();
      this.stopCopying(volumeId);
      this.step();
    },
  };

  /** Those that the volume was cut off from are deleted meanwhile. */
  async #forgetOthers(volumeId: string): Promise<void> {
    for (const { id, snapshots } of this.chains.volumes.values()) {
      const isIdle = !this.daemons.has(id) && !this.exported.has(id) && pendingOf(this.chains, id) === undefined;
      if (id !== volumeId && isIdle && snapshots.length === 0) this.records.change(withoutVolume(this.chains, id));
    }
    await this.#host?.collect();
  }

  copyBlocks(copy: LayerCopy, from = 0, to = Number.POSITIVE_INFINITY): void {
    if (copy.kind === "merge") this.#copyDown(copy, from, to);
    else this.#copyUp(copy, from, to);
  }

  /** What the layer has stays: it may have been written since. */
  #copyUp({ layer }: Flatten, from: number, to: number): void {
    const target = this.disk.get(layer);
    const chain = chainOf(this.chains, layer).map(({ id }) => id);
    if (target === undefined) throw new Error("a daemon copies to a layer that is gone");
    for (let block = from; block < Math.min(to, layerOf(this.chains, layer).virtualBytes); block++) {
      const value = this.readThrough(chain, block);
      if (value !== 0 && !target.has(block)) target.set(block, value);
    }
  }

  #copyDown({ upper, lower }: Merge, from: number, to: number): void {
    const [source, target] = [this.disk.get(upper), this.disk.get(lower)];
    if (source === undefined || target === undefined) throw new Error("a daemon copies layers that are gone");
    for (const [block, value] of source) {
      expect(block).toBeLessThan(layerOf(this.chains, lower).virtualBytes);
      if (block >= from && block < to) target.set(block, value);
    }
  }

  /** A daemon that runs for the copy alone ends with it. */
  stopCopying(volumeId: string): void {
    const daemon = this.daemons.get(volumeId);
    if (daemon === undefined) return;
    daemon.copying = undefined;
    if (!this.exported.has(volumeId)) this.daemons.delete(volumeId);
  }

  #change(volumeId: string, layer: LayerId, size: number | undefined): void {
    this.step();
    const daemon = this.daemons.get(volumeId);
    if (daemon === undefined) return;
    daemon.copying = undefined;
    if (daemon.chain[0] !== layer) {
      if (this.chance(5)) throw new RingsteadError("daemon-refused", "no");
      daemon.chain = chainOf(this.chains, layer).map(({ id }) => id);
    }
    if (size !== undefined) daemon.size = size;
    if (this.chance(5)) {
      this.daemons.delete(volumeId);
      throw new RingsteadError("daemon-lost", "gone");
    }
    this.step();
  }

  /** A new process: what it has is what is written. */
  newHost(): VolumeChanges {
    this.isDown = false;
    // What nobody who lives began is not finished, unless the record has it.
    for (const volumeId of this.daemons.keys())
      if (
        this.chains.volumes.has(volumeId) &&
        !this.chains.pending.some((one) => one.volumeId === volumeId && isCopied(one))
      )
        this.stopCopying(volumeId);
    this.#host = new VolumeChanges(this.records, this.space, this.open, () => this.newName());
    return this.#host;
  }

  /** What a host does at its start, and before anything else it does with a volume: it is killed in the middle of that, too. */
  async recover(): Promise<VolumeChanges> {
    for (let attempt = 0; ; attempt++) {
      // In the end nothing goes wrong any more.
      this.isCalm = attempt > 20;
      const host = this.newHost();
      try {
        while (this.chains.pending.length > 0) {
          for (const { volumeId } of this.chains.pending) await host.resume(volumeId);
        }
        await host.collect().catch((error: unknown) => {
          if (this.stuck.size === 0) throw error;
        });
        this.isCalm = false;
        return host;
      } catch (error) {
        if (!(error instanceof Killed) && !(error instanceof RingsteadError)) throw error;
      }
    }
  }

  /** A restored volume is what its backup is: nobody wrote to it meanwhile. */
  noteRestorations(): void {
    for (const [volumeId, { restorationId, sizeBytes }] of this.chains.volumes) {
      const expected = this.expected.get(volumeId);
      if (expected === undefined || restorationId === undefined) continue;
      if (this.#restored.get(volumeId) === restorationId) continue;
      this.#restored.set(volumeId, restorationId);
      expected.content = new Map([...(this.backups.get(restorationId) ?? [])].filter(([block]) => block < sizeBytes));
    }
  }

  startDaemon(volumeId: string): void {
    const { top, sizeBytes } = volumeOf(this.chains, volumeId);
    this.daemons.set(volumeId, { chain: chainOf(this.chains, top).map(({ id }) => id), size: sizeBytes });
  }

  /** With no change under way: everything that was acknowledged is there, and nothing else is. */
  check(): void {
    expect(this.chains.pending).toEqual([]);
    const garbage = new Set(garbageOf(this.chains).map(({ id }) => id));
    if (this.stuck.size === 0) expect(garbage.size).toBe(0);
    for (const id of this.disk.keys()) expect(this.chains.layers.has(id)).toBe(true);
    // Space that was never made is forgotten with what waits before it.
    for (const id of this.chains.layers.keys()) expect(this.disk.has(id) || garbage.has(id)).toBe(true);
    expect([...this.chains.volumes.keys()].toSorted()).toEqual([...this.expected.keys()].toSorted());
    for (const [volumeId, { content, size, snapshots }] of this.expected) {
      const volume = volumeOf(this.chains, volumeId);
      expect(volume.sizeBytes).toBe(size);
      const layers = chainOf(this.chains, volume.top).map(({ id }) => id);
      expect(this.contentOf(layers, size)).toEqual(nonZero(content));
      const daemon = this.daemons.get(volumeId);
      if (daemon !== undefined) expect({ chain: daemon.chain, size: daemon.size }).toEqual({ chain: layers, size });
      expect(daemon?.copying?.isHeld ?? false).toBe(false);
      expect(volume.snapshots.map(({ id }) => id).toSorted()).toEqual([...snapshots.keys()].toSorted());
      for (const { id, layer, sizeBytes } of volume.snapshots) {
        const frozen = chainOf(this.chains, layer).map((one) => one.id);
        expect(this.contentOf(frozen, sizeBytes)).toEqual(snapshots.get(id));
      }
    }
  }
}

const nonZero = (content: Content): Content => new Map([...content].toSorted(([one], [other]) => one - other));

type Operation = (world: World, host: VolumeChanges) => Promise<void>;

/** What a volume or snapshot is once it is there: what was seen at some point while it was made, which is checked by its writes. */
const learn = (world: World, before: ReadonlyMap<string, Content>): void => {
  for (const [volumeId, volume] of world.chains.volumes) {
    const layers = chainOf(world.chains, volume.top).map(({ id }) => id);
    let expected = world.expected.get(volumeId);
    if (expected === undefined) {
      expected = { content: world.contentOf(layers, volume.sizeBytes), size: volume.sizeBytes, snapshots: new Map() };
      world.expected.set(volumeId, expected);
    }
    expected.size = volume.sizeBytes;
    for (const { id, layer, sizeBytes } of volume.snapshots) {
      if (expected.snapshots.has(id)) continue;
      const frozen = world.contentOf(
        chainOf(world.chains, layer).map((one) => one.id),
        sizeBytes,
      );
      // Nothing that was acknowledged before it was asked for may be missing from it: values only ever grow.
      for (const [block, value] of before.get(volumeId) ?? [])
        if (block < sizeBytes) expect(frozen.get(block) ?? 0).toBeGreaterThanOrEqual(value);
      expected.snapshots.set(id, frozen);
    }
  }
};

const operations: readonly Operation[] = [
  async (world, host) => {
    if (world.expected.size >= 4) return;
    const volumeId = world.newName();
    const sizeBytes = 2 + world.random.below(BLOCKS - 1);
    await host.carryOut(volumeId, beginCreate(world.chains, { volumeId, pool: "p", sizeBytes }, world.newName()));
  },
  async (world, host) => {
    const sourceId = world.pick([...world.chains.volumes.keys()]);
    if (sourceId === undefined || world.expected.size >= 4) return;
    const { sizeBytes } = volumeOf(world.chains, sourceId);
    const volumeId = world.newName();
    const wanted = { volumeId, pool: "p", sizeBytes: sizeBytes + world.random.below(2) };
    await host.carryOut(volumeId, beginClone(world.chains, wanted, sourceId, [world.newName(), world.newName()]));
  },
  async (world, host) => {
    const source = world.pick([...world.chains.volumes.values()]);
    const snapshot = world.pick(source?.snapshots ?? []);
    if (source === undefined || snapshot === undefined || world.expected.size >= 4) return;
    const volumeId = world.newName();
    await world.open.stopCopy(source.id);
    const wanted = { volumeId, pool: "p", sizeBytes: snapshot.sizeBytes + world.random.below(2) };
    const next = beginCreateFromSnapshot(world.chains, wanted, source.id, snapshot.id, world.newName());
    await host.carryOut(volumeId, next);
  },
  async (world, host) => {
    const volumeId = world.pick([...world.chains.volumes.keys()]);
    if (volumeId === undefined) return;
    await host.carryOut(volumeId, beginSnapshot(world.chains, volumeId, world.newName(), world.newName()));
  },
  async (world, host) => {
    const volume = world.pick([...world.chains.volumes.values()]);
    if (volume === undefined) return;
    await host.carryOut(volume.id, beginExtend(world.chains, volume.id, volume.sizeBytes + 1 + world.random.below(2)));
  },
  async (world, host) => {
    const volume = world.pick([...world.chains.volumes.values()].filter(({ id }) => !world.exported.has(id)));
    const latest = volume?.snapshots.at(-1);
    if (volume === undefined || latest === undefined) return;
    await world.open.stopCopy(volume.id);
    await host.carryOut(volume.id, beginRevert(world.chains, volume.id, latest.id, world.newName()));
  },
  async (world, host) => {
    const volume = world.pick(
      [...world.chains.volumes.values()].filter(
        ({ id, snapshots }) => !world.exported.has(id) && snapshots.length === 0,
      ),
    );
    if (volume === undefined) return;
    await world.open.stopCopy(volume.id);
    world.records.change(withoutVolume(world.chains, volume.id));
    await host.collect();
  },
  async (world) => {
    const volumeId = world.pick([...world.chains.volumes.keys()]);
    if (volumeId === undefined) return;
    if (!world.exported.delete(volumeId)) world.exported.add(volumeId);
    if (!world.exported.has(volumeId)) world.daemons.delete(volumeId);
  },
];

const merging: readonly Operation[] = [
  async (world, host) => {
    const volume = world.pick([...world.chains.volumes.values()].filter(({ id }) => !world.exported.has(id)));
    if (volume === undefined) return;
    await world.open.stopCopy(volume.id);
    const sizeBytes = 1 + world.random.below(volume.sizeBytes);
    const backupId = world.newName();
    world.backups.set(backupId, new Map([[world.random.below(sizeBytes), world.nextValue()]]));
    const wanted = { volumeId: volume.id, restorationId: backupId, projectId: "p", backupId, sizeBytes };
    await host.carryOut(volume.id, beginRestore(world.chains, wanted, [world.newName(), world.newName()]));
  },
  async (world, host) => {
    const volume = world.pick([...world.chains.volumes.values()]);
    const snapshot = world.pick(volume?.snapshots ?? []);
    if (volume === undefined || snapshot === undefined) return;
    world.records.change(withoutSnapshot(world.chains, volume.id, snapshot.id));
    await host.collect();
  },
  async (world, host) => {
    const volumeId = world.pick(
      [...world.chains.volumes.keys()].filter((id) => copyOf(world.chains, id) !== undefined),
    );
    const daemon = volumeId === undefined ? undefined : copyFor(world, volumeId);
    const copying = daemon?.copying;
    if (volumeId === undefined || daemon === undefined || copying === undefined) return;
    for (let block = 0; block < BLOCKS * 2; block++) {
      if (daemon.copying !== copying || world.daemons.get(volumeId) !== daemon) return;
      world.copyBlocks(copying.copy, block, block + 1);
      if (block % 3 === 0) world.step();
    }
    copying.isReady = true;
    if (world.chance(60)) await host.finishCopy(volumeId, copying.copy);
  },
  async (world, host) => {
    const ready = world.pick([...world.daemons].filter(([, { copying }]) => copying?.isReady === true));
    const copying = ready?.[1].copying;
    if (ready === undefined || copying === undefined) return;
    await host.finishCopy(ready[0], copying.copy);
  },
  async (world) => {
    const volumeId = world.pick([...world.chains.volumes.keys()].filter((id) => !isFlat(world.chains, id)));
    if (volumeId !== undefined) world.records.change(askFlatten(world.chains, volumeId));
  },
];

/** Begins to copy what of the volume is to be copied, upon the daemon that it has or one for this alone. */
const copyFor = (world: World, volumeId: string): Daemon | undefined => {
  const copy = copyOf(world.chains, volumeId);
  if (!world.exported.has(volumeId) && !world.daemons.has(volumeId)) world.startDaemon(volumeId);
  const daemon = world.daemons.get(volumeId);
  if (copy === undefined || daemon === undefined) return undefined;
  daemon.copying = { copy, isReady: false, isHeld: false };
  return daemon;
};

/** Brings what clients may expect up to what a finished or abandoned change made true. */
const settle = (world: World, before: ReadonlyMap<string, Content>): void => {
  for (const volumeId of world.expected.keys())
    if (!world.chains.volumes.has(volumeId)) world.expected.delete(volumeId);
  for (const [volumeId, expected] of world.expected) {
    const volume = volumeOf(world.chains, volumeId);
    for (const id of expected.snapshots.keys())
      if (!volume.snapshots.some((one) => one.id === id)) expected.snapshots.delete(id);
  }
  learn(world, before);
};

/** Once nothing goes wrong any more, all that is to be copied is, and nothing is read from a backup any more. */
const drain = async (world: World): Promise<void> => {
  const host = world.newHost();
  world.stuck.clear();
  world.isCalm = true;
  await host.collect();
  for (let copies = 0; copies < COPIES_LIMIT; copies++) {
    const volumeId = [...world.chains.volumes.keys()].find((id) => copyOf(world.chains, id) !== undefined);
    if (volumeId === undefined) break;
    const copying = copyFor(world, volumeId)?.copying;
    if (copying === undefined) throw new Error("a daemon copies what is to be copied");
    copying.isReady = true;
    await host.finishCopy(volumeId, copying.copy);
  }
  await host.collect();
  world.check();
  expect([...world.chains.layers.values()].filter(({ format }) => format === "backup")).toEqual([]);
};

/** Resolves with what was copied to its end. */
const runSeed = async (seed: bigint): Promise<Pick<World, "merges" | "flattened">> => {
  const world = new World(seed);
  let host = world.newHost();
  for (let count = 0; count < OPERATIONS; count++) {
    // What is rare by chance is drawn more often: a merge needs a deleted snapshot.
    const operation = world.pick(world.random.below(2) === 0 ? merging : operations);
    const before = new Map([...world.expected].map(([id, { content }]) => [id, new Map(content)]));
    const layers = new Set(world.chains.layers.keys());
    try {
      await operation?.(world, host);
    } catch (error) {
      if (!(error instanceof Killed) && codeOf(error) === undefined) throw error;
    }
    if (world.isDown || world.chains.pending.length > 0) host = await world.recover();
    else await host.collect().catch(async () => (host = await world.recover()));
    noteReverts(world, layers);
    world.noteRestorations();
    settle(world, before);
    world.isCalm = true;
    for (const volumeId of world.exported) {
      if (!world.chains.volumes.has(volumeId)) world.exported.delete(volumeId);
      else if (!world.daemons.has(volumeId)) world.startDaemon(volumeId);
    }
    world.isCalm = false;
    world.check();
    if (world.random.below(10) === 0) world.stuck.clear();
  }
  await drain(world);
  return world;
};

/** A reverted volume is what its latest snapshot is: nobody wrote to it meanwhile. */
const noteReverts = (world: World, before: ReadonlySet<LayerId>): void => {
  for (const [volumeId, volume] of world.chains.volumes) {
    const latest = volume.snapshots.at(-1);
    const expected = world.expected.get(volumeId);
    if (latest === undefined || expected === undefined || world.exported.has(volumeId)) continue;
    const base = world.chains.layers.get(volume.top)?.base;
    const frozen = expected.snapshots.get(latest.id);
    const wasReverted = !before.has(volume.top) && base === latest.layer && frozen !== undefined;
    if (wasReverted) expected.content = new Map(frozen);
  }
};

test("no acknowledged byte is lost and no layer leaks, whenever hosts and daemons die", async () => {
  const { first, count } = chosenSeeds(SEEDS);
  let [merges, flattened] = [0, 0];
  for (let seed = first; seed < first + BigInt(count); seed++) {
    try {
      const seen = await runSeed(seed);
      merges += seen.merges;
      flattened += seen.flattened;
    } catch (error) {
      throw new Error(`SEED=${seed} ./scripts/test simulation`, { cause: error });
    }
  }
  // A simulation that merges nothing shows nothing of merges.
  if (count < SEEDS) return;
  expect(merges).toBeGreaterThan(SEEDS / 4);
  expect(flattened).toBeGreaterThan(SEEDS / 4);
});
