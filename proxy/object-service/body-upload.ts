import { createHash, type Hash } from "node:crypto";
import { RingsteadError } from "../../common/errors.ts";
import { INLINE_BODY_LIMIT_BYTES, TRANSFER_BLOCK_BYTES } from "../../storage-node/wire.ts";
import type { WriteBody } from "./register-io.ts";
import type { Replica, ReplicaSet } from "./replicas.ts";

const STAGE_TIMEOUT_MS = 30_000;
/** Blocks under way to the replicas per upload: one is written while the next arrives. */
const WINDOW_BLOCKS = 2;

/** A body that was received whole and, where it is large, staged and synced at the replicas. */
export type UploadedBody = {
  readonly body: WriteBody;
  readonly length: number;
  /** Lower-case hexadecimal. */
  readonly md5: string;
  /** Removes what was staged; harmless after the write was established. */
  abandon(): void;
};

const NO_STAGE = (): void => {};

/**
 * Receives a body. Up to 128 KiB it stays in memory and goes into the log; a longer one is staged block by block at all replicas,
 * at the pace of the slowest that still answers. Memory per upload: at most four blocks of 512 KiB.
 * Errors: "quorum-unavailable" when fewer than W replicas hold it; whatever `source` throws.
 */
export const receiveBody = async (set: ReplicaSet, source: AsyncIterable<Buffer>): Promise<UploadedBody> => {
  const hash = createHash("md5");
  let chunks: Buffer[] = [];
  let length = 0;
  let stage: StagedUpload | undefined;
  try {
    for await (const chunk of source) {
      hash.update(chunk);
      chunks.push(chunk);
      length += chunk.length;
      if (stage === undefined && length <= INLINE_BODY_LIMIT_BYTES) continue;
      stage ??= new StagedUpload(set);
      if (length - stage.length >= TRANSFER_BLOCK_BYTES) {
        await stage.write(Buffer.concat(chunks));
        chunks = [];
      }
    }
    if (stage === undefined) return inMemory(chunks, length, hash);
    if (chunks.length > 0) await stage.write(Buffer.concat(chunks));
    const ids = await stage.seal();
    const finished = stage;
    return { body: { kind: "staged", ids }, length, md5: hash.digest("hex"), abandon: () => finished.abandon() };
  } catch (error) {
    stage?.abandon();
    throw error;
  }
};

/** A body that is in memory already. */
export const uploadOf = (bytes: Buffer): UploadedBody =>
  inMemory([bytes], bytes.length, createHash("md5").update(bytes));

const inMemory = (chunks: readonly Buffer[], length: number, hash: Hash): UploadedBody => {
  const bytes = chunks.length === 1 ? chunks[0] : Buffer.concat(chunks);
  const body: WriteBody = length === 0 || bytes === undefined ? { kind: "none" } : { kind: "bytes", bytes };
  return { body, length, md5: hash.digest("hex"), abandon: NO_STAGE };
};

/** One body on its way into a staged file at each replica of a set. */
class StagedUpload {
  readonly #replicas: readonly Replica[];
  readonly #ids: (number | undefined)[];
  readonly #writeQuorum: number;
  readonly #path: string;
  #opened: Promise<void> | undefined;
  #underWay: Promise<void>[] = [];
  length = 0;

  constructor(set: ReplicaSet) {
    this.#replicas = set.replicas;
    this.#path = set.name.path;
    this.#ids = set.replicas.map(() => undefined);
    this.#writeQuorum = Math.floor(set.replicas.length / 2) + 1;
  }

  async write(bytes: Buffer): Promise<void> {
    this.#opened ??= this.#each(async (replica, index) => {
      if (replica.isSuspect) throw new RingsteadError("rpc-unreachable", "the replica does not answer lately");
      this.#ids[index] = await replica.client.stageOpen(STAGE_TIMEOUT_MS);
    }, false);
    await this.#opened;
    this.#checkQuorum();
    this.length += bytes.length;
    for (let offset = 0; offset < bytes.length; offset += TRANSFER_BLOCK_BYTES) {
      const block = bytes.subarray(offset, offset + TRANSFER_BLOCK_BYTES);
      this.#underWay.push(
        this.#each((replica, _index, id) => replica.client.stageWrite(id, block, STAGE_TIMEOUT_MS), true),
      );
      if (this.#underWay.length >= WINDOW_BLOCKS) await this.#underWay.shift();
      this.#checkQuorum();
    }
  }

  async seal(): Promise<(number | undefined)[]> {
    await Promise.all(this.#underWay);
    await this.#each(async (replica, _index, id) => {
      const length = await replica.client.stageSeal(id, STAGE_TIMEOUT_MS);
      if (length !== this.length) throw new RingsteadError("staging-short", "a staged body has the wrong length");
    }, true);
    this.#checkQuorum();
    return this.#ids;
  }

  abandon(): void {
    for (const [index, id] of this.#ids.entries()) {
      if (id !== undefined) this.#replicas[index]?.client.stageAbandon(id, STAGE_TIMEOUT_MS);
    }
  }

  /** Does one thing at each replica that is still with us; one that fails is out of this upload. */
  async #each(work: (replica: Replica, index: number, id: number) => Promise<void>, needsId: boolean): Promise<void> {
    await Promise.all(
      this.#replicas.map(async (replica, index) => {
        const id = this.#ids[index];
        if (needsId && id === undefined) return;
        try {
          await work(replica, index, id ?? 0);
        } catch (error) {
          if (!(error instanceof RingsteadError)) throw error;
          if (error.code === "rpc-timeout") replica.failed(true);
          this.#ids[index] = undefined;
        }
      }),
    );
  }

  #checkQuorum(): void {
    if (this.#ids.filter((id) => id !== undefined).length < this.#writeQuorum) {
      throw new RingsteadError("quorum-unavailable", "too few replicas take the body", { path: this.#path });
    }
  }
}
