import { expect, test } from "vitest";
import { codeOf, RingsteadError } from "../../../common/errors.ts";
import { type Random, seededRandom } from "../../../common/random.ts";
import { chosenSeeds } from "../../../common/simulation/seeds.ts";
import type { NbdPiece } from "../nbd-client.ts";
import { COMMAND_FLUSH, COMMAND_READ, COMMAND_TRIM, COMMAND_WRITE } from "../nbd-protocol.ts";
import { bytesOf } from "./link-content.ts";
import { type Daemon, VolumeLink } from "./volume-link.ts";

/*
 * A volume of a few blocks, whose daemon has in memory what was not flushed, and loses any part of it when it is killed: with requests under way, done
 * or not. Clients write, read and flush blocks of their own, each one thing after the other, while daemons die, connections close, and the
 * host holds everything. Whatever was answered is read; whatever was flushed is on the disk.
 */
const SEEDS = 150;
const CLIENTS = 4;
const BLOCKS_EACH = 3;
const STEPS = 40;
const DISTURBANCES = 12;
const BLOCK_BYTES = 64;

type Write = { readonly block: number; readonly value: number; isAnswered: boolean };

const lost = (): RingsteadError => new RingsteadError("daemon-lost", "it is gone");

/** Lets whatever is ready run, in an order that the seed decides. */
const turns = async (random: Random): Promise<void> => {
  for (let count = random.below(4); count >= 0; count--) await new Promise<void>((resolve) => setImmediate(resolve));
};

class World {
  readonly random: Random;
  readonly durable = new Map<number, number>();
  /** What the daemon has in memory, in the order in which it took it in. */
  #cache: Write[] = [];
  #connections = new Set<{ isOpen: boolean }>();
  isUp = true;
  /** Refuses what writes from now on. */
  isFull = false;

  constructor(random: Random) {
    this.random = random;
  }

  async connect(): Promise<Daemon> {
    await turns(this.random);
    if (!this.isUp) throw lost();
    const state = { isOpen: true };
    this.#connections.add(state);
    return {
      sizeBytes: CLIENTS * BLOCKS_EACH * BLOCK_BYTES,
      get isOpen() {
        return state.isOpen;
      },
      ask: (command, offset, _length, bytes) => this.#ask(state, command, offset / BLOCK_BYTES, bytes),
      [Symbol.dispose]: () => {
        state.isOpen = false;
      },
    };
  }

  /** Connections close, and the daemon goes on. */
  cut(): void {
    for (const state of this.#connections) state.isOpen = false;
    this.#connections.clear();
  }

  kill(): void {
    this.cut();
    this.isUp = false;
    for (const { block, value } of this.#cache) if (this.random.below(2) === 0) this.durable.set(block, value);
    this.#cache = [];
  }

  read(block: number): number {
    return this.#cache.findLast((write) => write.block === block)?.value ?? this.durable.get(block) ?? 0;
  }

  async #ask(
    state: { isOpen: boolean },
    command: number,
    block: number,
    bytes: Buffer | undefined,
  ): Promise<readonly NbdPiece[]> {
    const covered = command === COMMAND_FLUSH ? this.#cache.filter(({ isAnswered }) => isAnswered) : [];
    await turns(this.random);
    if (!state.isOpen) throw lost();
    let write: Write | undefined;
    let pieces: readonly NbdPiece[] = [];
    if (command === COMMAND_FLUSH) {
      // What another flush has written meanwhile may be older than what is there by now.
      for (const one of this.#cache) if (covered.includes(one)) this.durable.set(one.block, one.value);
      this.#cache = this.#cache.filter((one) => !covered.includes(one));
    } else if (command === COMMAND_READ) {
      const data = Buffer.alloc(BLOCK_BYTES, this.read(block));
      pieces = [{ kind: "data", offset: block * BLOCK_BYTES, bytes: data }];
    } else if (command !== COMMAND_TRIM) {
      if (this.isFull) throw new RingsteadError("daemon-refused", "it is full", { errorNumber: 28 });
      write = { block, value: command === COMMAND_WRITE ? (bytes?.[0] ?? 0) : 0, isAnswered: false };
      this.#cache.push(write);
    }
    await turns(this.random);
    if (!state.isOpen) throw lost();
    if (write !== undefined) write.isAnswered = true;
    return pieces;
  }
}

const readBlock = async (link: VolumeLink, block: number): Promise<number> => {
  const offset = block * BLOCK_BYTES;
  const bytes = bytesOf(await link.read(offset, BLOCK_BYTES), offset, BLOCK_BYTES);
  expect(bytes.every((byte) => byte === bytes[0])).toBe(true);
  return bytes[0] ?? 0;
};

/** One that has its blocks to itself. */
const runClient = async (
  world: World,
  link: VolumeLink,
  number: number,
  expected: Map<number, number>,
): Promise<void> => {
  const { random } = world;
  const own = Array.from({ length: BLOCKS_EACH }, (_, index) => number * BLOCKS_EACH + index);
  for (let step = 0; step < STEPS; step++) {
    const block = own[random.below(BLOCKS_EACH)] ?? 0;
    const kind = random.below(8);
    if (kind < 4) {
      const value = 1 + random.below(255);
      await link.write(block * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, value));
      expected.set(block, value);
    } else if (kind === 4) {
      await link.zero(block * BLOCK_BYTES, BLOCK_BYTES);
      expected.set(block, 0);
    } else if (kind < 7) expect(await readBlock(link, block)).toBe(expected.get(block) ?? 0);
    else {
      await link.flush();
      for (const one of own) expect(world.durable.get(one) ?? 0).toBe(expected.get(one) ?? 0);
    }
    await turns(random);
  }
};

const disturb = async (world: World, link: VolumeLink): Promise<void> => {
  const { random } = world;
  for (let count = 0; count < DISTURBANCES; count++) {
    for (let pause = random.below(8); pause > 0; pause--) await turns(random);
    const kind = random.below(4);
    if (kind < 2) {
      world.kill();
      await turns(random);
      world.isUp = true;
    } else if (kind === 2) world.cut();
    else {
      await link.hold();
      // The host has the daemon open the volume anew.
      world.cut();
      await turns(random);
      link.letGo();
    }
  }
};

const newLink = (world: World, onLost?: () => void): VolumeLink =>
  new VolumeLink({
    connect: () => world.connect(),
    isReadOnly: false,
    // Some writes beyond it: the link flushes of itself, and writes wait.
    keptLimitBytes: 2000,
    ...(onLost === undefined ? {} : { onLost }),
  });

const runSeed = async (seed: bigint): Promise<void> => {
  const world = new World(seededRandom(seed));
  await using link = newLink(world);
  const expected = new Map<number, number>();
  const clients = Array.from({ length: CLIENTS }, (_, number) => runClient(world, link, number, expected));
  await Promise.all([disturb(world, link), ...clients]);
  for (const [block, value] of expected) expect(await readBlock(link, block)).toBe(value);
  world.kill();
  world.isUp = true;
  await link.flush();
  for (const [block, value] of expected) expect(world.durable.get(block) ?? 0).toBe(value);
};

test("what was answered outlives the volume's daemons, and what was flushed is on the disk", async () => {
  const { first, count } = chosenSeeds(SEEDS);
  for (let index = 0; index < count; index++) {
    const seed = first + BigInt(index);
    try {
      await runSeed(seed);
    } catch (error) {
      throw new Error(`SEED=${seed} ./scripts/test simulation`, { cause: error });
    }
  }
});

test("where what was answered cannot be written again, no flush says that it is on the disk", async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const world = new World(seededRandom(BigInt(seed)));
    let isLost = false;
    await using link = newLink(world, () => (isLost = true));
    await link.write(0, Buffer.alloc(BLOCK_BYTES, 7));
    world.isFull = true;
    world.kill();
    world.isUp = true;
    const isFlushed = await link.flush().then(
      () => true,
      (error: unknown) => codeOf(error) !== "daemon-refused",
    );
    expect([isFlushed, isLost]).toEqual([false, true]);
    world.isFull = false;
    await expect(link.flush()).rejects.toThrow("is lost");
  }
});
