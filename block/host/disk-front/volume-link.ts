import { codeOf, RingsteadError } from "../../../common/errors.ts";
import { sleep } from "../../../common/worker.ts";
import { type UnflushedWrite, UnflushedWrites } from "../core/unflushed-writes.ts";
import type { NbdConnection, NbdPiece } from "../nbd-client.ts";
import { COMMAND_FLUSH, COMMAND_READ, COMMAND_TRIM, COMMAND_WRITE, COMMAND_WRITE_ZEROES } from "../nbd-protocol.ts";

/** A connection to the volume's daemon. */
export type Daemon = Pick<NbdConnection, "ask" | "isOpen" | "sizeBytes" | typeof Symbol.dispose>;

export type VolumeLinkOptions = {
  /** Rejects with "daemon-lost" or "daemon-refused" where the daemon is not there, or does not serve the volume. */
  connect(this: void): Promise<Daemon>;
  readonly isReadOnly: boolean;
  /** Called with what had to be given up. */
  onLost?(this: void, message: string): void;
  /** Beyond so many bytes of writes that are not flushed, the link flushes of itself; at twice as many, writes wait for it. */
  readonly keptLimitBytes?: number;
  readonly idleFlushMs?: number;
};

const KEPT_LIMIT_BYTES = 16 * 1024 * 1024;
/** What nobody flushes is flushed after a while, so that it need not be kept. */
const IDLE_FLUSH_MS = 5000;
const RETRY_MS = 20;
/** One request to the daemon has fewer bytes than it takes. */
const ZERO_LIMIT_BYTES = 1024 * 1024 * 1024;

/**
 * A volume that outlives its daemon: what one daemon did not answer, the next one is asked again, after it has got all that was answered and not
 * flushed. So whoever is above notices nothing but a pause.
 *
 *     away ──connected──▶ replaying ──all is there, flushed──▶ open ──connection lost──▶ away
 *       ▲                                                        └──hold: answered and flushed──▶ held ──let go──┐
 *       └────────────────────────────────────────────────────────────────────────────────────────────────────────┘
 *
 * What cannot be written again (the pool is full, the disk fails) is lost: from then on every flush fails, until the volume is attached anew.
 */
export class VolumeLink implements AsyncDisposable {
  readonly #options: VolumeLinkOptions;
  readonly #unflushed = new UnflushedWrites();
  #daemon: Daemon | undefined;
  #sizeBytes = 0;
  #asking = 0;
  #isHeld = false;
  #isOver = false;
  #hasLost = false;
  #connecting: Promise<void> | undefined;
  #cleaning: Promise<void> | undefined;
  #wake: (() => void)[] = [];
  readonly #timer: NodeJS.Timeout;
  #flushes = 0;

  constructor(options: VolumeLinkOptions) {
    this.#options = options;
    let seen = 0;
    this.#timer = setInterval(() => {
      if (seen === this.#flushes && this.#unflushed.bytes > 0) void this.#clean();
      seen = this.#flushes;
    }, options.idleFlushMs ?? IDLE_FLUSH_MS).unref();
  }

  /** As long as the volume was when it was last connected to. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get isOpen(): boolean {
    return this.#daemon?.isOpen === true;
  }

  /** Resolves once the volume is connected to. */
  async ready(): Promise<void> {
    await this.#open();
  }

  /** Pieces of data and holes. Errors of every call: "daemon-refused" with the `errorNumber` of the daemon. */
  read(offset: number, length: number): Promise<readonly NbdPiece[]> {
    return this.#ask((daemon) => daemon.ask(COMMAND_READ, offset, length));
  }

  /** Resolves once the daemon has it; kept until it is flushed. Requires: `bytes` stay what they are. */
  write(offset: number, bytes: Buffer): Promise<void> {
    return this.#write(offset, bytes.length, bytes);
  }

  /** Zeros, whose space is given back where that is possible. */
  async zero(offset: number, length: number): Promise<void> {
    for (let at = 0; at < length; at += ZERO_LIMIT_BYTES) {
      const count = Math.min(ZERO_LIMIT_BYTES, length - at);
      await this.#write(offset + at, count, undefined);
      // A thin pool takes blocks for zeros, and gives back what is discarded. An overlay discards whole clusters alone, which does not matter then.
      await this.#ask((daemon) => daemon.ask(COMMAND_TRIM, offset + at, count)).catch((error: unknown) => {
        if (this.#isOver) throw error;
      });
    }
  }

  /** Resolves once all that was answered before is on the disk. Rejects where some of what was ever answered is lost. */
  async flush(): Promise<void> {
    if (this.#options.isReadOnly) return;
    await this.#flush();
    if (this.#hasLost)
      throw new RingsteadError("daemon-refused", "what was written before the volume's daemon died is lost");
  }

  /** Closes the connection with nothing under way, and everything flushed where the daemon is there. What comes meanwhile waits until `letGo`. */
  async hold(): Promise<void> {
    this.#isHeld = true;
    while (this.#asking > 0) await this.#changed();
    const daemon = this.#daemon;
    if (daemon === undefined) return;
    await this.#flushAt(daemon).catch(() => undefined);
    this.#leave(daemon);
  }

  letGo(): void {
    this.#isHeld = false;
    this.#notify();
    void this.#open().catch(() => undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    const daemon = this.#daemon;
    if (daemon?.isOpen === true && !this.#options.isReadOnly) await this.#flushAt(daemon).catch(() => undefined);
    this.#isOver = true;
    this.#notify();
    if (daemon !== undefined) this.#leave(daemon);
  }

  async #write(offset: number, length: number, bytes: Buffer | undefined): Promise<void> {
    await this.#haveRoom();
    const write = this.#unflushed.begin(offset, length, bytes);
    try {
      await this.#ask((daemon) => give(daemon, write));
      this.#unflushed.answered(write);
    } catch (error) {
      this.#unflushed.forget(write);
      throw error;
    }
  }

  async #haveRoom(): Promise<void> {
    const limit = this.#options.keptLimitBytes ?? KEPT_LIMIT_BYTES;
    if (this.#unflushed.bytes < limit) return;
    const cleaned = this.#clean();
    for (let attempt = 0; this.#unflushed.bytes >= 2 * limit; attempt++) {
      await (attempt === 0 ? cleaned : this.#clean());
      if (attempt > 0 && this.#unflushed.bytes >= 2 * limit)
        throw new RingsteadError("daemon-refused", "what is written cannot be flushed");
    }
  }

  /** Flushes of itself; whether that failed, the next flush that somebody asks for says. */
  #clean(): Promise<void> {
    this.#cleaning ??= this.#flush()
      .catch(() => undefined)
      .finally(() => (this.#cleaning = undefined));
    return this.#cleaning;
  }

  #flush(): Promise<void> {
    return this.#ask((daemon) => this.#flushAt(daemon));
  }

  async #flushAt(daemon: Daemon): Promise<void> {
    const mark = this.#unflushed.mark();
    await daemon.ask(COMMAND_FLUSH, 0, 0);
    this.#flushes += 1;
    this.#unflushed.flushed(mark);
  }

  /** Asks the daemon, or the next one where this one is lost before it answers. */
  async #ask<Result>(ask: (daemon: Daemon) => Promise<Result>): Promise<Result> {
    for (;;) {
      const daemon = this.#daemon?.isOpen === true && !this.#isHeld ? this.#daemon : await this.#open();
      this.#asking += 1;
      try {
        return await ask(daemon);
      } catch (error) {
        if (codeOf(error) !== "daemon-lost") throw error;
        this.#leave(daemon);
      } finally {
        this.#asking -= 1;
        if (this.#isHeld) this.#notify();
      }
    }
  }

  /** The connection, once there is one that has all that was answered. */
  async #open(): Promise<Daemon> {
    for (;;) {
      if (this.#isOver) throw new RingsteadError("daemon-refused", "the volume is not served any more");
      if (this.#isHeld) {
        await this.#changed();
        continue;
      }
      if (this.#daemon?.isOpen === true) return this.#daemon;
      this.#connecting ??= this.#connect().finally(() => (this.#connecting = undefined));
      await this.#connecting;
    }
  }

  async #connect(): Promise<void> {
    let daemon: Daemon | undefined;
    try {
      daemon = await this.#options.connect();
      await this.#giveAgain(daemon);
      if (this.#isOver) return this.#leave(daemon);
      this.#sizeBytes = daemon.sizeBytes;
      this.#daemon = daemon;
    } catch {
      daemon?.[Symbol.dispose]();
      await sleep(RETRY_MS);
    }
  }

  /** One after the other: the daemon would do in any order what it has together. What a front before this one was answered is flushed with it. */
  async #giveAgain(daemon: Daemon): Promise<void> {
    if (this.#options.isReadOnly) return;
    for (const write of this.#unflushed.kept) {
      try {
        await give(daemon, write);
      } catch (error) {
        if (codeOf(error) === "daemon-lost") throw error;
        this.#unflushed.forget(write);
        this.#hasLost = true;
        this.#options.onLost?.(`${write.length} bytes at ${write.offset} cannot be written again`);
      }
    }
    try {
      await this.#flushAt(daemon);
    } catch (error) {
      // One that refuses to flush is asked again by whoever flushes next.
      if (codeOf(error) === "daemon-lost") throw error;
    }
  }

  #leave(daemon: Daemon): void {
    daemon[Symbol.dispose]();
    if (this.#daemon === daemon) this.#daemon = undefined;
  }

  #changed(): Promise<void> {
    return new Promise((resolve) => this.#wake.push(resolve));
  }

  #notify(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }
}

const give = async (daemon: Daemon, { offset, length, bytes }: UnflushedWrite): Promise<void> => {
  await daemon.ask(bytes === undefined ? COMMAND_WRITE_ZEROES : COMMAND_WRITE, offset, length, bytes);
};
