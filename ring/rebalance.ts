import type { Random } from "../common/random.ts";
import { RingsteadError } from "../common/errors.ts";
import { NO_DEVICE } from "./device.ts";
import type { Builder } from "./builder.ts";
import { fastRandom, type FastRandom, shuffledIndices } from "./fast-random.ts";
import { fillFirstLayout } from "./first-layout.ts";
import { Layout } from "./layout.ts";
import { improveByChains } from "./chains.ts";
import { computeTargets, type Targets } from "./targets.ts";

/** What a rebalance did and how good the ring is now. */
export type RebalanceResult = {
  /** Replicas that are on another device than before; the first fill counts none. */
  readonly moved: number;
  /** The device furthest from its share: 100 × |held − share| ÷ share; 0 is perfect. A device to be emptied counts with what it holds. */
  readonly balance: number;
  /** Per cent of partitions whose replicas are less far apart than the devices and weights allow; 0 is perfect. */
  readonly dispersion: number;
};

/** Devices below their target that are looked at for one replica in the first passes; a sample when there are more. */
const RECEIVERS_SAMPLED = 64;
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
  const { replicas, devices, assignments } = builder;
  const usable = devices.filter((device) => device !== undefined && device.weight > 0).length;
  if (usable < replicas)
    throw new RingsteadError(
      "ring-too-few-devices",
      `${replicas} replicas need ${replicas} devices with weight; there ${usable === 1 ? "is" : "are"} ${usable}`,
      { replicas, devices: usable },
    );
  const partitionCount = assignments.length / replicas;
  const random = fastRandom(options.random);
  const held = countHeld(builder);
  const targets = computeTargets(devices, { partitionCount, replicas, overload: builder.overload, held });
  if (held.every((count) => count === 0) && builder.movedAtSeconds.every((second) => second === 0)) {
    fillFirstLayout(assignments, replicas, targets, random);
    builder.version += 1;
    return { moved: 0, ...assess(builder, targets) };
  }
  const nowSeconds = Math.floor(options.nowMs / 1000);
  const layout = new Layout(assignments, replicas, targets, held, lockedPartitions(builder, nowSeconds));
  const order = shuffledIndices(partitionCount, random);
  fillHoles(layout, order, random);
  moveDirectly(layout, order, random, { costMax: -1, receiversTried: RECEIVERS_SAMPLED });
  moveDirectly(layout, order, random, { costMax: 0, receiversTried: RECEIVERS_SAMPLED });
  moveDirectly(layout, order, random, { costMax: 0, receiversTried: Infinity });
  improveByChains(layout, order);
  const moved = layout.countMoves();
  for (const partition of layout.movedPartitions()) builder.movedAtSeconds[partition] = nowSeconds;
  if (moved > 0) builder.version += 1;
  return { moved, ...assess(builder, targets) };
};

const countHeld = (builder: Builder): Int32Array => {
  const held = new Int32Array(builder.devices.length);
  for (const device of builder.assignments) if (device !== NO_DEVICE) held[device] = (held[device] ?? 0) + 1;
  return held;
};

/** A moment in the future (the clock was set back) counts as just now: the cautious reading. */
const lockedPartitions = (builder: Builder, nowSeconds: number): Uint8Array => {
  const window = builder.minPartHours * SECONDS_PER_HOUR;
  return Uint8Array.from(builder.movedAtSeconds, (second) => (second > 0 && nowSeconds - second < window ? 1 : 0));
};

const assess = (builder: Builder, targets: Targets): { balance: number; dispersion: number } => {
  const held = countHeld(builder);
  const partitionCount = builder.assignments.length / builder.replicas;
  let balance = 0;
  for (const device of builder.devices) {
    if (device === undefined) continue;
    const share = targets.shareOfDevice[device.id] ?? 0;
    const count = held[device.id] ?? 0;
    const off = share > 0 ? Math.abs(count - share) / share : count;
    balance = Math.max(balance, off * 100);
  }
  const layout = new Layout(builder.assignments, builder.replicas, targets, held, new Uint8Array(partitionCount));
  let undispersed = 0;
  for (let partition = 0; partition < partitionCount; partition += 1)
    if (!layout.isDispersed(partition)) undispersed += 1;
  return { balance, dispersion: (undispersed / partitionCount) * 100 };
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
    this.#ids = [...layout.held.keys()].filter((id) => layout.surplus(id) < 0);
  }

  /** The best of them for `slot` and what it costs in dispersion; the one most in need among equals. */
  bestFor(slot: number): { device: number; cost: number } | undefined {
    const partition = Math.floor(slot / this.#layout.replicas);
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
 * Places the replicas of removed devices. Where no device below its target fits, one with weight takes it all the same: a
 * missing replica is worse than an uneven device.
 */
const fillHoles = (layout: Layout, order: Uint32Array, random: FastRandom): void => {
  if (!layout.assignments.includes(NO_DEVICE)) return;
  const receivers = new Receivers(layout, random, Infinity);
  const { ofDevice } = layout.targets;
  const usable = [...ofDevice.keys()].filter((id) => (ofDevice[id] ?? 0) > 0);
  const bestOfAll = (slot: number): number => {
    const partition = Math.floor(slot / layout.replicas);
    const free = usable.filter((id) => !layout.holds(partition, id));
    const rated = free.map((device) => ({
      device,
      cost: layout.costOfMove(slot, device),
      over: layout.surplus(device),
    }));
    rated.sort((a, b) => a.cost - b.cost || a.over - b.over);
    return rated[0]?.device ?? NO_DEVICE;
  };
  for (const partition of order)
    for (let slot = partition * layout.replicas; slot < (partition + 1) * layout.replicas; slot += 1)
      if (layout.isEmpty(slot)) layout.assign(slot, receivers.bestFor(slot)?.device ?? bestOfAll(slot));
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
    for (let slot = partition * layout.replicas; slot < (partition + 1) * layout.replicas; slot += 1) {
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
