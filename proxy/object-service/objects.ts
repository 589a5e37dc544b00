import { type Ballot, type Incarnation, NO_INCARNATION, timestampIn } from "../../common/ballot.ts";
import { codeOf, RingsteadError } from "../../common/errors.ts";
import { type HybridTimestamp, millisecondsOf } from "../../common/hybrid-clock.ts";
import type { Clock } from "../../common/clock.ts";
import { READ_BODY_LIMIT_BYTES, type Register } from "../../storage-node/wire.ts";
import { isDue } from "../core/expiry.ts";
import { mayBeKept } from "../core/hand-off-keep.ts";
import { finishObject, type ObjectPlace, type ObjectWrite, settleObject, writeObject } from "../core/object-script.ts";
import type { WriteRecord } from "../core/register-write.ts";
import { isFinal } from "../core/script.ts";
import { readAvailable } from "./available-read.ts";
import { streamBody } from "./body-stream.ts";
import type { UploadedBody } from "./body-upload.ts";
import type { Container, Containers } from "./containers.ts";
import { decodeObjectMetadata, encodeObjectMetadata, keptMetadata, type ObjectMetadata } from "./object-metadata.ts";
import { noSpace } from "./no-space.ts";
import { ObjectAt } from "./object-place.ts";
import type { ReadResult } from "./quorum-read.ts";
import type { RegisterIo } from "./register-io.ts";
import { healthyFirst } from "./replicas.ts";
import type { WriteBody } from "./register-send.ts";
import type { ReplicaSet } from "./partition.ts";
import type { Partitions } from "./partitions.ts";
import type { ScriptRunner } from "./script-runner.ts";

const RETRY_LIMIT = 10;
const NOTHING = new Uint8Array();
const NO_BODY: WriteBody = { kind: "none" };

/** One object as it is now. */
export type StoredObject = {
  readonly version: Ballot;
  readonly changed: HybridTimestamp;
  readonly length: number;
  readonly metadata: ObjectMetadata;
  /** All bytes where the object is small, else undefined: `stream` gives them. */
  readonly small: Buffer | undefined;
  /** The bytes from `offset`, in blocks; the next block is asked for while this one is sent. Errors: "body-unavailable". */
  stream(offset: number, length: number): AsyncGenerator<Buffer, void, void>;
};

/** What a conditional write sees: undefined where there is no object. */
export type Present = { readonly metadata: ObjectMetadata; readonly changed: HybridTimestamp } | undefined;
/** Throws the face's refusal, or returns when the write may go on. */
export type Condition = (present: Present) => void;

/** What a PUT made. */
export type Written = { readonly version: Ballot; readonly changed: HybridTimestamp };

const TOMBSTONE: WriteRecord = {
  isTombstone: true,
  bodyLength: 0,
  metadata: NOTHING,
  body: "none",
  bodyVersion: undefined,
};

const notFound = (): RingsteadError => new RingsteadError("no-such-object", "The resource could not be found.");
const unavailable = (): RingsteadError =>
  new RingsteadError("quorum-unavailable", "the object's state cannot be settled");

/** Objects: registers whose rows stand in their container (PROTOCOL sections 3 to 5). `core/object-script.ts` decides. */
export class Objects {
  readonly #partitions: Partitions;
  readonly #io: RegisterIo;
  readonly #runner: ScriptRunner;
  readonly #containers: Containers;
  readonly #clock: Clock;

  constructor(partitions: Partitions, io: RegisterIo, runner: ScriptRunner, containers: Containers, clock: Clock) {
    this.#partitions = partitions;
    this.#io = io;
    this.#runner = runner;
    this.#containers = containers;
    this.#clock = clock;
  }

  /** The replicas that a body for this name is staged at. */
  replicasOf(container: Container, name: string): ReplicaSet {
    const set = this.#partitions.object(container.account, container.name, name);
    return isAvailable(container) ? this.#partitions.available(set) : set;
  }

  /**
   * The object as a quorum holds it; under policy `available` as somebody does, where no quorum answers ([H5]). Errors: "no-such-object", "quorum-unavailable".
   * @param withBody whether a small body should come with the first answer
   */
  async get(account: string, containerName: string, name: string, withBody: boolean): Promise<StoredObject> {
    const set = this.#partitions.object(account, containerName, name);
    if (!this.#containers.mayBeAvailable) return this.#getSettled(account, containerName, name, set, withBody);
    const bodyLimit = withBody ? READ_BODY_LIMIT_BYTES : 0;
    const remembered = this.#containers.rememberedAvailable(account, containerName);
    try {
      if (remembered !== undefined) {
        const read = await this.#io.read(this.#partitions.available(set), bodyLimit);
        if (isFinal(read) || isOfLife(read.register, remembered)) return this.#found(set, read);
      }
      return await this.#getSettled(account, containerName, name, set, withBody);
    } catch (error) {
      if (codeOf(error) !== "quorum-unavailable") throw error;
      const container = await this.#containers.known(account, containerName);
      if (!isAvailable(container)) throw error;
      return this.#getKept(container, set, bodyLimit);
    }
  }

  /** The highest version that is heard of, whether or not it is finished, as far as it is of the container's life: of another life only what took effect is. */
  async #getKept(container: Container, set: ReplicaSet, bodyLimit: number): Promise<StoredObject> {
    const hear = (ballot: Ballot): void => this.#io.hear(ballot);
    const read = await readAvailable(this.#partitions.available(set), bodyLimit, hear);
    if (read === undefined) throw unavailable();
    const { register } = read;
    if (register?.state === "accepted" && !isOfLife(register, container)) throw unavailable();
    return this.#found(set, read);
  }

  /** Errors (thrown): "no-such-object". */
  #found(set: ReplicaSet, { body, holders, register }: Omit<ReadResult, "isSettled">): StoredObject {
    const metadata = metadataAt(register, this.#clock.nowMs());
    if (register === undefined || metadata === undefined) throw notFound();
    return {
      version: register.version,
      changed: timestampIn(register.version),
      length: register.bodyLength,
      metadata,
      small: register.bodyLength === 0 ? Buffer.alloc(0) : body,
      stream: (offset, length) => streamBody(set, register.bodyVersion, holders, offset, length),
    };
  }

  async #getSettled(
    account: string,
    containerName: string,
    name: string,
    set: ReplicaSet,
    withBody: boolean,
  ): Promise<StoredObject> {
    for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
      const read = await this.#io.read(set, withBody ? READ_BODY_LIMIT_BYTES : 0);
      const { register } = read;
      if (register !== undefined && !isFinal(read)) {
        const place = this.#placeOf(account, containerName, name, set);
        if ((await this.#finish(place, register, read.isSettled)) === "again") continue;
      }
      return this.#found(set, read);
    }
    throw unavailable();
  }

  /** Stores a new version. With a condition it is decided atomically against the version that is there. Errors: "no-such-container", "device-full", "outcome-unknown", the condition's. */
  put(
    container: Container,
    name: string,
    uploaded: UploadedBody,
    given: ObjectMetadata,
    condition: Condition | undefined,
  ): Promise<Written> {
    const metadata = keptMetadata(given);
    const record: WriteRecord = {
      isTombstone: false,
      bodyLength: uploaded.length,
      metadata: encodeObjectMetadata(metadata),
      body: uploaded.length === 0 ? "none" : "given",
      bodyVersion: undefined,
    };
    const { body } = uploaded;
    return condition === undefined
      ? this.#run(container, name, { kind: "plain", record }, body, metadata).then(writtenAs)
      : this.#writeIf(container, name, condition, () => record, body).then(writtenAs);
  }

  /** Replaces the metadata and keeps the body ([C3]). Errors: "no-such-object", "outcome-unknown". */
  async post(
    container: Container,
    name: string,
    change: (present: ObjectMetadata) => ObjectMetadata,
  ): Promise<{ changed: HybridTimestamp }> {
    const replaced = (base: Register | undefined, present: ObjectMetadata | undefined): WriteRecord => {
      if (base === undefined || present === undefined) throw notFound();
      return {
        isTombstone: false,
        bodyLength: base.bodyLength,
        metadata: encodeObjectMetadata(keptMetadata(change(present))),
        body: base.bodyLength === 0 ? "none" : "keep",
        bodyVersion: base.bodyVersion,
      };
    };
    const version = await this.#writeIf(container, name, () => {}, replaced, NO_BODY);
    return { changed: timestampIn(version) };
  }

  /**
   * Deletes the object; 404 where there is none. Without a condition of the client's a deletion under policy `available` is a look and a plain write, which hand-offs may
   * keep. Errors: "no-such-object", "outcome-unknown", the condition's.
   */
  async delete(container: Container, name: string, condition: Condition | undefined): Promise<void> {
    if (condition === undefined && isAvailable(container)) {
      await this.get(container.account, container.name, name, false);
      await this.#run(container, name, { kind: "plain", record: TOMBSTONE }, NO_BODY);
      return;
    }
    const mustExist: Condition = (present) => {
      if (present === undefined) throw notFound();
      condition?.(present);
    };
    await this.#writeIf(container, name, mustExist, () => TOMBSTONE, NO_BODY);
  }

  /**
   * Deletes the object if it is still due at exactly `deleteAt`, and that time has come; else leaves it alone.
   * Errors: "no-such-container", "outcome-unknown".
   */
  async expire(account: string, containerName: string, name: string, deleteAt: number): Promise<void> {
    const container = await this.#containers.known(account, containerName);
    const isStillDue = (base: Register | undefined): boolean =>
      base !== undefined &&
      !base.isTombstone &&
      base.state !== "void" &&
      isDue(decodeObjectMetadata(base.metadata).deleteAt, deleteAt, this.#clock.nowMs());
    const given: ObjectWrite = {
      kind: "conditional",
      decide: (base) => (isStillDue(base) ? TOMBSTONE : "stop"),
    };
    await this.#run(container, name, given, NO_BODY);
  }

  /**
   * [B7]: finishes what a replica reports as left behind, as a reader would. `isThorough`: and brings replicas that lag to what is settled.
   * Errors: "quorum-unavailable".
   */
  async settle(
    account: string,
    containerName: string,
    name: string,
    left: Register,
    isThorough: boolean,
  ): Promise<void> {
    const set = this.#partitions.object(account, containerName, name);
    const place = this.#placeOf(account, containerName, name, set);
    // What hand-offs counted for waits in great numbers for members that are away: each would be tried for seconds, and others behind it.
    if (this.#containers.mayBeAvailable && !(hasQuorum(set) && hasQuorum(place.container.container)))
      throw unavailable();
    const read = await this.#io.read(set, 0);
    const { register } = read;
    // Most that is reported only missed its CONFIRM. A minority may hold what this read did not see, so what was reported is finished.
    if (register?.version === left.version && isFinal(read)) {
      this.#io.confirm(set, left.version, register.state === "void");
    } else {
      await this.#finish(place, left, register?.version === left.version && read.isSettled);
    }
    if (isThorough && (await this.#runner.run(settleObject(place, NO_INCARNATION))) === "unavailable") {
      throw unavailable();
    }
  }

  async #finish(
    place: ObjectPlace<ReplicaSet>,
    register: Register,
    isEstablished: boolean,
  ): Promise<"shown" | "again"> {
    const end = await this.#runner.run(finishObject(place, register, isEstablished));
    if (end === "unavailable") throw unavailable();
    return end;
  }

  async #writeIf(
    container: Container,
    name: string,
    condition: Condition,
    make: (base: Register | undefined, present: ObjectMetadata | undefined) => WriteRecord,
    body: WriteBody,
  ): Promise<Ballot> {
    let refusal: unknown;
    // One moment for all rounds: what an earlier one proposed may yet take effect, so that no later one may find the same base expired.
    const nowMs = this.#clock.nowMs();
    const decide = (base: Register | undefined): WriteRecord | "stop" => {
      const metadata = metadataAt(base, nowMs);
      try {
        condition(
          base === undefined || metadata === undefined ? undefined : { metadata, changed: timestampIn(base.version) },
        );
        return make(base, metadata);
      } catch (error) {
        refusal = error;
        return "stop";
      }
    };
    const version = await this.#run(container, name, { kind: "conditional", decide }, body);
    if (version === undefined) throw refusal;
    return version;
  }

  /** Undefined when the write's own decision stopped it. */
  async #run(
    container: Container,
    name: string,
    given: ObjectWrite,
    body: WriteBody,
    metadata?: ObjectMetadata,
  ): Promise<Ballot | undefined> {
    const { account } = container;
    const set = this.#partitions.object(account, container.name, name);
    const place = mayBeKept(isAvailable(container), given.kind)
      ? this.#availablePlaceOf(account, container.name, name, set, metadata)
      : this.#placeOf(account, container.name, name, set, metadata);
    const script = writeObject(place, container.incarnation, given, body.kind === "staged");
    const result = await this.#runner.run(script, body);
    switch (result.kind) {
      case "done":
        this.#changed(container, result.version);
        return result.version;
      case "stopped":
        return undefined;
      case "no-container":
        this.#containers.forget(account, container.name);
        throw new RingsteadError("no-such-container", "The resource could not be found.");
      case "no-space":
        throw noSpace(set.name.path);
      case "unknown":
        throw new RingsteadError("outcome-unknown", "too few replicas answer: the write may or may not take effect");
    }
  }

  /** The row went into the life that the version names, which may be a later one than this proxy remembered. */
  #changed(container: Container, version: Ballot): void {
    if (version.startsWith(container.incarnation)) return this.#containers.changed(container);
    this.#containers.forget(container.account, container.name);
    this.#containers.changed({ ...container, incarnation: version.slice(0, 24) as Incarnation });
  }

  /** Where hand-offs may keep what is written ([H3]). */
  #availablePlaceOf(
    account: string,
    containerName: string,
    name: string,
    object: ReplicaSet,
    metadata?: ObjectMetadata,
  ): ObjectPlace<ReplicaSet> {
    const available = this.#partitions.available(object);
    const place = this.#containers.availablePlaceOf(account, containerName);
    return new ObjectAt(this.#partitions, available, place, name, metadata);
  }

  #placeOf(
    account: string,
    containerName: string,
    name: string,
    object: ReplicaSet,
    metadata?: ObjectMetadata,
  ): ObjectPlace<ReplicaSet> {
    return new ObjectAt(this.#partitions, object, this.#containers.placeOf(account, containerName), name, metadata);
  }
}

/** Whether W members answered when they were asked last; those that did not are asked beside. */
const hasQuorum = ({ name, partition }: ReplicaSet): boolean => {
  const { quorum, voters } = partition.members;
  return healthyFirst(name, voters).filter(({ isSuspect }) => !isSuspect).length >= quorum.promiseCount;
};

/** Whether a version was written into that life of its container. */
const isOfLife = (register: Register | undefined, { incarnation }: Container): boolean =>
  register?.version.startsWith(incarnation) === true;

const isAvailable = ({ policy }: Container): boolean => policy.consistency === "available";

const writtenAs = (version: Ballot | undefined): Written => {
  if (version === undefined) throw new Error("a plain write was stopped");
  return { version, changed: timestampIn(version) };
};

/** What there is to see of a register at a moment; undefined where there is no object, or none any more. */
const metadataAt = (register: Register | undefined, nowMs: number): ObjectMetadata | undefined => {
  if (register === undefined || register.isTombstone || register.state === "void") return undefined;
  const metadata = decodeObjectMetadata(register.metadata);
  return metadata.deleteAt !== undefined && metadata.deleteAt * 1000 <= nowMs ? undefined : metadata;
};

/** When an object was last changed, to the second, as HTTP dates have it: rounded up, as Swift does. */
export const lastModifiedSeconds = (changed: HybridTimestamp): number => Math.ceil(millisecondsOf(changed) / 1000);
