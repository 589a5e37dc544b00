import { expect, test } from "vitest";
import { codeOf, RingsteadError } from "../../../common/errors.ts";
import { type Random, seededRandom } from "../../../common/random.ts";
import { chosenSeeds } from "../../../common/simulation/seeds.ts";
import { COMMAND_TRIM, COMMAND_WRITE_ZEROES } from "../nbd-protocol.ts";
import { ERROR } from "./fuse-protocol.ts";
import type { Incarnation } from "./incarnation.ts";
import { bytesOf } from "./link-content.ts";
import { SimulatedDaemon, turns } from "./simulated-daemon.ts";
import { UnflushedMark } from "./unflushed-mark.ts";
import { VolumeLink } from "./volume-link.ts";

/*
 * Clients write, read and flush blocks of their own, each one thing after the other, while daemons die, connections close and the daemon goes on, its disk
 * fails, and the host holds everything, at any point. Whatever was answered is read; whatever was flushed is on the disk. And a front that dies, alone
 * or with the daemon, leaves the next one what it takes to say of every loss that there was one.
 */
const SEEDS = 150;
const CLIENTS = 4;
const BLOCKS_EACH = 2;
const STEPS = 40;
const DISTURBANCES = 12;
const FRONTS = 8;
const BLOCK_BYTES = 64;
const MIB = 1024 * 1024;
const LONG_MS = 60_000;
const BOOT_ID = "boot";

/** What one front leaves to the next. */
type Left = { text: string };

type Front = { readonly link: VolumeLink; isDead: boolean };

/** Without `left` it has nobody after it. */
const newFront = (world: SimulatedDaemon, left: Left = { text: "" }, onLost?: () => void): Front => {
  const front = { isDead: false };
  const file = {
    write: (text: string): void => {
      if (!front.isDead) left.text = text;
    },
    sync: () => turns(world.random),
  };
  const link = new VolumeLink({
    connect: async () => {
      const daemon = await world.connect();
      if (!front.isDead) return daemon;
      daemon[Symbol.dispose]();
      throw new RingsteadError("daemon-lost", "the front is dead");
    },
    isReadOnly: false,
    discards: true,
    mark: new UnflushedMark(file, left.text, BOOT_ID),
    fence: (incarnation) => world.fence(incarnation),
    // Some writes beyond it: the link flushes of itself, and writes wait.
    keptLimitBytes: 2000,
    pauseMs: 0,
    ...(onLost === undefined ? {} : { say: onLost }),
  });
  return Object.assign(front, { link });
};

const readBlock = async (link: VolumeLink, block: number): Promise<number> => {
  const offset = block * BLOCK_BYTES;
  const bytes = bytesOf(await link.read(offset, BLOCK_BYTES), offset, BLOCK_BYTES);
  expect(bytes.every((byte) => byte === bytes[0])).toBe(true);
  return bytes[0] ?? 0;
};

const ownBlocks = (number: number): readonly number[] =>
  Array.from({ length: BLOCKS_EACH }, (_, index) => number * BLOCKS_EACH + index);

const isIoError = (error: unknown): boolean =>
  error instanceof RingsteadError && error.fields["errorNumber"] === ERROR.io;

/** Changes one block, again where the disk fails: what it holds then nobody knows. Resolves with what it holds. */
const change = async (link: VolumeLink, random: Random, block: number): Promise<number> => {
  const value = random.below(5) === 0 ? 0 : 1 + random.below(255);
  const at = block * BLOCK_BYTES;
  for (;;) {
    try {
      await (value === 0 ? link.zero(at, BLOCK_BYTES) : link.write(at, Buffer.alloc(BLOCK_BYTES, value)));
      return value;
    } catch (error) {
      if (!isIoError(error)) throw error;
    }
  }
};

/** One that has its blocks to itself. */
const runClient = async (
  world: SimulatedDaemon,
  link: VolumeLink,
  number: number,
  expected: Map<number, number>,
): Promise<void> => {
  const { random } = world;
  const own = ownBlocks(number);
  for (let step = 0; step < STEPS; step++) {
    const block = own[random.below(BLOCKS_EACH)] ?? 0;
    const kind = random.below(8);
    if (kind < 5) expected.set(block, await change(link, random, block));
    else if (kind < 7) expect(await readBlock(link, block)).toBe(expected.get(block) ?? 0);
    else {
      await link.flush();
      for (const one of own) expect(world.durable.get(one) ?? 0).toBe(expected.get(one) ?? 0);
    }
    await turns(random);
  }
};

const holdAndReopen = async (world: SimulatedDaemon, link: VolumeLink): Promise<void> => {
  await link.hold(LONG_MS);
  await world.renew();
  await turns(world.random);
  link.letGo();
};

const disturb = async (world: SimulatedDaemon, link: VolumeLink): Promise<void> => {
  const { random } = world;
  for (let count = 0; count < DISTURBANCES; count++) {
    for (let pause = random.below(8); pause > 0; pause--) await turns(random);
    const kind = random.below(6);
    if (kind < 2) {
      world.kill();
      if (kind === 1) world.failures = random.below(6);
      await turns(random);
      world.isUp = true;
    } else if (kind === 2) world.cut();
    else if (kind === 3) await world.renew();
    else if (kind === 4) await holdAndReopen(world, link);
    else {
      // One that is given up by who holds it.
      const held = link.hold(LONG_MS).catch((error: unknown) => expect(codeOf(error)).toBe("daemon-refused"));
      await turns(random);
      link.letGo();
      await held;
    }
  }
};

const runSeed = async (seed: bigint): Promise<void> => {
  const world = new SimulatedDaemon(seededRandom(seed), BLOCK_BYTES);
  await using link = newFront(world).link;
  const expected = new Map<number, number>();
  const clients = Array.from({ length: CLIENTS }, (_, number) => runClient(world, link, number, expected));
  await Promise.all([disturb(world, link), ...clients]);
  for (const [block, value] of expected) expect(await readBlock(link, block)).toBe(value);
  world.kill();
  world.isUp = true;
  await link.flush();
  for (const [block, value] of expected) expect(world.durable.get(block) ?? 0).toBe(value);
};

const forEachSeed = async (run: (seed: bigint) => Promise<void>): Promise<void> => {
  const { first, count } = chosenSeeds(SEEDS);
  for (let index = 0; index < count; index++) {
    const seed = first + BigInt(index);
    try {
      await run(seed);
    } catch (error) {
      throw new Error(`SEED=${seed} ./scripts/test simulation`, { cause: error });
    }
  }
};

test("what was answered outlives the volume's daemons, and what was flushed is on the disk", () =>
  forEachSeed(runSeed));

/** What its client knows of a front's life. */
type Life = {
  /** What each block holds by the answers; of the one that was changed last, and not answered, either. */
  readonly answered: Map<number, number>;
  readonly unflushed: Set<number>;
  unanswered: readonly [block: number, value: number] | undefined;
};

/** Writes and flushes until the front dies. */
const useUntilDeath = async (front: Front, random: Random, life: Life): Promise<void> => {
  while (!front.isDead) {
    const block = random.below(BLOCKS_EACH);
    if (random.below(4) === 0) {
      await front.link.flush();
      if (!front.isDead) life.unflushed.clear();
    } else {
      const value = 1 + random.below(255);
      life.unanswered = [block, value];
      await front.link.write(block * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, value));
      if (front.isDead) return;
      life.unanswered = undefined;
      life.answered.set(block, value);
      life.unflushed.add(block);
    }
    await turns(random);
  }
};

const die = async (world: SimulatedDaemon, front: Front, isWithDaemon: boolean): Promise<void> => {
  const { random } = world;
  for (let pause = random.below(12); pause > 0; pause--) await turns(random);
  // Perhaps while it gives the next daemon what the last one lost.
  if (random.below(3) === 0) {
    world.kill();
    await turns(random);
    world.isUp = true;
    await turns(random, 12);
  }
  front.isDead = true;
  if (isWithDaemon) world.kill();
  else world.cut();
};

const hasFailed = (flush: Promise<void>): Promise<boolean> =>
  flush.then(
    () => false,
    (error: unknown) => {
      expect(codeOf(error)).toBe("daemon-refused");
      return true;
    },
  );

const killSoon = async (world: SimulatedDaemon): Promise<void> => {
  await turns(world.random, 12);
  world.kill();
  await turns(world.random);
  world.isUp = true;
};

/** Resolves with whether the next front said that something may be lost. */
const oneLife = async (world: SimulatedDaemon, left: Left, life: Life): Promise<boolean> => {
  const { random } = world;
  const front = newFront(world, left);
  const isWithDaemon = random.below(2) === 0;
  const used = useUntilDeath(front, random, life).catch(() => undefined);
  await die(world, front, isWithDaemon);
  await front.link[Symbol.asyncDispose]();
  await used;
  await turns(random);
  world.isUp = true;
  await world.renew();
  await using next = newFront(world, left).link;
  // Perhaps before the next front has flushed anything.
  const killed = random.below(3) === 0 ? killSoon(world) : undefined;
  await next.ready();
  const isLossKnown = await hasFailed(next.flush());
  await killed;
  for (let block = 0; block < BLOCKS_EACH; block++) {
    const found = await readBlock(next, block);
    const isUnanswered = life.unanswered?.[0] === block && life.unanswered[1] === found;
    const mayDiffer = isUnanswered || (isLossKnown && life.unflushed.has(block));
    if (!mayDiffer) expect(found).toBe(life.answered.get(block) ?? 0);
    life.answered.set(block, found);
  }
  // A loss is told once, and none is told where there can be none.
  if (life.unflushed.size === 0 && life.unanswered === undefined) expect(isLossKnown).toBe(false);
  await next.flush();
  life.unflushed.clear();
  life.unanswered = undefined;
  return isLossKnown;
};

test("of what a front and a daemon lose that die together, or in turn, the next front's first flush says so, and of nothing else", async () => {
  let losses = 0;
  await forEachSeed(async (seed) => {
    const world = new SimulatedDaemon(seededRandom(seed), BLOCK_BYTES);
    const left: Left = { text: "" };
    const life: Life = { answered: new Map(), unflushed: new Set(), unanswered: undefined };
    for (let count = 0; count < FRONTS; count++) if (await oneLife(world, left, life)) losses += 1;
  });
  if (process.env["SEED"] === undefined) expect(losses).toBeGreaterThan(0);
});

test("a front that dies alone says of no loss, since the daemon has what it was answered", async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const world = new SimulatedDaemon(seededRandom(BigInt(seed)), BLOCK_BYTES);
    const left: Left = { text: "" };
    const first = newFront(world, left);
    await first.link.write(0, Buffer.alloc(BLOCK_BYTES, 7));
    first.isDead = true;
    world.cut();
    await first.link[Symbol.asyncDispose]();
    await world.renew();
    await using next = newFront(world, left).link;
    await next.flush();
    expect(world.durable.get(0)).toBe(7);
  }
});

test("a daemon that dies before the next front's first flush takes what the front before was answered: the next daemon's flush says so", async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const world = new SimulatedDaemon(seededRandom(BigInt(seed)), BLOCK_BYTES);
    const left: Left = { text: "" };
    const first = newFront(world, left);
    await first.link.write(0, Buffer.alloc(BLOCK_BYTES, 7));
    first.isDead = true;
    world.cut();
    await first.link[Symbol.asyncDispose]();
    await world.renew();
    world.isDyingAtFlush = true;
    await using next = newFront(world, left).link;
    await expect(next.flush()).rejects.toThrow("may be lost");
    await next.flush();
    expect(world.isDyingAtFlush).toBe(false);
  }
});

test("a disk that says that a write is invalid, as one whose path is away, is asked again, and not for ever", async () => {
  const world = new SimulatedDaemon(seededRandom(1n), BLOCK_BYTES);
  const { link } = newFront(world);
  await link.write(0, Buffer.alloc(BLOCK_BYTES, 7));
  world.failureNumber = ERROR.invalid;
  world.kill();
  world.failures = 10;
  world.isUp = true;
  await link.flush();
  expect([world.durable.get(0), world.failures]).toEqual([7, 0]);
  await link.write(0, Buffer.alloc(BLOCK_BYTES, 8));
  world.kill();
  world.failures = Number.POSITIVE_INFINITY;
  world.isUp = true;
  await expect(link.flush()).rejects.toThrow("is lost");
  await link[Symbol.asyncDispose]();
});

test("where what was answered cannot be written again, no flush says that it is on the disk, nor one of the next front", async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const world = new SimulatedDaemon(seededRandom(BigInt(seed)), BLOCK_BYTES);
    const left: Left = { text: "" };
    let isLost = false;
    const { link } = newFront(world, left, () => (isLost = true));
    await link.write(0, Buffer.alloc(BLOCK_BYTES, 7));
    world.isFull = true;
    world.kill();
    world.isUp = true;
    expect([await hasFailed(link.flush()), isLost]).toEqual([true, true]);
    world.isFull = false;
    await expect(link.flush()).rejects.toThrow("is lost");
    await link[Symbol.asyncDispose]();
    await using next = newFront(world, left).link;
    await expect(next.flush()).rejects.toThrow("is lost");
    await expect(next.flush()).rejects.toThrow("is lost");
  }
});

test("an I/O error while a daemon is given what the last one lost is waited for, and nothing is lost", async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const world = new SimulatedDaemon(seededRandom(BigInt(seed)), BLOCK_BYTES);
    await using link = newFront(world).link;
    for (let block = 0; block < BLOCKS_EACH; block++)
      await link.write(block * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, 7));
    world.kill();
    world.failures = 10;
    world.isUp = true;
    await link.flush();
    for (let block = 0; block < BLOCKS_EACH; block++) expect(world.durable.get(block)).toBe(7);
    expect(world.failures).toBe(0);
  }
});

test("whoever holds or ends the volume does not wait for a disk that fails", async () => {
  const world = new SimulatedDaemon(seededRandom(1n), BLOCK_BYTES);
  await using link = newFront(world).link;
  await link.write(0, Buffer.alloc(BLOCK_BYTES, 7));
  world.kill();
  world.failures = Number.POSITIVE_INFINITY;
  world.isUp = true;
  const read = readBlock(link, 0);
  await turns(world.random, 40);
  await link.hold(LONG_MS);
  world.failures = 0;
  link.letGo();
  expect(await read).toBe(7);
});

test("zeros are written as zeros, in pieces, and are discarded only where that leaves zeros", async () => {
  const world = new SimulatedDaemon(seededRandom(1n), BLOCK_BYTES);
  const asked: [command: number, length: number][] = [];
  const connect = async () => {
    const daemon = await world.connect();
    const ask = (command: number, offset: number, length: number, bytes?: Buffer) => {
      asked.push([command, length]);
      return daemon.ask(command, offset, length, bytes);
    };
    return { ...daemon, isOpen: true, ask };
  };
  const fence = (incarnation: Incarnation): void => world.fence(incarnation);
  for (const discards of [false, true]) {
    await using link = new VolumeLink({ connect, isReadOnly: false, discards, mark: undefined, fence });
    await link.ready();
    asked.length = 0;
    await link.zero(0, 70 * MIB);
    const pieces = [32 * MIB, 32 * MIB, 6 * MIB];
    const commands = discards ? [COMMAND_WRITE_ZEROES, COMMAND_TRIM] : [COMMAND_WRITE_ZEROES];
    expect(asked).toEqual(pieces.flatMap((length) => commands.map((command) => [command, length])));
  }
});

test("a hold of a volume whose daemon does not answer is let go in time, and what was asked goes on", async () => {
  const world = new SimulatedDaemon(seededRandom(1n), BLOCK_BYTES);
  const { promise, resolve } = Promise.withResolvers<void>();
  const connect = async () => {
    const daemon = await world.connect();
    return {
      ...daemon,
      isOpen: true,
      ask: (...words: Parameters<typeof daemon.ask>) => promise.then(() => daemon.ask(...words)),
    };
  };
  const fence = (): void => {
    throw new Error("nothing was lost");
  };
  await using link = new VolumeLink({ connect, isReadOnly: true, discards: false, mark: undefined, fence });
  const read = readBlock(link, 0);
  await link.ready();
  await expect(link.hold(20)).rejects.toMatchObject({ code: "daemon-refused" });
  resolve();
  expect(await read).toBe(0);
  await link.hold(LONG_MS);
});
