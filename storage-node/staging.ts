import { RingsteadError } from "../common/errors.ts";
import type { DeviceEngine, StagedBody } from "./engine/device-engine.ts";

/** A staged body that nobody wrote to for so long belongs to a proxy that died. */
const IDLE_LIMIT_MS = 120_000;
/** Bodies that may be staged at once on one device. */
const STAGED_LIMIT = 512;

/** `written`: when all blocks so far are written. They arrive while earlier ones still are, and a body takes one at a time. */
type Session = { readonly body: StagedBody; touchedMs: number; isSealed: boolean; written: Promise<void> };

/** Large bodies that proxies are writing to one device, by a number that only this process knows. */
export class Staging implements AsyncDisposable {
  readonly #engine: DeviceEngine;
  readonly #sessions = new Map<number, Session>();
  #nextId = 1;
  #opening = 0;

  constructor(engine: DeviceEngine) {
    this.#engine = engine;
  }

  /** Bodies that are being received, or wait for the ACCEPT that names them. */
  get count(): number {
    return this.#sessions.size + this.#opening;
  }

  async open(): Promise<number> {
    if (this.#sessions.size >= STAGED_LIMIT) throw new RingsteadError("staging-full", "too many large uploads at once");
    this.#opening += 1;
    const body = await this.#engine.stage().finally(() => {
      this.#opening -= 1;
    });
    const id = this.#nextId++;
    this.#sessions.set(id, { body, touchedMs: performance.now(), isSealed: false, written: Promise.resolve() });
    return id;
  }

  /** Blocks are written in the order of the calls; after one that failed none is. */
  write(id: number, bytes: Uint8Array): Promise<void> {
    const session = this.#session(id);
    session.written = session.written.then(() => session.body.write(bytes));
    return session.written;
  }

  /** Resolves after file and folder are synced; the file may then be named in an ACCEPT. */
  async seal(id: number): Promise<{ file: string; length: number }> {
    const session = this.#session(id);
    await session.written;
    const length = await session.body.seal();
    session.isSealed = true;
    return { file: session.body.file, length };
  }

  /** Called when the ACCEPT that names the file was applied: the file is the engine's from now on. */
  committed(id: number): void {
    this.#sessions.delete(id);
  }

  async abandon(id: number): Promise<void> {
    const session = this.#sessions.get(id);
    this.#sessions.delete(id);
    await session?.written.catch(() => {});
    await session?.body.abandon();
  }

  /** The sealed file of a session, for the ACCEPT that commits it. */
  sealed(id: number): string {
    const session = this.#session(id);
    if (!session.isSealed) throw new RingsteadError("staging-unsealed", "the staged body is not sealed");
    return session.body.file;
  }

  /** Abandons what nobody touches any more. */
  async expire(): Promise<void> {
    const limit = performance.now() - IDLE_LIMIT_MS;
    for (const [id, session] of this.#sessions) if (session.touchedMs < limit) await this.abandon(id);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const id of this.#sessions.keys()) await this.abandon(id);
  }

  #session(id: number): Session {
    const session = this.#sessions.get(id);
    if (session === undefined) throw new RingsteadError("staging-unknown", "no such staged body");
    session.touchedMs = performance.now();
    return session;
  }
}
