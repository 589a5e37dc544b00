import type { Random } from "../common/random.ts";
import { RingsteadError } from "../common/errors.ts";
import { type Assessment, assess } from "./assessment.ts";
import { NO_DEVICE } from "./device.ts";
import { type Builder, countHeld } from "./builder.ts";
import { fastRandom, type FastRandom, shuffledIndices } from "./fast-random.ts";
import { fillFirstLayout } from "./first-layout.ts";
import { Layout } from "./layout.ts";
import { improveByChains } from "./chains.ts";
import { tableShape } from "./table-shape.ts";
import { computeTargets } from "./targets.ts";

/** What a rebalance did and how good the ring is now. */
export type RebalanceResult = Assessment & {
  /** Replicas that are on another device than before; the first fill counts none. */
  readonly moved: number;
};

/**
 * Devices below their target that are looked at for one replica in the first passes; a sample when there are more. The neediest of
 * some keeps all near each other, and what finds no place in a sample meets all of them in the last pass.
 */
const RECEIVERS_SAMPLED = 12;
const SECONDS_PER_HOUR = 3600;

/**
 * Brings the table to the targets with few moves. A partition gives up at most one replica, and none within `minPartHours` of
 * the last; replicas of removed devices are placed at once in any case. What this keeps from being moved now, a
 * later rebalance moves.
 *
 * First the holes, then moves that also bring replicas further apart, then other direct moves from devices above their target
 * to devices below it, then chains of moves where no direct one fits (`chains.ts`).
 *
 * @throws RingsteadError `ring-too-few-devices` when fewer devices than replicas have weight: two replicas on one
 *   device would be two votes of one disk.
 */
export const rebalance = (builder: Builder, options: { random: Random; nowMs: number }): RebalanceResult => {
  const { replicas, partitionPower, devices, assignments } = builder;
  const shape = tableShape(partitionPower, replicas);
  const { partitionCount } = shape;
  requireDevices(builder, shape.width);
  const random = fastRandom(options.random);
  const held = countHeld(builder);
  const targets = computeTargets(devices, { partitionCount, replicas, overload: builder.overload, held });
  if (held.every((count) => count === 0) && builder.movedAtSeconds.every((second) => second === 0)) {
    fillFirstLayout(assignments, shape, targets, random);
    builder.version += 1;
    return { moved: 0, ...assess(builder, shape, targets) };
  }
  const nowSeconds = Math.floor(options.nowMs / 1000);
  const layout = new Layout(assignments, shape, targets, held, lockedPartitions(builder, nowSeconds));
  const order = shuffledIndices(partitionCount, random);
  fillHoles(layout, order, random);
  moveDirectly(layout, order, random, { costMax: -1, receiversTried: RECEIVERS_SAMPLED });
  moveDirectly(layout, order, random, { costMax: 0, receiversTried: RECEIVERS_SAMPLED });
  moveDirectly(layout, order, random, { costMax: 0, receiversTried: Infinity });
  improveByChains(layout, order);
  const moved = layout.countMoves();
  for (const partition of layout.movedPartitions()) builder.movedAtSeconds[partition] = nowSeconds;
  if (moved > 0) builder.version += 1;
  return { moved, ...assess(builder, shape, targets) };
};

const requireDevices = ({ devices, replicas }: Builder, needed: number): void => {
  const usable = devices.filter((device) => device !== undefined && device.weight > 0).length;
  if (usable >= needed) return;
  throw new RingsteadError(
    "ring-too-few-devices",
    `${replicas} replicas need ${needed} devices with weight; there ${usable === 1 ? "is" : "are"} ${usable}`,
    { replicas, devices: usable },
  );
};

/** A moment in the future (the clock was set back) counts as just now: the cautious reading. */
const lockedPartitions = (builder: Builder, nowSeconds: number): Uint8Array => {
  const window = builder.minPartHours * SECONDS_PER_HOUR;
  return Uint8Array.from(builder.movedAtSeconds, (second) => (second > 0 && nowSeconds - second < window ? 1 : 0));
};

/** Devices that are below their target, forgetting those that have reached it. */
class Receivers {
  readonly #layout: Layout;
  readonly #random: FastRandom;
  readonly #tried: number;
  readonly #ids: number[];

  constructor(layout: Layout, random: FastRandom, tried: number) {
    this.#layout = layout;
    this.#random = random;
    this.#tried = tried;
    // In random order, so that some next to each other are a sample of all tiers.
    const ids = [...layout.held.keys()].filter((id) => layout.surplus(id) < 0);
    this.#ids = Array.from(shuffledIndices(ids.length, random), (index) => ids[index] ?? NO_DEVICE);
  }

  /** The best of them for `slot` and what it costs in dispersion; the one most in need among equals. */
  bestFor(slot: number): { device: number; cost: number } | undefined {
    const partition = this.#layout.partitionOf(slot);
    let best: { device: number; cost: number; need: number } | undefined;
    let index = this.#ids.length > this.#tried ? this.#random.below(this.#ids.length) : 0;
    for (let tries = Math.min(this.#ids.length, this.#tried); tries > 0; tries -= 1) {
      index = index >= this.#ids.length ? 0 : index;
      const device = this.#ids[index];
      if (device === undefined) break;
      if (this.#layout.surplus(device) >= 0) {
        this.#ids[index] = this.#ids.at(-1) ?? device;
        this.#ids.pop();
        continue;
      }
      index += 1;
      if (this.#layout.holds(partition, device)) continue;
      const cost = this.#layout.costOfMove(slot, device);
      const need = -this.#layout.surplus(device) / (this.#layout.targets.ofDevice[device] ?? 1);
      if (best === undefined || cost < best.cost || (cost === best.cost && need > best.need))
        best = { device, cost, need };
    }
    return best;
  }

  get isEmpty(): boolean {
    return this.#ids.length === 0;
  }
}

/**
 * Places the replicas of removed devices and of a higher replica count: first on the best of some devices below their target, as
 * long as that keeps the replicas apart, then on the best of all of them. Where none of them fits, one with weight takes
 * it all the same: a missing replica is worse than an uneven device.
 */
const fillHoles = (layout: Layout, order: Uint32Array, random: FastRandom): void => {
  const holes = holesOf(layout, order);
  if (holes.length === 0) return;
  const sample = new Receivers(layout, random, RECEIVERS_SAMPLED);
  for (const slot of holes) {
    const best = sample.bestFor(slot);
    if (best !== undefined && best.cost <= (layout.lacksTier(layout.partitionOf(slot)) ? -1 : 0))
      layout.assign(slot, best.device);
  }
  const receivers = new Receivers(layout, random, Infinity);
  const { ofDevice } = layout.targets;
  const usable = [...ofDevice.keys()].filter((id) => (ofDevice[id] ?? 0) > 0);
  const bestOfAll = (slot: number): number => {
    const partition = layout.partitionOf(slot);
    const free = usable.filter((id) => !layout.holds(partition, id));
    const rated = free.map((device) => ({
      device,
      cost: layout.costOfMove(slot, device),
      over: layout.surplus(device),
    }));
    rated.sort((a, b) => a.cost - b.cost || a.over - b.over);
    return rated[0]?.device ?? NO_DEVICE;
  };
  for (const slot of holes)
    if (layout.isEmpty(slot)) layout.assign(slot, receivers.bestFor(slot)?.device ?? bestOfAll(slot));
};

const holesOf = (layout: Layout, order: Uint32Array): number[] => {
  const holes: number[] = [];
  for (const partition of order)
    for (let slot = layout.firstOf(partition); slot < layout.endOf(partition); slot += 1)
      if (layout.isEmpty(slot)) holes.push(slot);
  return holes;
};

/** One pass of moves from devices above their target to devices below it; `costMax` −1 takes only what improves dispersion. */
const moveDirectly = (
  layout: Layout,
  order: Uint32Array,
  random: FastRandom,
  { costMax, receiversTried }: { costMax: number; receiversTried: number },
): void => {
  const receivers = new Receivers(layout, random, receiversTried);
  for (const partition of order) {
    if (receivers.isEmpty) return;
    let best: { slot: number; device: number; cost: number; surplus: number } | undefined;
    for (let slot = layout.firstOf(partition); slot < layout.endOf(partition); slot += 1) {
      const surplus = layout.surplus(layout.deviceAt(slot));
      if (surplus <= 0 || layout.hasMoved(slot) || !layout.isMovable(slot)) continue;
      const receiver = receivers.bestFor(slot);
      if (receiver === undefined || receiver.cost > costMax) continue;
      if (best === undefined || receiver.cost < best.cost || (receiver.cost === best.cost && surplus > best.surplus))
        best = { slot, surplus, ...receiver };
    }
    if (best !== undefined) layout.assign(best.slot, best.device);
  }
};
