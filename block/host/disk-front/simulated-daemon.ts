import { RingsteadError } from "../../../common/errors.ts";
import type { Random } from "../../../common/random.ts";
import type { NbdPiece } from "../nbd-client.ts";
import { COMMAND_FLUSH, COMMAND_READ, COMMAND_TRIM, COMMAND_WRITE } from "../nbd-protocol.ts";
import { ERROR } from "./fuse-protocol.ts";
import type { Incarnation } from "./incarnation.ts";
import type { Daemon } from "./volume-link.ts";

type Write = { readonly block: number; readonly value: number; isDone: boolean };

/** One that closes answers nothing any more: at once, and all together. */
class Connection {
  isOpen = true;
  readonly #closing = Promise.withResolvers<never>();

  constructor() {
    this.#closing.promise.catch(() => undefined);
  }

  /** What was done, unless it closed before. */
  answer<Result>(done: Promise<Result>): Promise<Result> {
    return Promise.race([done, this.#closing.promise]);
  }

  close(): void {
    this.isOpen = false;
    this.#closing.reject(lost());
  }
}

const lost = (): RingsteadError => new RingsteadError("daemon-lost", "it is gone");

/** Lets whatever is ready run, in an order that the seed decides. */
export const turns = async (random: Random, most = 4): Promise<void> => {
  for (let count = random.below(most); count >= 0; count--) await new Promise<void>((resolve) => setImmediate(resolve));
};

/**
 * A volume of a few blocks with its daemon, for tests: it has in memory what was not flushed, and loses any part of it when it is killed, with requests under
 * way done or not. Where a connection closes and the daemon goes on, as QEMU's does, it still does what it was asked over that: late.
 */
export class SimulatedDaemon {
  readonly random: Random;
  readonly blockBytes: number;
  readonly durable = new Map<number, number>();
  /** What it has in memory, in the order in which it took it in. */
  #cache: Write[] = [];
  readonly #connections = new Set<Connection>();
  /** Of the export that is there now. */
  readonly #underWay = new Set<Promise<unknown>>();
  #process = 2;
  #export = 1;
  isUp = true;
  #isRenewing = false;
  /** Refuses what writes from now on. */
  isFull = false;
  /** So many writes fail with an I/O error. */
  failures = 0;
  failureNumber: number = ERROR.io;
  /** Is killed by the next flush, and the next one follows. */
  isDyingAtFlush = false;

  constructor(random: Random, blockBytes: number) {
    this.random = random;
    this.blockBytes = blockBytes;
  }

  get #incarnation(): Incarnation {
    const process = { pid: this.#process, startTime: 1 };
    return { text: `${process.pid}-1/${this.#export}`, process };
  }

  async connect(): Promise<Daemon> {
    await turns(this.random);
    if (!this.isUp || this.#isRenewing) throw lost();
    const state = new Connection();
    this.#connections.add(state);
    return {
      incarnation: this.#incarnation,
      sizeBytes: 1024 * this.blockBytes,
      get isOpen() {
        return state.isOpen;
      },
      ask: (command, offset, _length, bytes) => {
        // Of what is asked on a closed connection nothing gets there, late or not.
        if (!state.isOpen) return Promise.reject(lost());
        const done = this.#ask(state, command, offset / this.blockBytes, bytes);
        const ended = done.then(
          () => undefined,
          () => undefined,
        );
        this.#underWay.add(ended);
        void ended.then(() => this.#underWay.delete(ended));
        return state.answer(done);
      },
      [Symbol.dispose]: () => state.close(),
    };
  }

  /** Connections close, and the daemon goes on. */
  cut(): void {
    for (const state of this.#connections) state.close();
    this.#connections.clear();
  }

  /** As the host does it: connections close, all that was asked for is done, and there is another export. */
  async renew(): Promise<void> {
    this.cut();
    this.#isRenewing = true;
    await Promise.all(this.#underWay);
    this.#export += 1;
    this.#isRenewing = false;
  }

  kill(): void {
    this.cut();
    this.isUp = false;
    this.#process += 1;
    this.#export += 1;
    this.#underWay.clear();
    for (const { block, value } of this.#cache) if (this.random.below(2) === 0) this.durable.set(block, value);
    this.#cache = [];
  }

  /** Ends it, where it is that one; the next one follows. */
  fence({ text }: Incarnation): void {
    if (text !== this.#incarnation.text || !this.isUp) return;
    this.kill();
    setImmediate(() => (this.isUp = true));
  }

  read(block: number): number {
    return this.#cache.findLast((write) => write.block === block)?.value ?? this.durable.get(block) ?? 0;
  }

  async #ask(
    state: Connection,
    command: number,
    block: number,
    bytes: Buffer | undefined,
  ): Promise<readonly NbdPiece[]> {
    const own = this.#process;
    const covered = command === COMMAND_FLUSH ? this.#cache.filter(({ isDone }) => isDone) : [];
    await turns(this.random);
    if (!state.isOpen) await turns(this.random, 200);
    if (this.#process !== own) throw lost();
    let write: Write | undefined;
    let pieces: readonly NbdPiece[] = [];
    if (command === COMMAND_FLUSH && this.isDyingAtFlush) {
      this.isDyingAtFlush = false;
      this.kill();
      this.isUp = true;
      throw lost();
    }
    if (command === COMMAND_FLUSH) {
      // What another flush has written meanwhile may be older than what is there by now.
      for (const one of this.#cache) if (covered.includes(one)) this.durable.set(one.block, one.value);
      this.#cache = this.#cache.filter((one) => !covered.includes(one));
    } else if (command === COMMAND_READ) {
      const data = Buffer.alloc(this.blockBytes, this.read(block));
      pieces = [{ kind: "data", offset: block * this.blockBytes, bytes: data }];
    } else if (command !== COMMAND_TRIM) {
      this.#refuse();
      write = { block, value: command === COMMAND_WRITE ? (bytes?.[0] ?? 0) : 0, isDone: false };
      this.#cache.push(write);
    }
    await turns(this.random);
    if (write !== undefined) write.isDone = true;
    return pieces;
  }

  #refuse(): void {
    if (this.isFull) throw new RingsteadError("daemon-refused", "it is full", { errorNumber: ERROR.noSpace });
    if (this.failures === 0) return;
    this.failures -= 1;
    throw new RingsteadError("daemon-refused", "its disk fails", { errorNumber: this.failureNumber });
  }
}
