import { codeOf } from "../../common/errors.ts";
import { type Random, seededRandom } from "../../common/random.ts";
import { SimulatedDisk } from "../../common/simulation/disk.ts";
import { DeviceReplica } from "../device-replica.ts";
import type { DeviceEngine } from "../engine/device-engine.ts";
import type { EngineTimer } from "../engine/engine-timer.ts";
import {
  emptyIndexPlatter,
  type IndexPlatter,
  openMemoryIndex,
  platterAfterPowerLoss,
} from "../engine/memory-index.ts";
import { openDevice } from "../engine/open-device.ts";
import { recountRows } from "../repair/recount-rows.ts";
import { partitionSum } from "../repair/repair-source.ts";
import { spaceOfReplicated } from "../store/key-space.ts";
import { registerKey } from "../store/keys.ts";
import { decodeRegister } from "../store/register-format.ts";
import { type Life, Votes } from "../votes.ts";
import type { Name } from "../wire.ts";
import { DIGESTS, epochsOf, marksOf, repairOf } from "./repairing-replica.ts";
import {
  type Hardware,
  type MakeNodes,
  partitionOf,
  type PoweredReplica,
} from "../../proxy/core/containers-simulation/world.ts";

const LOG_FOLDER = "/device/log";
/** Small, so that a life sees many of them. */
const SEGMENT_BYTES = 32 * 1024;
const CHECKPOINT_BYTES = 24 * 1024;
/** Memory for large batches is taken for each life, and zeroed. */
const NEVER_BYTES = 2 ** 30;
const STEP_MIN_MS = 0.05;
const STEP_SPREAD_MS = 0.6;
/** A node whose device could not be opened tries again. */
const REOPEN_MS = 100;
const YOUNG_MS = 2000;
const SET_HASH_SEEDS = [1n, 2n] as const;
/** About as much as some batches have. */
const LATE_BYTES = 1500;
const BEHIND_ALL_KEYS = Buffer.alloc(6, 0xff);
const SCAN_LIMIT = 10_000;

/** What a node loses or keeps, and what is wrong with its machine just now. */
type Machine = Hardware & {
  platter: IndexPlatter;
  /** The power cuts of its life so far; what was begun before one does not go on. */
  cuts: number;
  isFounded: boolean;
};

const newMachine = (): Machine => {
  const machine: Machine = {
    disk: new SimulatedDisk(),
    platter: emptyIndexPlatter(),
    slowness: 1,
    skewMs: 0,
    cuts: 0,
    isFounded: false,
    onStart: () => {},
    rot: (random) => rot(machine, random),
  };
  return machine;
};

/** One bit of what the log holds becomes another, and the index that could have told what it was is lost. Whether there was one. */
const rot = async (machine: Machine, random: Random): Promise<boolean> => {
  const { disk } = machine;
  machine.platter = emptyIndexPlatter();
  const names = (await disk.list(LOG_FOLDER).catch(() => [])).filter((name) => name.endsWith(".log"));
  const written: { readonly path: string; readonly bytes: number }[] = [];
  for (const name of names) {
    const path = `${LOG_FOLDER}/${name}`;
    const file = await disk.open(path, "existing");
    const bytes = Buffer.alloc(await file.size());
    file.readSync(bytes, 0);
    written.push({ path, bytes: bytes.findLastIndex((byte) => byte !== 0) + 1 });
  }
  let at = random.below(
    Math.max(
      1,
      written.reduce((sum, { bytes }) => sum + bytes, 0),
    ),
  );
  // What was written last is what nobody else may have yet.
  const isLate = random.below(2) === 0;
  for (const { path, bytes } of written) {
    if (at < bytes) {
      disk.flipBit(path, isLate ? Math.max(0, bytes - 1 - random.below(LATE_BYTES)) : at);
      return true;
    }
    at -= bytes;
  }
  return false;
};

/**
 * Nodes as they are in production, each with its log, its recovery and its checkpoints on a disk of its own: a power cut tears and drops what was
 * not synced, each step of the disk takes its time. `hardware` is what a simulation may break. A node is down before its first restart.
 */
export const diskReplicas: MakeNodes = (queue, seed, hardware) => {
  return (_syncAfter, _clock, index, first, mutation) => {
    const random = seededRandom(seed * 31n + BigInt(index));
    const own = newMachine();
    hardware[index] = own;
    const clock = { nowMs: () => queue.nowMs() + own.skewMs };
    const timerOf = (life: number): EngineTimer => ({
      nowMs: () => queue.nowMs(),
      after: (delayMs, run) =>
        queue.after(delayMs, () => {
          if (own.cuts === life) run();
        }),
    });
    const open = async (): Promise<PoweredReplica> => {
      const life = own.cuts;
      const timer = timerOf(life);
      own.disk.turn = () =>
        new Promise((resolve) => timer.after((STEP_MIN_MS + random.unit() * STEP_SPREAD_MS) * own.slowness, resolve));
      for (;;) {
        try {
          const engine = await openDevice(
            {
              path: "/device",
              identity: { clusterId: "cluster", node: "node", device: String(index) },
              digests: DIGESTS,
            },
            {
              disk: own.disk,
              openIndex: openMemoryIndex(own.platter),
              lock: async () => ({ [Symbol.asyncDispose]: async () => {} }),
              segmentBytes: SEGMENT_BYTES,
              checkpointBytes: CHECKPOINT_BYTES,
              directBatchBytes: NEVER_BYTES,
              indexPace: { keys: 12, delayMs: 40 },
              filterSize: { firstKeys: 64, maxKeys: 256 },
              runSize: { bytes: 8192, keys: 20 },
              timer,
              random: () => random.below(2 ** 32),
              reservedBytes: 0,
            },
          );
          return await serve(engine);
        } catch (error) {
          if (own.cuts !== life) return new Promise<never>(() => {});
          if (codeOf(error) === undefined) throw error;
          own.onStart("unopened");
          await new Promise<void>((resolve) => timer.after(REOPEN_MS, resolve));
        }
      }
    };
    const votesOf = async (engine: DeviceEngine): Promise<Votes> => {
      const hasLost = (engine.figures()["quarantinedRanges"] ?? 0) > 0;
      if (hasLost) own.onStart("damaged");
      // Lives that the seed decides.
      const newLife = (): Life => {
        if (!hasLost) own.onStart("emptied");
        return random
          .below(2 ** 32)
          .toString(16)
          .padStart(16, "0") as Life;
      };
      const isFounding = !own.isFounded;
      const votes = await Votes.opened(engine, clock, isFounding, newLife);
      own.isFounded = true;
      if (votes.isNewcomer) await recountRows(engine, SET_HASH_SEEDS);
      return votes;
    };
    let isToBeEmptied = false;
    const afterCrash = (): Promise<PoweredReplica> => {
      own.disk = isToBeEmptied ? new SimulatedDisk() : own.disk.afterPowerLoss(random);
      own.platter = isToBeEmptied
        ? emptyIndexPlatter()
        : platterAfterPowerLoss(own.platter, random.below(own.platter.since.length + 1));
      isToBeEmptied = false;
      return open();
    };
    const onCrash = (): void => {
      own.cuts += 1;
      own.disk.powerLossAt = 0;
    };
    const serve = async (engine: DeviceEngine): Promise<PoweredReplica> => {
      const votes = await votesOf(engine);
      const replica = new DeviceReplica(
        engine,
        clock,
        SET_HASH_SEEDS,
        votes,
        epochsOf(engine, index, first, mutation),
        marksOf(engine, mutation),
      );
      return {
        replica,
        held: (name) => {
          const entry = engine.get(registerKey(name));
          if (entry === undefined) return undefined;
          const { body, value } = entry;
          return { register: decodeRegister(value), storedBytes: body.kind === "none" ? 0 : body.length };
        },
        afterCrash,
        onCrash,
        isFailed: () => engine.state().kind === "failed",
        repair: repairOf(replica, clock, first, mutation, YOUNG_MS, () => (isToBeEmptied = true)),
        content: (space) => contentOf(engine, replica, space),
      };
    };
    const unopened = (): never => {
      throw new Error("a node that has not started yet was asked");
    };
    return {
      get replica() {
        return unopened();
      },
      held: unopened,
      afterCrash,
      onCrash,
      repair: undefined,
    };
  };
};

/** Every entry of a ring that replicas are to have in common, byte for byte, after its confirmations. */
const contentOf = async (engine: DeviceEngine, replica: DeviceReplica, space: Name["space"]): Promise<string> => {
  replica.flushConfirmations();
  const lines: string[] = [];
  const { entries, sum } = partitionSum(engine, partitionOf(space));
  for (const { key, value } of await engine.scan({ gte: Buffer.of(0), lt: BEHIND_ALL_KEYS, limit: SCAN_LIMIT })) {
    if (spaceOfReplicated(key) !== space) continue;
    const body = engine.get(key)?.body ?? { kind: "none" as const };
    const bytes = body.kind === "none" ? new Uint8Array() : await engine.readBody(body, 0, body.length);
    lines.push([key, value, bytes].map((part) => Buffer.from(part).toString("hex")).join(" "));
  }
  // What they compare themselves by says the same.
  return [`${engine.digests.isCertain ? "counted" : "uncounted"} ${entries} ${sum}`, ...lines].join("\n");
};
