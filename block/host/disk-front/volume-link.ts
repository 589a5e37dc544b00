import { codeOf, RingsteadError } from "../../../common/errors.ts";
import { sleep } from "../../../common/worker.ts";
import { type UnflushedWrite, UnflushedWrites } from "../core/unflushed-writes.ts";
import type { NbdConnection, NbdPiece } from "../nbd-client.ts";
import { COMMAND_FLUSH, COMMAND_READ, COMMAND_TRIM, COMMAND_WRITE, COMMAND_WRITE_ZEROES } from "../nbd-protocol.ts";
import { ERROR } from "./fuse-protocol.ts";
import { type Incarnation, processWord } from "./incarnation.ts";
import type { UnflushedMark } from "./unflushed-mark.ts";

/** A connection to the volume's daemon. Requires: it does not end because an answer takes long. */
export type Daemon = Pick<NbdConnection, "ask" | "isOpen" | "sizeBytes" | typeof Symbol.dispose> & {
  readonly incarnation: Incarnation;
};

export type VolumeLinkOptions = {
  /** Rejects with "daemon-lost" or "daemon-refused" where the daemon is not there, or does not serve the volume. */
  connect(this: void): Promise<Daemon>;
  readonly isReadOnly: boolean;
  /** What is discarded reads as zeros, and its space is free: false where a disk may say of it what it likes. */
  readonly discards: boolean;
  /** Undefined where nothing is written. */
  readonly mark: UnflushedMark | undefined;
  /** Has the process of that export end: it is there, and has closed a connection with writes under way. */
  fence(this: void, incarnation: Incarnation): void;
  /** Called with what an operator should know. */
  say?(this: void, message: string): void;
  /** Beyond so many bytes of writes that are not flushed, the link flushes of itself; at twice as many, writes wait for it. */
  readonly keptLimitBytes?: number;
  readonly idleFlushMs?: number;
  /** In the place of both pauses below, for tests. */
  readonly pauseMs?: number;
};

const KEPT_LIMIT_BYTES = 16 * 1024 * 1024;
/** What nobody flushes is flushed after a while, so that it need not be kept. */
const IDLE_FLUSH_MS = 5000;
const RETRY_MS = 20;
/** A disk, or an object store that a volume is filled from, is not asked again at once. */
const AGAIN_MS = 1000;
/** Zeros go in requests of so many bytes: whoever holds the volume waits for one of them at most, whatever its limits (QoS) are. */
const ZERO_LIMIT_BYTES = 32 * 1024 * 1024;
/** Of a write, what giving it again does not change. */
const FINAL_ERRORS: readonly unknown[] = [ERROR.notPermitted, ERROR.noSpace, ERROR.tooLarge, ERROR.notSupported];

/** QEMU says so of errors too that NBD has no number for, as when a disk's path is away: a write that was accepted before is given again so often. */
const INVALID_ATTEMPTS = 60;

const over = (): RingsteadError => new RingsteadError("daemon-refused", "the volume is not served any more");

/**
 * A volume that outlives its daemon: what one daemon did not answer, the next one is asked again, after it has got all that was answered and not
 * flushed. So whoever is above notices nothing but a pause.
 *
 *     away ──connected──▶ replaying ──all is there, flushed──▶ open ──connection lost──▶ away
 *      ▲ ▲                   │ └──an I/O error: again──┐         └──hold: answered and flushed──▶ held ──let go──┐
 *      │ └──the same export──┘◀────────────────────────┘                                                         │
 *      └─────────────────────────────────────────────────────────────────────────────────────────────────────────┘
 *
 * Only what nobody does any more is asked again: the request might be done late, over what was written since. So no request is given up because it
 * takes long, and after a connection was lost with writes under way the same export of the same process (`incarnation`) is not used, but ended.
 *
 * What cannot be written again (the pool is full) is lost: from then on every flush fails, until the volume is attached anew. An I/O error may pass, as when a
 * volume is filled from an object store that is down: the write is given again, and everybody waits as for a daemon that is away.
 */
export class VolumeLink implements AsyncDisposable {
  readonly #options: VolumeLinkOptions;
  readonly #unflushed = new UnflushedWrites();
  #daemon: Daemon | undefined;
  #sizeBytes = 0;
  #asking = 0;
  #isHeld = false;
  /** Counts holds and ends of them: who waits for one knows by it that it is over. */
  #holds = 0;
  #isOver = false;
  /** What a front before this one was answered is on the disk, or the mark says that it is lost. Until then, each process may be the one that has it. */
  #isPastSafe = false;
  /** The export that may still be doing what was asked of it. */
  #doubtful: string | undefined;
  #connecting: Promise<void> | undefined;
  #cleaning: Promise<void> | undefined;
  #wake: (() => void)[] = [];
  readonly #timer: NodeJS.Timeout;
  #flushes = 0;
  #writes = 0;

  constructor(options: VolumeLinkOptions) {
    this.#options = options;
    let [seenFlushes, seenWrites] = [0, 0];
    this.#timer = setInterval(() => {
      if (seenFlushes === this.#flushes && this.#unflushed.bytes > 0) void this.#clean();
      if (seenWrites === this.#writes) options.mark?.rested();
      [seenFlushes, seenWrites] = [this.#flushes, this.#writes];
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
    return this.#ask(false, (daemon) => daemon.ask(COMMAND_READ, offset, length));
  }

  /** Resolves once the daemon has it; kept until it is flushed. Requires: `bytes` stay what they are. */
  write(offset: number, bytes: Buffer): Promise<void> {
    return this.#write(offset, bytes.length, bytes);
  }

  /** Zeros, whose space is given back where that is possible: the daemon makes holes of them where those read as zeros. */
  async zero(offset: number, length: number): Promise<void> {
    for (let at = 0; at < length; at += ZERO_LIMIT_BYTES) {
      const count = Math.min(ZERO_LIMIT_BYTES, length - at);
      await this.#write(offset + at, count, undefined);
      if (!this.#options.discards) continue;
      // A thin pool takes blocks for zeros, and gives back what is discarded. An overlay discards whole clusters alone, which does not matter then.
      await this.#ask(true, (daemon) => daemon.ask(COMMAND_TRIM, offset + at, count)).catch((error: unknown) => {
        if (this.#isOver) throw error;
      });
    }
  }

  /** Resolves once all that was answered before is on the disk. Rejects where some of what was ever answered is lost. */
  async flush(): Promise<void> {
    const { isReadOnly, mark } = this.#options;
    if (isReadOnly) return;
    await this.#flush();
    if (mark === undefined) return;
    if (mark.state.kind === "lost")
      throw new RingsteadError("daemon-refused", "what was written before the volume's daemon died is lost");
    if (mark.state.kind !== "unsaid") return;
    const daemon = this.#daemon;
    await mark.told(this.#unflushed.isEmpty || daemon === undefined ? undefined : processWord(daemon.incarnation));
    this.#options.say?.("a flush fails: what was written before may be lost, since this process and the daemon died");
    throw new RingsteadError("daemon-refused", "what was written before front and daemon died may be lost");
  }

  /**
   * Closes the connection with nothing under way, and everything flushed where the daemon is there. What comes meanwhile waits until `letGo`. Rejects, let go, where
   * that takes longer than `limitMs`: "daemon-refused".
   */
  async hold(limitMs: number): Promise<void> {
    this.#isHeld = true;
    const own = ++this.#holds;
    const timer = setTimeout(() => {
      if (this.#holds === own) this.letGo();
    }, limitMs);
    const stillHeld = (): void => {
      if (this.#holds !== own) throw new RingsteadError("daemon-refused", "what is under way on the disk does not end");
    };
    try {
      while (this.#asking > 0 || this.#connecting !== undefined) {
        await (this.#connecting === undefined ? this.#changed() : Promise.race([this.#connecting, this.#changed()]));
        stillHeld();
      }
      const daemon = this.#daemon;
      if (daemon === undefined) return;
      await Promise.race([this.#flushAt(daemon).catch(() => undefined), this.#changed()]);
      stillHeld();
      this.#leave(daemon);
    } finally {
      clearTimeout(timer);
    }
  }

  letGo(): void {
    this.#isHeld = false;
    this.#holds += 1;
    this.#notify();
    void this.#open().catch(() => undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    const daemon = this.#daemon;
    if (daemon?.isOpen === true && !this.#options.isReadOnly) await this.#flushAt(daemon).catch(() => undefined);
    this.#options.mark?.rested();
    this.#isOver = true;
    this.#notify();
    if (daemon !== undefined) this.#leave(daemon);
  }

  async #write(offset: number, length: number, bytes: Buffer | undefined): Promise<void> {
    await this.#haveRoom();
    const write = this.#unflushed.begin(offset, length, bytes);
    try {
      const daemon = await this.#ask(true, async (asked) => {
        await give(asked, write);
        return asked;
      });
      this.#writes += 1;
      this.#unflushed.answered(write);
      await this.#options.mark?.answered(processWord(daemon.incarnation));
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
    return this.#ask(false, (daemon) => this.#flushAt(daemon));
  }

  async #flushAt(daemon: Daemon): Promise<void> {
    const mark = this.#unflushed.mark();
    await daemon.ask(COMMAND_FLUSH, 0, 0);
    this.#isPastSafe = true;
    this.#flushes += 1;
    this.#unflushed.flushed(mark);
    if (this.#unflushed.isEmpty) this.#options.mark?.flushed();
  }

  /** Asks the daemon, or the next one where this one is lost before it answers. `isChange`: it must not be done twice with other writes between. */
  async #ask<Result>(isChange: boolean, ask: (daemon: Daemon) => Promise<Result>): Promise<Result> {
    for (;;) {
      const daemon = this.#daemon?.isOpen === true && !this.#isHeld ? this.#daemon : await this.#open();
      this.#asking += 1;
      try {
        return await ask(daemon);
      } catch (error) {
        if (codeOf(error) !== "daemon-lost") throw error;
        this.#lose(daemon, isChange);
      } finally {
        this.#asking -= 1;
        if (this.#isHeld) this.#notify();
      }
    }
  }

  /** The connection, once there is one that has all that was answered. */
  async #open(): Promise<Daemon> {
    for (;;) {
      if (this.#isOver) throw over();
      if (this.#isHeld) {
        await this.#changed();
        continue;
      }
      if (this.#daemon?.isOpen === true) return this.#daemon;
      this.#connecting ??= this.#connect().finally(() => {
        this.#connecting = undefined;
        this.#notify();
      });
      await this.#connecting;
    }
  }

  async #connect(): Promise<void> {
    let daemon: Daemon | undefined;
    try {
      daemon = await this.#options.connect();
      if (daemon.incarnation.text === this.#doubtful) {
        this.#options.fence(daemon.incarnation);
        throw new RingsteadError("daemon-lost", "the export may still do what was asked of it");
      }
      this.#doubtful = undefined;
      if (!this.#isPastSafe) await this.#begin(daemon);
      await this.#giveAgain(daemon);
      if (this.#isOver) return this.#leave(daemon);
      this.#sizeBytes = daemon.sizeBytes;
      this.#daemon = daemon;
    } catch {
      daemon?.[Symbol.dispose]();
      await sleep(this.#options.pauseMs ?? RETRY_MS);
    }
  }

  async #begin(daemon: Daemon): Promise<void> {
    const { mark } = this.#options;
    await mark?.begun(processWord(daemon.incarnation));
    this.#isPastSafe = mark?.state.kind !== "dirty";
  }

  /** One after the other: the daemon would do in any order what it has together. What a front before this one was answered is flushed with it. */
  async #giveAgain(daemon: Daemon): Promise<void> {
    if (this.#options.isReadOnly) return;
    for (const write of this.#unflushed.kept) await this.#giveOne(daemon, write);
    try {
      await this.#flushAt(daemon);
    } catch (error) {
      // One that refuses to flush is asked again by whoever flushes next.
      if (codeOf(error) === "daemon-lost") throw error;
    }
    if (!this.#unflushed.isEmpty) await this.#options.mark?.answered(processWord(daemon.incarnation));
  }

  async #giveOne(daemon: Daemon, write: UnflushedWrite): Promise<void> {
    const { mark, say, pauseMs = AGAIN_MS } = this.#options;
    const which = `${write.length} bytes at ${write.offset}`;
    for (let attempt = 0; ; attempt++) {
      try {
        return await give(daemon, write);
      } catch (error) {
        if (codeOf(error) === "daemon-lost") {
          this.#lose(daemon, true);
          throw error;
        }
        const number = error instanceof RingsteadError ? error.fields["errorNumber"] : undefined;
        if (FINAL_ERRORS.includes(number) || (number === ERROR.invalid && attempt + 1 >= INVALID_ATTEMPTS)) {
          this.#unflushed.forget(write);
          say?.(`${which} cannot be written again: error ${String(number)}`);
          return mark?.givenUp();
        }
        if (attempt === 0) say?.(`${which} are not written again yet, all wait for that: error ${String(number)}`);
        // Nothing is under way, and whoever holds the volume, or ends it, need not wait for the disk.
        if (this.#isHeld || this.#isOver) throw error;
        await sleep(pauseMs);
      }
    }
  }

  #lose(daemon: Daemon, isChange: boolean): void {
    if (isChange) this.#doubtful = daemon.incarnation.text;
    this.#leave(daemon);
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
