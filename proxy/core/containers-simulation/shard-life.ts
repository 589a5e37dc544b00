import type { Incarnation } from "../../../common/ballot.ts";
import { RingsteadError } from "../../../common/errors.ts";
import type { ContainerRecord } from "../../../storage-node/wire.ts";
import { setOf } from "../container-place.ts";
import { readContainer } from "../container-script.ts";
import { mergeOf, noteRootDropped, planChange, runChange, settleShard, splitAt } from "../shard-change.ts";
import { buryLeaf } from "../shard-leaf.ts";
import { rangesIn, ROOT } from "../shard-ranges.ts";
import type { ContainersLife } from "./life.ts";
import { COPY_SETTINGS } from "./operations.ts";
import { changeCarelessly, isCarelessChange } from "./planted-mistakes.ts";
import type { SimulatedProxy } from "./simulated-proxy.ts";
import { CONTAINER, membersIn, type World } from "./world.ts";

const SHARDER_ATTEMPTS = 4;
const DROP_ROUNDS = 5;
const SETTLE_ROUNDS = 12;
/** Of the sharders, and how long such a one lets others go first, at most. */
const SLOW_SHARE = 0.5;
const SLOW_PAUSE_MS = 30;
const MORTAL_SHARE = 0.6;
/** What comes of one step, by chance. */
const OPERATE_CHANCE = 0.08;
/** Between two pages of a copy more is at stake. */
const OPERATE_AT_PAUSE_CHANCE = 0.6;
const OPERATE_WITHIN_MS = 6;
const CRASH_CHANCE = 0.02;
const SETTLE_CHANCE = 0.03;
const DEATH_CHANCE = 0.02;

/** Splits a range of the container at some name, or merges two, or goes on with what is under way; then cleans up behind it. */
const shardOnce = async (world: World, proxy: SimulatedProxy): Promise<void> => {
  const { random, shards } = world;
  const { place } = proxy;
  const found = await proxy.run(readContainer(place));
  if (typeof found === "string" || shards === undefined) return;
  const { incarnation } = found.record;
  if (found.record.shards?.change === undefined) {
    const ranges = rangesIn(found.record);
    const range = ranges[random.below(ranges.length)];
    const pivot = world.names[random.below(world.names.length)];
    if (range === undefined || pivot === undefined) return;
    const isMerging = ranges.length > 1 && random.unit() < 0.5;
    const planned = await proxy.run(
      planChange(place, incarnation, isMerging ? mergeOf(range.id) : splitAt(range.id, pivot)),
    );
    if (typeof planned === "string") return;
    note(world, planned.record);
  } else note(world, found.record);
  const { mutation } = world;
  if (isCarelessChange(mutation)) await proxy.run(changeCarelessly(place, incarnation, COPY_SETTINGS, mutation));
  await proxy.run(runChange(place, incarnation, COPY_SETTINGS));
  await cleanUp(world, proxy);
};

const note = ({ shards }: World, { incarnation, shards: told }: ContainerRecord): void => {
  shards?.ids.set(`${incarnation} ${ROOT}`, incarnation);
  for (const { id } of told?.change?.to ?? []) shards?.ids.set(`${incarnation} ${id}`, incarnation);
};

/** What its container has no use for any more goes, at every replica before its record. */
const cleanUp = async (world: World, proxy: SimulatedProxy): Promise<void> => {
  const { place } = proxy;
  for (const [key, incarnation] of world.shards?.ids ?? []) {
    const id = key.slice(incarnation.length + 1);
    const fate = await proxy.run(settleShard(place, incarnation, id));
    if (fate !== "over" || !(await isDropped(world, proxy, incarnation, id))) continue;
    if (id === ROOT) await proxy.run(noteRootDropped(place, incarnation));
    else await proxy.run(buryLeaf(setOf(place, incarnation, id)));
    world.note?.("a shard is over");
  }
};

const isDropped = async (
  world: World,
  proxy: SimulatedProxy,
  incarnation: Incarnation,
  id: string,
): Promise<boolean> => {
  const set = setOf(proxy.place, incarnation, id);
  for (const replica of membersIn(world, CONTAINER)) {
    let left: number | undefined;
    for (let round = 0; round < DROP_ROUNDS && left !== 0; round++)
      left = await proxy.askOne(replica, set, async (it, epoch) => {
        try {
          return await it.shards.drop(set, incarnation, epoch);
        } catch (error) {
          if (error instanceof RingsteadError && error.code === "rows-not-over") return 1;
          throw error;
        }
      });
    if (left !== 0) return false;
  }
  return true;
};

/** What may happen whenever a sharder has done a step. */
export type StepEvents = {
  /** A client begins to do something. */
  readonly operate: () => void;
  /** A replica loses its power, for a moment. */
  readonly crash: () => void;
};

/** What a proxy's settler does about every shard that there ever was, as often as it likes: it finds them all on replicas that lag. */
const settleOnce = async (world: World, proxy: SimulatedProxy): Promise<void> => {
  for (const [key, incarnation] of world.shards?.ids ?? [])
    await proxy.run(settleShard(proxy.place, incarnation, key.slice(incarnation.length + 1)));
};

/**
 * Sharders start every now and then, some beside another one. Most of them die on the way, at any step; some take their time between two steps, and at each of them clients
 * and settlers come in between, and replicas lose power.
 */
export const shardContainers = (
  life: ContainersLife,
  spreadMs: number,
  { crash, operate }: StepEvents = { crash: () => {}, operate: () => {} },
  starts = 8,
): void => {
  const { queue, random } = life.world;
  const work = async (proxy: SimulatedProxy): Promise<void> => {
    for (let attempt = 0; attempt < SHARDER_ATTEMPTS && !proxy.isDead; attempt++) {
      await shardOnce(life.world, proxy);
      await new Promise<void>((resolve) => queue.after(3 + random.unit() * 20, resolve));
    }
  };
  for (let start = 0; start < starts; start++)
    queue.after(random.unit() * spreadMs, () => {
      const proxy = life.newProxy();
      if (random.unit() < SLOW_SHARE) proxy.pauseMs = SLOW_PAUSE_MS;
      const mayDie = random.unit() < MORTAL_SHARE;
      proxy.onStep = (kind) => {
        const chance = random.unit();
        if (kind === "pause" && random.unit() < OPERATE_AT_PAUSE_CHANCE) operate();
        if (chance < OPERATE_CHANCE) queue.after(random.unit() * OPERATE_WITHIN_MS, operate);
        else if (chance < OPERATE_CHANCE + CRASH_CHANCE) crash();
        else if (chance < OPERATE_CHANCE + CRASH_CHANCE + SETTLE_CHANCE) void settleOnce(life.world, life.newProxy());
        else if (mayDie && chance > 1 - DEATH_CHANCE) proxy.isDead = true;
      };
      void work(proxy);
    });
};

/** After the faults: whatever is under way comes to its end, and whoever is behind hears of it. */
export const settleShards = async (world: World, proxy: SimulatedProxy): Promise<void> => {
  for (let round = 0; round < SETTLE_ROUNDS; round++) {
    const found = await proxy.run(readContainer(proxy.place));
    if (typeof found !== "string") note(world, found.record);
    if (typeof found !== "string" && found.record.shards?.change !== undefined)
      await proxy.run(runChange(proxy.place, found.record.incarnation, COPY_SETTINGS));
    if (round < 2) await cleanUp(world, proxy);
    if (found === "absent" || (typeof found !== "string" && found.record.shards?.change === undefined && round > 1))
      return;
  }
};
