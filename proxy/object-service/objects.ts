import type { Ballot } from "../../common/ballot.ts";
import { timestampIn } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import { type HybridTimestamp, millisecondsOf } from "../../common/hybrid-clock.ts";
import type { Clock } from "../../common/clock.ts";
import { INLINE_BODY_LIMIT_BYTES, type Register, type Row, TRANSFER_BLOCK_BYTES } from "../../storage-node/wire.ts";
import type { WriteMode, WriteRecord } from "../core/register-write.ts";
import type { UploadedBody } from "./body-upload.ts";
import type { Container, Containers } from "./containers.ts";
import { decodeObjectMetadata, encodeObjectMetadata, encodeObjectRow, type ObjectMetadata } from "./object-metadata.ts";
import type { RegisterIo, WriteBody } from "./register-io.ts";
import type { Replica, Replicas, ReplicaSet } from "./replicas.ts";

const RETRY_LIMIT = 10;
const BODY_TIMEOUT_MS = 10_000;
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

const notFound = (): RingsteadError => new RingsteadError("no-such-object", "The resource could not be found.");
const unknown = (): RingsteadError =>
  new RingsteadError("outcome-unknown", "too few replicas answer: the write may or may not take effect");

/** Objects: registers whose rows stand in their container (PROTOCOL sections 3 to 5). */
export class Objects {
  readonly #replicas: Replicas;
  readonly #io: RegisterIo;
  readonly #containers: Containers;
  readonly #clock: Clock;

  constructor(replicas: Replicas, io: RegisterIo, containers: Containers, clock: Clock) {
    this.#replicas = replicas;
    this.#io = io;
    this.#containers = containers;
    this.#clock = clock;
  }

  /** The replicas that a body for this name is staged at. */
  replicasOf(container: Container, name: string): ReplicaSet {
    return this.#replicas.object(container.account, container.name, name);
  }

  /**
   * The object as a quorum holds it. Errors: "no-such-object", "quorum-unavailable".
   * @param withBody whether a small body should come with the first answer
   */
  async get(account: string, containerName: string, name: string, withBody: boolean): Promise<StoredObject> {
    const set = this.#replicas.object(account, containerName, name);
    for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
      const read = await this.#io.read(set, withBody ? INLINE_BODY_LIMIT_BYTES : 0);
      const { register } = read;
      if (!read.isSettled && register !== undefined) {
        await this.#finish(account, containerName, name, set, register, read.holders);
        continue;
      }
      const metadata = this.#metadataOf(register);
      if (register === undefined || metadata === undefined) throw notFound();
      const { holders, body } = read;
      return {
        version: register.version,
        changed: timestampIn(register.version),
        length: register.bodyLength,
        metadata,
        small: register.bodyLength === 0 ? Buffer.alloc(0) : body,
        stream: (offset, length) => streamBody(set, register, holders, offset, length),
      };
    }
    throw new RingsteadError("quorum-unavailable", "the object's state cannot be settled");
  }

  /** Stores a new version. With a condition it is decided atomically against the version that is there. Errors: "no-such-container", "outcome-unknown", the condition's. */
  async put(
    container: Container,
    name: string,
    uploaded: UploadedBody,
    metadata: ObjectMetadata,
    condition: Condition | undefined,
  ): Promise<{ version: Ballot; changed: HybridTimestamp }> {
    const record: WriteRecord = {
      isTombstone: false,
      bodyLength: uploaded.length,
      metadata: encodeObjectMetadata(metadata),
      body: uploaded.length === 0 ? "none" : "given",
      bodyVersion: undefined,
    };
    const row = (version: Ballot): Row => ({
      name,
      version,
      isDeleted: false,
      objects: 1,
      bytes: uploaded.length,
      payload: encodeObjectRow(metadata),
    });
    const version = await this.#write(
      container,
      name,
      condition === undefined ? record : () => record,
      condition,
      uploaded.body,
      row,
    );
    return { version, changed: timestampIn(version) };
  }

  /** Replaces the metadata and keeps the body ([C3]). Errors: "no-such-object", "outcome-unknown". */
  async post(
    container: Container,
    name: string,
    change: (present: ObjectMetadata) => ObjectMetadata,
  ): Promise<{ changed: HybridTimestamp }> {
    let length = 0;
    let next: ObjectMetadata | undefined;
    const version = await this.#write(
      container,
      name,
      (base) => {
        const present = this.#metadataOf(base);
        if (base === undefined || present === undefined) throw notFound();
        next = change(present);
        length = base.bodyLength;
        const body = base.bodyLength === 0 ? "none" : "keep";
        return {
          isTombstone: false,
          bodyLength: base.bodyLength,
          metadata: encodeObjectMetadata(next),
          body,
          bodyVersion: base.bodyVersion,
        };
      },
      () => {},
      NO_BODY,
      (written) => ({
        name,
        version: written,
        isDeleted: false,
        objects: 1,
        bytes: length,
        payload: encodeObjectRow(next ?? { etag: "", contentType: "" }),
      }),
    );
    return { changed: timestampIn(version) };
  }

  /** Deletes the object; 404 where there is none. Errors: "no-such-object", "outcome-unknown", the condition's. */
  async delete(container: Container, name: string, condition: Condition): Promise<void> {
    const tombstone: WriteRecord = {
      isTombstone: true,
      bodyLength: 0,
      metadata: NOTHING,
      body: "none",
      bodyVersion: undefined,
    };
    await this.#write(
      container,
      name,
      () => tombstone,
      (present) => {
        if (present === undefined) throw notFound();
        condition(present);
      },
      NO_BODY,
      (version) => ({ name, version, isDeleted: true, objects: 0, bytes: 0, payload: NOTHING }),
    );
  }

  /** Register at W, then row at W, then CONFIRM, then the answer (PROTOCOL section 3). */
  async #write(
    container: Container,
    name: string,
    make: WriteRecord | ((base: Register | undefined) => WriteRecord),
    condition: Condition | undefined,
    body: WriteBody,
    row: (version: Ballot) => Row,
  ): Promise<Ballot> {
    const set = this.#replicas.object(container.account, container.name, name);
    for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
      let refusal: unknown;
      const mode: WriteMode =
        typeof make !== "function"
          ? { kind: "plain", record: make }
          : {
              kind: "conditional",
              decide: (base) => {
                try {
                  condition?.(this.#presentOf(base));
                  return make(base);
                } catch (error) {
                  refusal = error;
                  return "stop";
                }
              },
            };
      const { outcome } = await this.#io.write(set, mode, body, () => container.incarnation);
      switch (outcome.kind) {
        case "established": {
          if ((await this.#containers.writeRow(container, row(outcome.version))) === "moved") {
            this.#io.confirm(set, outcome.version, true);
            throw new RingsteadError("no-such-container", "The resource could not be found.");
          }
          this.#io.confirm(set, outcome.version);
          return outcome.version;
        }
        case "stopped":
          throw refusal;
        case "unfinished":
          await this.#finishBase(container.account, container.name, name, set);
          continue;
        case "superseded":
          continue;
        case "unknown":
          throw unknown();
      }
    }
    throw unknown();
  }

  /** [C1]: an unconfirmed base is finished before a condition is judged on it. */
  async #finishBase(account: string, containerName: string, name: string, set: ReplicaSet): Promise<void> {
    const read = await this.#io.read(set, 0);
    if (read.register !== undefined) await this.#finish(account, containerName, name, set, read.register, read.holders);
  }

  /** [R2]: the version found is accepted again at W, its row written, then confirmed. */
  async #finish(
    account: string,
    containerName: string,
    name: string,
    set: ReplicaSet,
    register: Register,
    holders: readonly Replica[],
  ): Promise<void> {
    const hasBody = register.bodyLength > 0 && !register.isTombstone;
    let body: WriteBody = NO_BODY;
    if (hasBody && register.bodyLength <= INLINE_BODY_LIMIT_BYTES) {
      const chunks: Buffer[] = [];
      for await (const chunk of streamBody(set, register, holders, 0, register.bodyLength)) chunks.push(chunk);
      body = { kind: "bytes", bytes: Buffer.concat(chunks) };
    }
    const record: WriteRecord = {
      isTombstone: register.isTombstone,
      bodyLength: register.bodyLength,
      metadata: register.metadata,
      body: body.kind === "bytes" ? "given" : hasBody ? "keep" : "none",
      bodyVersion: register.bodyVersion,
    };
    const mode = { kind: "finish", version: register.version, ballot: register.ballot, record } as const;
    const container = await this.#containers.get(account, containerName).catch((error: unknown) => {
      if (error instanceof RingsteadError && error.code === "no-such-container") return undefined;
      throw error;
    });
    const { outcome } = await this.#io.write(
      set,
      mode,
      body,
      () => register.ballot.slice(0, 24) as Container["incarnation"],
    );
    if (outcome.kind === "unknown") throw unknown();
    if (outcome.kind !== "established") return;
    const isOfContainer = container !== undefined && register.version.startsWith(container.incarnation);
    const metadata = register.isTombstone ? undefined : decodeObjectMetadata(register.metadata);
    const row: Row = {
      name,
      version: register.version,
      isDeleted: register.isTombstone,
      objects: register.isTombstone ? 0 : 1,
      bytes: register.bodyLength,
      payload: metadata === undefined ? NOTHING : encodeObjectRow(metadata),
    };
    const isListed =
      register.isTombstone || (isOfContainer && (await this.#containers.writeRow(container, row)) === "stored");
    if (register.isTombstone && isOfContainer) await this.#containers.writeRow(container, row);
    this.#io.confirm(set, register.version, !isListed);
  }

  #metadataOf(register: Register | undefined): ObjectMetadata | undefined {
    if (register === undefined || register.isTombstone || register.state === "void") return undefined;
    const metadata = decodeObjectMetadata(register.metadata);
    return metadata.deleteAt !== undefined && metadata.deleteAt * 1000 <= this.#clock.nowMs() ? undefined : metadata;
  }

  #presentOf(register: Register | undefined): Present {
    const metadata = this.#metadataOf(register);
    return register === undefined || metadata === undefined
      ? undefined
      : { metadata, changed: timestampIn(register.version) };
  }
}

/** [R3]: blocks of exactly one body version; where one replica fails, the next goes on at the same offset. */
async function* streamBody(
  set: ReplicaSet,
  register: Register,
  holders: readonly Replica[],
  offset: number,
  length: number,
): AsyncGenerator<Buffer, void, void> {
  const sources = [...holders, ...set.replicas.filter((replica) => !holders.includes(replica) && !replica.isSuspect)];
  let source = 0;
  const end = offset + length;
  const ask = async (at: number): Promise<Buffer> => {
    for (; source < sources.length; source++) {
      const replica = sources[source];
      if (replica === undefined) break;
      try {
        const bytes = await replica.client.readBody(
          set.name,
          register.bodyVersion,
          at,
          Math.min(TRANSFER_BLOCK_BYTES, end - at),
          BODY_TIMEOUT_MS,
        );
        if (bytes.length > 0) return bytes;
      } catch (error) {
        if (!(error instanceof RingsteadError)) throw error;
        if (error.code === "rpc-timeout") replica.failed(true);
      }
    }
    throw new RingsteadError("body-unavailable", "no replica can give the object's bytes", { path: set.name.path });
  };
  let at = offset;
  let next: Promise<Buffer> | undefined = length > 0 ? ask(at) : undefined;
  while (next !== undefined) {
    const bytes: Buffer = await next;
    at += bytes.length;
    next = at < end ? ask(at) : undefined;
    next?.catch(() => {});
    yield bytes;
  }
}

/** When an object was last changed, to the second, as HTTP dates have it: rounded up, as Swift does. */
export const lastModifiedSeconds = (changed: HybridTimestamp): number => Math.ceil(millisecondsOf(changed) / 1000);
