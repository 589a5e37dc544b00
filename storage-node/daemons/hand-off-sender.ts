import type { Ballot } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import { sleep, type Worker } from "../../common/worker.ts";
import type { CopyBody, HandOffClient } from "../client.ts";
import { isRowSettled } from "../core/hand-off.ts";
import { firstConfiguration, membersOf } from "../core/partition-epoch.ts";
import type { DeviceReplica } from "../device-replica.ts";
import type { ScannedEntry } from "../engine/device-engine.ts";
import { decodeKeptRow } from "../hand-offs.ts";
import type { Pace } from "../repair/partition-repair.ts";
import { type KeptPlace, keptPlaceOf } from "../store/kept-keys.ts";
import { decodeRegister } from "../store/register-format.ts";
import {
  type Configuration,
  HeaderReader,
  INLINE_BODY_LIMIT_BYTES,
  type PartitionPlace,
  type Register,
  TRANSFER_BLOCK_BYTES,
  unpackConfiguration,
} from "../wire.ts";
import type { SpaceRings } from "./own-partitions.ts";

/** Nobody waits for it: a busy member is given time. */
const TIMEOUT_MS = 30_000;
/** Between rounds: as long as something goes home the shortest, else twice as long as before, up to the longest. */
const PAUSE_MS = 1000;
const PAUSE_LIMIT_MS = 16_000;
const PAGE_ENTRIES = 256;
/** Entries that are sent at once. */
const CONCURRENCY = 8;
/** Entries of which is remembered which members have them; of what does not fit all members are asked again. */
const REMEMBERED_LIMIT = 50_000;
/** Partitions of which members told who keeps them now; the rest is asked again. */
const TOLD_LIMIT = 10_000;
/** What an offer costs beside its body, for the pace of repair. */
const OFFER_BYTES = 500;

/** A member as a hand-off sees it. */
export type HandOffTarget = Pick<HandOffClient, "take" | "row" | "stage">;

export type HandOffSenderParts = {
  readonly device: string;
  readonly replica: DeviceReplica;
  /** Who keeps partitions that were never moved. */
  readonly rings: SpaceRings;
  /** Takes `node/device`. */
  readonly targetOf: (id: string) => HandOffTarget;
  readonly pace: Pace;
};

/** What an operator wants to know of it. */
export type HandOffFigures = {
  /** Kept for others now. */
  handOffsLeft: number;
  /** Since the start. */
  handOffsSent: number;
  handOffFailures: number;
};

/**
 * Sends on what a device keeps as a hand-off ([H6], `proxy/core/hand-off-keep.ts`):
 *
 *     kept ──offered to each member of the partition──▶ every one of them has it, or later, durably ──▶ dropped
 *       ▲        └─one is of a later epoch: its members are asked in the next round
 *       └────────── one is away, refuses, or has not caught up: those that have it are remembered
 */
export class HandOffSender implements Worker {
  readonly name: string;
  readonly #parts: HandOffSenderParts;
  /** By key: who has the version of that ballot, in which epoch. Only of what somebody has. */
  readonly #settled = new Map<
    string,
    { readonly ballot: Ballot; readonly epoch: number; readonly ids: ReadonlySet<string> }
  >();
  /** What members told of partitions, where that is later than what this device knows. */
  readonly #told = new Map<string, Configuration>();
  /** Members that did not answer in this round. */
  readonly #absent = new Set<string>();
  #pauseMs = PAUSE_MS;
  /** Whether any member got something in this round. */
  #isProgress = false;
  #sent = 0;
  #failures = 0;
  #lastError: string | undefined;

  constructor(parts: HandOffSenderParts) {
    this.#parts = parts;
    this.name = `hand-off sender ${parts.device}`;
  }

  get figures(): HandOffFigures {
    return {
      handOffsLeft: this.#parts.replica.handOffs.left,
      handOffsSent: this.#sent,
      handOffFailures: this.#failures,
    };
  }

  status(): Record<string, unknown> {
    return { ...this.figures, pauseMs: this.#pauseMs, lastError: this.#lastError };
  }

  async work(signal: AbortSignal): Promise<"busy" | "idle"> {
    const { engine, handOffs } = this.#parts.replica;
    if (handOffs.left > 0 && engine.state().kind !== "failed") await this.round(signal);
    return "idle";
  }

  waitForWork(signal: AbortSignal): Promise<void> {
    return sleep(this.#pauseMs, signal);
  }

  /** Offers everything that is kept once. */
  async round(signal: AbortSignal): Promise<void> {
    const { handOffs } = this.#parts.replica;
    this.#absent.clear();
    this.#isProgress = false;
    for (let from: Uint8Array | undefined; ; ) {
      const entries = await handOffs.page(from, PAGE_ENTRIES);
      for (let at = 0; at < entries.length; at += CONCURRENCY) {
        await this.#parts.pace.admit(signal);
        signal.throwIfAborted();
        await Promise.all(entries.slice(at, at + CONCURRENCY).map((entry) => this.#sendOn(entry)));
      }
      const last = entries.at(-1)?.key;
      if (last === undefined || entries.length < PAGE_ENTRIES) break;
      from = Buffer.concat([last, Buffer.of(0)]);
    }
    this.#pauseMs = this.#isProgress ? PAUSE_MS : Math.min(2 * this.#pauseMs, PAUSE_LIMIT_MS);
  }

  async #sendOn(entry: ScannedEntry): Promise<void> {
    const { handOffs } = this.#parts.replica;
    try {
      const kept = keptPlaceOf(entry.key);
      const configuration = this.#configurationOf(kept);
      const { epoch } = configuration;
      const ballot = ballotIn(kept, entry.value);
      const had = this.#settledWith(entry, ballot, epoch);
      const members = membersOf(configuration);
      const ids = new Set(had);
      const open = members.filter(({ id }) => !ids.has(id) && !this.#absent.has(id));
      const offers = open.map(async ({ id }) => {
        if (await this.#offer(entry, kept, id, epoch)) ids.add(id);
      });
      await Promise.all(offers);
      if (ids.size > had.size) this.#isProgress = true;
      if (!members.every(({ id }) => ids.has(id))) return this.#remember(entry, { ballot, epoch, ids });
      await handOffs.drop(entry.key, entry.value);
      this.#settled.delete(idOf(entry));
      this.#sent += 1;
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Whether the member has it, or something later, durably. */
  async #offer(entry: ScannedEntry, kept: KeptPlace, id: string, epoch: number): Promise<boolean> {
    const target = this.#parts.targetOf(id);
    this.#parts.pace.account(1, OFFER_BYTES);
    try {
      if (kept.kind === "row") {
        const row = decodeKeptRow(kept.rowName, entry.value);
        return isRowSettled(await target.row(kept.name, kept.incarnation, row, TIMEOUT_MS, epoch));
      }
      const register = decodeRegister(entry.value);
      const hasBody = register.bodyLength > 0 && !register.isTombstone;
      const first = await target.take(kept.name, register, hasBody ? undefined : "none", TIMEOUT_MS, epoch);
      if (first !== "wanted") return first === "settled";
      const body = await this.#bodyFor(entry.key, register, target);
      return (await target.take(kept.name, register, body, TIMEOUT_MS, epoch)) === "settled";
    } catch (error) {
      if (!(error instanceof RingsteadError)) throw error;
      if (error.code === "epoch-behind") this.#learn(kept, error);
      else if (error.code.startsWith("rpc-") || error.code === "no-such-device") this.#absent.add(id);
      this.#fail(error);
      return false;
    }
  }

  async #bodyFor(key: Uint8Array, { bodyLength }: Register, target: HandOffTarget): Promise<CopyBody> {
    const { engine, handOffs } = this.#parts.replica;
    const read = (offset: number, length: number): Promise<Uint8Array> => {
      const body = handOffs.bodyAt(key);
      if (body === undefined) throw new RingsteadError("body-gone", "the copy was replaced by a later one");
      return engine.readBody(body, offset, length);
    };
    this.#parts.pace.account(0, bodyLength);
    if (bodyLength <= INLINE_BODY_LIMIT_BYTES) return { bytes: await read(0, bodyLength) };
    async function* blocks(): AsyncGenerator<Uint8Array> {
      for (let offset = 0; offset < bodyLength; offset += TRANSFER_BLOCK_BYTES)
        yield await read(offset, Math.min(TRANSFER_BLOCK_BYTES, bodyLength - offset));
    }
    return { stagedId: await target.stage(blocks(), TIMEOUT_MS) };
  }

  /** Who is known to have exactly this, of the members of that epoch. */
  #settledWith(entry: ScannedEntry, ballot: Ballot, epoch: number): ReadonlySet<string> {
    const known = this.#settled.get(idOf(entry));
    return known !== undefined && known.epoch === epoch && known.ballot === ballot ? known.ids : NOBODY;
  }

  /** What is beyond the limit is not: rounds go through the same entries in the same order, and to forget the oldest would be to forget each before it is met again. */
  #remember(entry: ScannedEntry, known: { ballot: Ballot; epoch: number; ids: ReadonlySet<string> }): void {
    const key = idOf(entry);
    if (known.ids.size === 0) this.#settled.delete(key);
    else if (this.#settled.has(key) || this.#settled.size < REMEMBERED_LIMIT) this.#settled.set(key, known);
  }

  #configurationOf({ name }: KeptPlace): Configuration {
    const { replica, rings } = this.#parts;
    const place = this.#placeOf(name);
    const own =
      replica.epochs.of(name.space, name.hash32)?.configuration ??
      firstConfiguration(rings[name.space].primaries(place.partition).map(({ device, node }) => `${node}/${device}`));
    const told = this.#told.get(textOf(place));
    return told !== undefined && told.epoch > own.epoch ? told : own;
  }

  #learn({ name }: KeptPlace, { fields }: RingsteadError): void {
    const packed = fields["configuration"];
    if (!Array.isArray(packed)) return;
    const configuration = unpackConfiguration(new HeaderReader(packed));
    const place = textOf(this.#placeOf(name));
    const known = this.#told.get(place);
    if (known !== undefined && known.epoch >= configuration.epoch) return;
    if (this.#told.size >= TOLD_LIMIT) this.#told.clear();
    this.#told.set(place, configuration);
  }

  #placeOf({ hash32, space }: KeptPlace["name"]): PartitionPlace {
    const { partitionPower } = this.#parts.rings[space];
    return { space, partitionPower, partition: hash32 >>> (32 - partitionPower) };
  }

  #fail(error: unknown): void {
    if (!(error instanceof RingsteadError)) throw error;
    this.#failures += 1;
    this.#lastError = `${error.code}: ${error.message}`;
  }
}

const NOBODY: ReadonlySet<string> = new Set();

/** Two versions of one name are never of one ballot: it stands for the whole value, which would fill the memory. */
const ballotIn = (kept: KeptPlace, value: Uint8Array): Ballot =>
  kept.kind === "row" ? decodeKeptRow(kept.rowName, value).version : decodeRegister(value).ballot;

const idOf = ({ key }: ScannedEntry): string => Buffer.from(key).toString("latin1");

const textOf = ({ partition, space }: PartitionPlace): string => `${space} ${partition}`;
