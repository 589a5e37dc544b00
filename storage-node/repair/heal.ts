import type { Clock } from "../../common/clock.ts";
import { codeOf, messageOf, RingsteadError } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import { sleep, type Worker } from "../../common/worker.ts";
import type { RingDevice } from "../../ring/device.ts";
import type { Ring } from "../../ring/ring.ts";
import { membersOf } from "../core/partition-epoch.ts";
import type { DeviceReplica } from "../device-replica.ts";
import type { BodyReference, Mended, NewBody } from "../engine/device-engine.ts";
import { isRegisterKey, spaceOfReplicated } from "../store/key-space.ts";
import { nameOfRegisterKey, rowPlaceOf } from "../store/keys.ts";
import { decodeRegister } from "../store/register-format.ts";
import { FORGOTTEN_PROMISE_MS, NO_LIFE } from "../votes.ts";
import { type Name, type Register, type Space, TRANSFER_BLOCK_BYTES } from "../wire.ts";
import type { CarriedEntry } from "./carried-entries.ts";
import type { HealEvent, HealJournal } from "./heal-journal.ts";
import type { RepairSource } from "./repair-peer.ts";

/** What waits to be healed; beyond it a finding is left to the next round of the scrubber. */
const QUEUE_LIMIT = 10_000;
/** Entries that are healed at once. */
const CONCURRENCY = 4;
/** After an attempt that failed: doubles from the first to the last. */
const RETRY_FIRST_MS = 5_000;
const RETRY_LAST_MS = 3_600_000;
/** How long a healer that has nothing due sleeps, at most. */
const IDLE_MS = 1_000;
/** A register that others must teach again waits until no message of the time before can be under way. */
const RELEARN_AFTER_MS = FORGOTTEN_PROMISE_MS + 5_000;

/** What a healer asks of another replica. */
export type HealSource = Pick<RepairSource, "digests" | "fetch" | "readBody">;

export type HealerParts = {
  readonly node: string;
  readonly device: string;
  readonly replica: DeviceReplica;
  readonly rings: Readonly<Record<Space, Pick<Ring, "partitionOfHash32" | "partitionPower" | "primaries">>>;
  /** Called once for each device. */
  readonly peerOf: (device: Pick<RingDevice, "node" | "device">) => HealSource;
  /** Asked before bytes are pulled. */
  readonly allow: (bytes: number, signal: AbortSignal) => Promise<void>;
  readonly journal: Pick<HealJournal, "add">;
  readonly clock: Clock;
  readonly log: Log;
};

/** What an operator wants to know. */
export type HealFigures = {
  /** Entries found damaged that wait for their healing. */
  waitingEntries: number;
  damagedEntries: number;
  healedEntries: number;
  healedBytes: number;
  /** Of those that wait: those for which no replica had what is missing when they were last asked. */
  unhealedEntries: number;
  /** Findings that were dropped because too many waited. */
  droppedFindings: number;
};

type Patient = {
  readonly key: Uint8Array;
  readonly label: string;
  readonly cause: string;
  /** Its place in the log is damaged: it is to leave it, also where it can be read. */
  readonly isSuspect: boolean;
  readonly foundAtMs: number;
  isTold: boolean;
  isUnhealed: boolean;
  attempts: number;
  dueMs: number;
};

type Outcome =
  | { readonly kind: "whole" }
  | { readonly kind: "healed"; readonly from: string; readonly bytes: number }
  /** Tried again later. */
  | { readonly kind: "not-healed"; readonly why: string };

/** What an entry is called in logs. */
const labelOf = (key: Uint8Array): string => {
  const name = nameOfRegisterKey(key);
  if (name !== undefined) return name.path;
  const space = spaceOfReplicated(key);
  const row = space === undefined ? undefined : rowPlaceOf(key, space);
  if (row === undefined) return `key ${Buffer.from(key).toString("hex")}`;
  return `${row.owner.path.split("\0")[0] ?? ""} row ${row.name}`;
};

/**
 * Heals what is damaged on a device: what reads and the scrubber found. What is on the device twice is written anew from there; the rest
 * comes from another replica of the same partition, as the same version with the same body. What it says of the register (version,
 * ballot, state) stays as it is, so no vote changes.
 *
 *     found ──▶ mend ──whole, mended──▶ done
 *                ├─ place lost ──▶ the log is searched for it
 *                ├─ body lost ───▶ the same `bodyVersion` of another replica, if the entry still is what it was
 *                └─ value lost ──▶ an entry of the same digest of another replica; else, for registers, what all others say (below)
 *
 * A register whose version nobody else has is a vote forgotten, as by a device that was emptied ([M4]), for one name. It answers nothing
 * while it cannot be read. It is replaced by the highest of all other members, all of which vote, after promises and messages from before
 * are too old to matter; what it may have accepted is refused from then on, and its fate unknown ([A3]).
 *
 * A body is the same if its version and length are: its source checks its own checksums as it reads. Metadata, where an etag would be, is
 * the proxy's and opaque here.
 */
export class Healer implements Worker {
  readonly name: string;
  readonly figures: HealFigures = {
    waitingEntries: 0,
    damagedEntries: 0,
    healedEntries: 0,
    healedBytes: 0,
    unhealedEntries: 0,
    droppedFindings: 0,
  };
  readonly #parts: HealerParts;
  readonly #peers = new Map<string, HealSource>();
  /** By key as latin1 text. */
  readonly #patients = new Map<string, Patient>();
  #wake: () => void = () => {};
  #lastFailure: string | undefined;

  constructor(parts: HealerParts) {
    this.#parts = parts;
    this.name = `healer ${parts.device}`;
    parts.replica.engine.scrub.onDamaged = (key, cause) => this.found(key, cause, false);
  }

  status(): Record<string, unknown> {
    return { ...this.figures, lastFailure: this.#lastFailure };
  }

  /** Something is wrong with an entry. Returns at once; `isSuspect` as for `DeviceScrub.mend`. */
  found(key: Uint8Array, cause: string, isSuspect: boolean): void {
    const id = Buffer.from(key).toString("latin1");
    const known = this.#patients.get(id);
    if (known !== undefined && (known.isSuspect || !isSuspect)) return;
    if (known === undefined && this.#patients.size >= QUEUE_LIMIT) {
      this.figures.droppedFindings += 1;
      return;
    }
    const nowMs = this.#parts.clock.nowMs();
    this.#patients.set(id, {
      key: Buffer.from(key),
      label: labelOf(key),
      cause,
      isSuspect,
      foundAtMs: known?.foundAtMs ?? nowMs,
      isTold: known?.isTold ?? false,
      isUnhealed: known?.isUnhealed ?? false,
      attempts: 0,
      dueMs: nowMs,
    });
    this.figures.waitingEntries = this.#patients.size;
    this.#wake();
  }

  /** Whether nothing waits that could be healed now. */
  get isIdle(): boolean {
    return !this.#patients.values().some(({ attempts }) => attempts === 0);
  }

  async work(signal: AbortSignal): Promise<"busy" | "idle"> {
    const { replica, clock } = this.#parts;
    if (replica.engine.state().kind !== "serving") return "idle";
    const nowMs = clock.nowMs();
    const due = [...this.#patients.values()].filter(({ dueMs }) => dueMs <= nowMs);
    if (due.length === 0) return "idle";
    const lostPlaces: Patient[] = [];
    const queue = due.values();
    const take = async (): Promise<void> => {
      for (const patient of queue) {
        if (signal.aborted) return;
        const mended = await this.#try(() => replica.engine.scrub.mend(patient.key, patient.cause, patient.isSuspect));
        if (mended === undefined) this.#finish(patient, { kind: "not-healed", why: this.#lastFailure ?? "" });
        else if (mended.kind === "place-lost") lostPlaces.push(patient);
        else this.#finish(patient, await this.#heal(patient, mended, signal));
      }
    };
    await Promise.all(Array.from({ length: CONCURRENCY }, take));
    if (lostPlaces.length > 0 && !signal.aborted) await this.#findPlaces(lostPlaces, signal);
    return "busy";
  }

  waitForWork(signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    return Promise.race([promise, sleep(IDLE_MS, signal)]);
  }

  async #findPlaces(patients: readonly Patient[], signal: AbortSignal): Promise<void> {
    const { scrub } = this.#parts.replica.engine;
    for (const patient of patients) this.#tellDamaged(patient);
    const lost = await this.#try(() => scrub.mendFromLog(patients.map(({ key }) => key)));
    const names = new Set(lost?.map((key) => Buffer.from(key).toString("latin1")));
    for (const patient of patients) {
      const isLost = lost === undefined || names.has(Buffer.from(patient.key).toString("latin1"));
      this.#finish(patient, isLost ? await this.#relearn(patient, signal) : await this.#afterPlace(patient, signal));
    }
  }

  /** What was found again may have a damaged body: nobody could see that before. */
  async #afterPlace(patient: Patient, signal: AbortSignal): Promise<Outcome> {
    const mended = await this.#try(() => this.#parts.replica.engine.scrub.mend(patient.key, patient.cause, false));
    if (mended === undefined || mended.kind === "place-lost")
      return { kind: "not-healed", why: this.#lastFailure ?? "" };
    if (mended.kind === "whole") return { kind: "healed", from: "its own log", bytes: 0 };
    return this.#heal(patient, mended, signal);
  }

  async #heal(
    patient: Patient,
    mended: Exclude<Mended, { kind: "place-lost" }>,
    signal: AbortSignal,
  ): Promise<Outcome> {
    switch (mended.kind) {
      case "whole":
        return { kind: "whole" };
      case "mended":
        this.#tellDamaged(patient);
        return { kind: "healed", from: "itself, where it could still be read", bytes: 0 };
      case "body-lost":
        this.#tellDamaged(patient);
        return this.#healBody(patient, mended.body, signal);
      case "value-lost":
        this.#tellDamaged(patient);
        return this.#healValue(patient, mended.digest, mended.body, signal);
    }
  }

  #finish(patient: Patient, outcome: Outcome): void {
    const { device, log, clock } = this.#parts;
    const { figures } = this;
    const id = Buffer.from(patient.key).toString("latin1");
    if (outcome.kind !== "not-healed") {
      // Found anew meanwhile: that one is still to be looked at.
      if (this.#patients.get(id) === patient) this.#patients.delete(id);
      if (patient.isUnhealed) figures.unhealedEntries -= 1;
    }
    figures.waitingEntries = this.#patients.size;
    switch (outcome.kind) {
      case "whole":
        return;
      case "healed":
        figures.healedEntries += 1;
        figures.healedBytes += outcome.bytes;
        log.info("damage was healed", { device, name: patient.label, cause: patient.cause, from: outcome.from });
        this.#note(patient, "healed", `from ${outcome.from}`);
        return;
      case "not-healed": {
        this.#tellDamaged(patient);
        if (!patient.isUnhealed) {
          patient.isUnhealed = true;
          figures.unhealedEntries += 1;
          const fields = { device, name: patient.label, cause: patient.cause, why: outcome.why };
          log.error("damage cannot be healed now: no replica gives what is missing; it is tried again", fields);
          this.#note(patient, "not-healed", outcome.why);
        }
        patient.dueMs = clock.nowMs() + Math.min(RETRY_LAST_MS, RETRY_FIRST_MS * 2 ** patient.attempts);
        patient.attempts += 1;
      }
    }
  }

  /** Once for each finding that turned out to be one. */
  #tellDamaged(patient: Patient): void {
    if (patient.isTold) return;
    patient.isTold = true;
    this.figures.damagedEntries += 1;
    const { device, log } = this.#parts;
    log.warn("damage was found, and is being healed", { device, name: patient.label, cause: patient.cause });
    this.#note(patient, "damaged", patient.cause);
  }

  #note({ label }: Patient, event: HealEvent["event"], detail: string): void {
    const at = new Date(this.#parts.clock.nowMs()).toISOString();
    void this.#parts.journal.add({ at, name: label, event, detail });
  }

  /** The other members of an entry's partition, as they are called and asked. */
  #others(space: Space, hash32: number): { readonly id: string; readonly peer: HealSource }[] {
    const { node, device, rings, peerOf, replica } = this.#parts;
    const ring = rings[space];
    const moved = replica.epochs.of(space, hash32);
    const ids =
      moved === undefined
        ? ring.primaries(ring.partitionOfHash32(hash32)).map((member) => `${member.node}/${member.device}`)
        : membersOf(moved.configuration).map(({ id }) => id);
    return ids.flatMap((id) => {
      if (id === `${node}/${device}`) return [];
      let peer = this.#peers.get(id);
      if (peer === undefined) {
        const slash = id.indexOf("/");
        peer = peerOf({ node: id.slice(0, slash), device: id.slice(slash + 1) });
        this.#peers.set(id, peer);
      }
      return [{ id, peer }];
    });
  }

  /** The body of a register, in the log or in a file as it was; then the register anew, with what it says. */
  async #healBody(patient: Patient, lost: BodyReference, signal: AbortSignal): Promise<Outcome> {
    const { engine } = this.#parts.replica;
    const name = nameOfRegisterKey(patient.key);
    const entry = this.#entryNow(patient.key);
    if (name === undefined || entry === undefined || !isSameBody(entry.body, lost)) return { kind: "whole" };
    const { bodyVersion, bodyLength } = decodeRegister(entry.value);
    const failures: string[] = [];
    for (const { id, peer } of this.#others(name.space, name.hash32)) {
      const brought = await this.#try(() =>
        this.#bring(peer, name, bodyVersion, bodyLength, lost.kind === "file", signal),
      );
      if (brought === undefined) {
        failures.push(`${id}: ${this.#lastFailure ?? ""}`);
        continue;
      }
      // From here to `apply` in one turn: whoever wrote meanwhile has brought a body of their own, or the same register with other words.
      const now = this.#entryNow(patient.key);
      const isStill =
        now !== undefined && isSameBody(now.body, lost) && decodeRegister(now.value).bodyVersion === bodyVersion;
      if (!isStill) {
        await brought.abandon();
        return { kind: "whole" };
      }
      await engine.apply([{ kind: "put", key: patient.key, value: now.value, body: brought.body }]);
      return { kind: "healed", from: id, bytes: bodyLength };
    }
    return { kind: "not-healed", why: failures.join("; ") || "there is no other replica" };
  }

  #entryNow(key: Uint8Array): ReturnType<DeviceReplica["engine"]["get"]> {
    try {
      return this.#parts.replica.engine.get(key);
    } catch (error) {
      if (codeOf(error) === "entry-damaged") return undefined;
      throw error;
    }
  }

  async #bring(
    peer: HealSource,
    name: Name,
    bodyVersion: Register["bodyVersion"],
    bodyLength: number,
    isLarge: boolean,
    signal: AbortSignal,
  ): Promise<Brought> {
    const read = async (offset: number): Promise<Uint8Array> => {
      const length = Math.min(TRANSFER_BLOCK_BYTES, bodyLength - offset);
      await this.#parts.allow(length, signal);
      const bytes = await peer.readBody(name, bodyVersion, offset, length);
      if (bytes.length !== length) throw new RingsteadError("body-damaged", "a body came in another length");
      return bytes;
    };
    if (!isLarge) {
      const bytes = Buffer.alloc(bodyLength);
      for (let offset = 0; offset < bodyLength; offset += TRANSFER_BLOCK_BYTES) bytes.set(await read(offset), offset);
      return { body: { kind: "bytes", bytes }, abandon: async () => {} };
    }
    const staged = await this.#parts.replica.engine.stage();
    try {
      for (let offset = 0; offset < bodyLength; offset += TRANSFER_BLOCK_BYTES) await staged.write(await read(offset));
      const length = await staged.seal();
      return { body: { kind: "staged", file: staged.file, length }, abandon: () => staged.abandon() };
    } catch (error) {
      await staged.abandon();
      throw error;
    }
  }

  /** An entry of the same digest is the same entry, whatever it is of. */
  async #healValue(patient: Patient, digest: bigint, body: BodyReference, signal: AbortSignal): Promise<Outcome> {
    const { key } = patient;
    const space = spaceOfReplicated(key);
    if (space === undefined) return { kind: "not-healed", why: "no other replica has this entry" };
    const { engine } = this.#parts.replica;
    const hash32 = hashIn(key);
    for (const { id, peer } of this.#others(space, hash32)) {
      const [carried] = (await this.#try(() => peer.fetch([key])))?.entries ?? [];
      if (carried === undefined || engine.digests.scheme.digestOf(key, carried.value) !== digest) continue;
      const brought = await this.#bodyFor(carried, body, peer, signal);
      if (brought === undefined) continue;
      if (!this.#isUnreadable(key)) {
        await brought.abandon();
        return { kind: "whole" };
      }
      await engine.apply([{ kind: "put", key, value: carried.value, body: brought.body }]);
      return { kind: "healed", from: id, bytes: carried.value.length };
    }
    return this.#relearn(patient, signal);
  }

  /** The body that the lost entry has still, or else the same one of another replica. */
  async #bodyFor(
    carried: CarriedEntry,
    own: BodyReference,
    peer: HealSource,
    signal: AbortSignal,
  ): Promise<Brought | undefined> {
    const { engine } = this.#parts.replica;
    if (own.kind === "none") return { body: { kind: "none" }, abandon: async () => {} };
    if (own.kind === "file") return { body: { kind: "keep" }, abandon: async () => {} };
    try {
      const bytes = await engine.readBody(own, 0, own.length);
      return { body: { kind: "bytes", bytes }, abandon: async () => {} };
    } catch (error) {
      if (codeOf(error) !== "body-damaged" && codeOf(error) !== "body-gone") throw error;
    }
    return this.#bodyOf(carried, peer, signal);
  }

  #bodyOf({ key, value }: CarriedEntry, peer: HealSource, signal: AbortSignal): Promise<Brought | undefined> {
    const name = nameOfRegisterKey(key);
    const { bodyVersion, bodyLength } = decodeRegister(value);
    if (name === undefined || bodyLength === 0)
      return Promise.resolve({ body: { kind: "none" }, abandon: async () => {} });
    const isLarge = bodyLength > TRANSFER_BLOCK_BYTES;
    return this.#try(() => this.#bring(peer, name, bodyVersion, bodyLength, isLarge, signal));
  }

  #isUnreadable(key: Uint8Array): boolean {
    try {
      this.#parts.replica.engine.get(key);
      return false;
    } catch (error) {
      if (codeOf(error) === "entry-damaged") return true;
      throw error;
    }
  }

  /** What all other members say of a register that nobody can tell any more what it was here. */
  async #relearn(patient: Patient, signal: AbortSignal): Promise<Outcome> {
    const { replica, rings, clock } = this.#parts;
    const { key, foundAtMs } = patient;
    const name = isRegisterKey(key) ? nameOfRegisterKey(key) : undefined;
    if (name === undefined) return { kind: "not-healed", why: "the others hold another version of it" };
    const leftMs = foundAtMs + RELEARN_AFTER_MS - clock.nowMs();
    if (leftMs > 0)
      return {
        kind: "not-healed",
        why: `the others hold another version; theirs is taken in ${Math.ceil(leftMs / 1000)} s`,
      };
    const ring = rings[name.space];
    const others = this.#others(name.space, name.hash32);
    let highest:
      | { readonly carried: CarriedEntry; readonly register: Register; readonly peer: HealSource; readonly id: string }
      | undefined;
    for (const { id, peer } of others) {
      const partitions = [ring.partitionOfHash32(name.hash32)];
      const said = await this.#try(() => peer.digests(name.space, ring.partitionPower, partitions, NO_LIFE));
      const isVoting = said?.partitions[0]?.isVoting === true;
      const carried = isVoting ? await this.#try(() => peer.fetch([key])) : undefined;
      if (carried?.isOfVoter !== true)
        return { kind: "not-healed", why: `${id} has to be asked, and does not vote or answer now` };
      const [entry] = carried.entries;
      if (entry === undefined) continue;
      const register = decodeRegister(entry.value);
      if (highest === undefined || register.ballot > highest.register.ballot)
        highest = { carried: entry, register, peer, id };
    }
    if (others.length === 0) return { kind: "not-healed", why: "there is no other replica" };
    const brought = highest === undefined ? undefined : await this.#bodyOf(highest.carried, highest.peer, signal);
    if (highest !== undefined && brought === undefined)
      return { kind: "not-healed", why: `${highest.id}: ${this.#lastFailure ?? ""}` };
    if (
      !(await replica.relearn(
        name,
        highest?.register,
        brought?.body ?? { kind: "none" },
        foundAtMs + FORGOTTEN_PROMISE_MS,
      ))
    ) {
      await brought?.abandon();
      return { kind: "whole" };
    }
    const bytes = highest?.register.bodyLength ?? 0;
    return { kind: "healed", from: `all others, ${highest?.id ?? "none"} the latest`, bytes };
  }

  /** What another replica, or this device, cannot do now is for a later attempt. */
  async #try<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof RingsteadError)) throw error;
      this.#lastFailure = `${error.code}: ${messageOf(error)}`;
      return undefined;
    }
  }
}

/** A body as it is to be committed; `abandon` where it is not after all. */
type Brought = { readonly body: NewBody; readonly abandon: () => Promise<void> };

const hashIn = (key: Uint8Array): number => Buffer.from(key.buffer, key.byteOffset, key.length).readUInt32BE(0);

const isSameBody = (one: BodyReference, other: BodyReference): boolean => {
  if (one.kind === "log" && other.kind === "log") return one.segment === other.segment && one.offset === other.offset;
  return one.kind === "file" && other.kind === "file" && one.file === other.file;
};
