import assert from "node:assert/strict";
import { createHash, hash as hashOf } from "node:crypto";
import { RingsteadError } from "../../common/errors.ts";
import { releaseMemory } from "../../common/release-memory.ts";
import type { Name } from "../../storage-node/wire.ts";
import { BodyMemory, hasArrived } from "./body-memory.ts";
import { Quorum } from "../core/quorum.ts";
import type { ReplicaSet } from "./partition.ts";
import { PassingWait } from "./passing-wait.ts";
import type { WriteBody } from "./register-send.ts";
import { DevicesClient, type PartAnswer } from "../../storage-node/client.ts";
import { uploadBudget } from "./transfer-budget.ts";
import { noSpace } from "./no-space.ts";
import { groupByNode, healthyFirst, type Replica, type ReplicaGroup } from "./replicas.ts";

/** A device that takes longer for one block is left out of the upload. */
const STAGE_TIMEOUT_MS = 10_000;
const OPEN_TIMEOUT_MS = 2000;
/**
 * Nor is one waited for, once a quorum has answered, whose whole node has been silent for so long, or which takes so long and several times
 * what the quorum took: its disk hangs, and repair brings it what it misses.
 */
const LATE_LIMIT_MS = 4000;
const LATE_FACTOR = 4;
/** What a block of an upload has: memory per upload is three of them and what the connection holds. */
const UPLOAD_BLOCK_BYTES = 256 * 1024;
/** Blocks under way to the replicas per upload: one is written while the next arrives. */
const WINDOW_BLOCKS = 2;

/** A body that was received whole and, where it is large, staged and synced at the replicas. */
export type UploadedBody = {
  readonly body: WriteBody;
  readonly length: number;
  /** Lower-case hexadecimal. */
  readonly md5: string;
  /** Called once when the write is over, however it ended: memory that the body took is free again. */
  release(): void;
  /** Removes what was staged; harmless after the write was established. */
  abandon(): void;
};

const NOTHING = (): void => {};

/**
 * Receives a body of unknown or great length. Up to UPLOAD_BLOCK_BYTES it stays in memory and goes into the log; a longer one is
 * staged block by block at all replicas, at the pace of the slowest that still answers. The memory of what `source` gives is given back.
 * Errors: "quorum-unavailable" when fewer than W replicas hold it, "device-full" when that is for want of space; whatever `source` throws.
 */
export const receiveBody = async (set: ReplicaSet, source: AsyncIterable<Buffer>): Promise<UploadedBody> => {
  const hash = createHash("md5");
  let chunks: Buffer[] = [];
  let collected = 0;
  let length = 0;
  let stage: StagedUpload | undefined;
  const flush = async (): Promise<void> => {
    const [only] = chunks;
    const isWhole = chunks.length === 1 && only !== undefined;
    const block = isWhole ? only : Buffer.concat(chunks);
    if (!isWhole) for (const chunk of chunks) if (isOwn(chunk)) releaseMemory(chunk);
    chunks = [];
    collected = 0;
    stage ??= new StagedUpload(set.name, set.partition.members, set.handOffs);
    await stage.write(block);
  };
  try {
    for await (const chunk of source) {
      const granted = uploadBudget.take(chunk.length);
      if (granted !== undefined) {
        // Under pressure what was collected goes out as it is: it must not wait for bytes that may never be granted.
        if (collected > 0) await flush();
        await granted;
      }
      hash.update(chunk);
      chunks.push(chunk);
      collected += chunk.length;
      length += chunk.length;
      if (collected >= UPLOAD_BLOCK_BYTES) await flush();
    }
    const staged: StagedUpload | undefined = stage;
    if (staged === undefined) {
      const held = collected;
      collected = 0;
      return inMemory(chunks, length, hash.digest("hex"), () => uploadBudget.give(held));
    }
    if (collected > 0) await flush();
    const ids = await staged.seal();
    return {
      body: { kind: "staged", ids },
      length,
      md5: hash.digest("hex"),
      release: () => {},
      abandon: () => staged.abandon(),
    };
  } catch (error) {
    uploadBudget.give(collected);
    stage?.abandon();
    throw error;
  }
};

/** Stages a body at one replica and gives its number there. Errors: "quorum-unavailable" when it fails; whatever `source` throws. */
export const stageAt = async (replica: Replica, name: Name, source: AsyncIterable<Buffer>): Promise<number> => {
  const upload = new StagedUpload(name, { replicas: [replica], quorum: Quorum.stable(1) });
  try {
    for await (const block of source) {
      await uploadBudget.take(block.length);
      await upload.write(block);
    }
    const id = (await upload.seal()).get(replica);
    assert(id !== undefined, "what is sealed has a number");
    return id;
  } catch (error) {
    upload.abandon();
    throw error;
  }
};

/** Whether a buffer is all that its memory holds. */
export const isOwn = (bytes: Uint8Array): boolean => bytes.byteLength === bytes.buffer.byteLength;

/** A body that is in memory already; `release` gives back what it took of the budget. */
export const uploadOf = (bytes: Buffer, md5 = hashOf("md5", bytes), release = NOTHING): UploadedBody =>
  inMemory([bytes], bytes.length, md5, release);

/** The same for a body of some size whose memory nobody else uses, now or later: it is given back as soon as the write lets go of it. */
export const givenUploadOf = (bytes: Buffer, md5: string, release: () => void): UploadedBody => {
  const memory = new BodyMemory(bytes);
  const letGo = (): void => {
    release();
    memory.letGo();
  };
  return { body: { kind: "bytes", bytes, memory }, length: bytes.length, md5, release: letGo, abandon: NOTHING };
};

const inMemory = (chunks: readonly Buffer[], length: number, md5: string, release: () => void): UploadedBody => {
  const bytes = chunks.length === 1 ? chunks[0] : Buffer.concat(chunks);
  const body: WriteBody = length === 0 || bytes === undefined ? { kind: "none" } : { kind: "bytes", bytes };
  return { body, length, md5, release, abandon: NOTHING };
};

/**
 * One body on its way into a staged file at each replica of a partition. A replica that fails is left out of the rest; under policy `available` hand-offs are staged at
 * from the beginning where members do not answer then.
 */
class StagedUpload {
  readonly #replicas: readonly Replica[];
  readonly #path: string;
  /** By device: the partition may have other members when the body is accepted. */
  readonly #ids = new Map<Replica, number>();
  readonly #quorum: Quorum;
  #groups: readonly ReplicaGroup[];
  #opened: Promise<void> | undefined;
  #underWay: Promise<void>[] = [];
  /** A tally of the quorum. */
  #withoutSpace = 0;
  /** Hand-offs that may yet be asked, and those that stand in for members. */
  #handOffs: readonly Replica[];
  readonly #standIns = new Set<Replica>();
  length = 0;

  constructor(
    name: Name,
    { replicas, quorum }: { readonly replicas: readonly Replica[]; readonly quorum: Quorum },
    handOffs: readonly Replica[] = [],
  ) {
    this.#handOffs = healthyFirst(name, handOffs);
    this.#replicas = replicas;
    this.#path = name.path;
    this.#quorum = quorum;
    const ordered = healthyFirst(name, replicas);
    const healthy = ordered.filter(({ isSuspect }) => !isSuspect);
    // Where others stand in for members nobody waits for suspects.
    if (handOffs.length > 0) this.#groups = groupByNode(healthy);
    // Where no quorum is possible without suspects they are asked like the others.
    else this.#groups = groupByNode(quorum.suffices(this.#tallyOf(healthy)) ? healthy : ordered);
  }

  /** Resolves when fewer than WINDOW_BLOCKS are under way. What the block took of the budget is given back when it is written. */
  async write(block: Buffer): Promise<void> {
    try {
      this.#opened ??= this.#open();
      await this.#opened;
    } catch (error) {
      uploadBudget.give(block.length);
      throw error;
    }
    const { length } = block;
    this.length += length;
    const written = this.#each((client, ids, answer) => client.stageWrite(ids, block, STAGE_TIMEOUT_MS, answer));
    this.#underWay.push(
      written.then((haveAllAnswered) => {
        uploadBudget.give(length);
        // Who was given up may yet be sent what waits for it.
        if (haveAllAnswered && isOwn(block)) releaseMemory(block);
      }),
    );
    if (this.#underWay.length >= WINDOW_BLOCKS) await this.#underWay.shift();
    this.#checkQuorum();
  }

  async seal(): Promise<ReadonlyMap<Replica, number>> {
    await Promise.all(this.#underWay);
    await this.#each((client, ids, answer) => {
      client.stageSeal(ids, STAGE_TIMEOUT_MS, (error, length, part) => {
        const isShort = error === undefined && length !== this.length;
        answer(
          isShort ? new RingsteadError("staging-short", "a staged body has the wrong length") : error,
          undefined,
          part,
        );
      });
    });
    this.#checkQuorum();
    return this.#ids;
  }

  abandon(): void {
    for (const { client, members } of this.#groups) client.stageAbandon(this.#idsOf(members), STAGE_TIMEOUT_MS);
  }

  /** Nothing was sent yet that could be lost: where no quorum is possible without a node that may be back at once, it is waited for. */
  async #open(): Promise<void> {
    const wait = new PassingWait();
    for (;;) {
      await this.#each((client, _ids, answer, members) => {
        client.stageOpen(OPEN_TIMEOUT_MS, (error, id, part) => {
          const member = members[part];
          if (member !== undefined && id !== undefined) this.#ids.set(member, id);
          answer(error, undefined, part);
        });
      });
      const isEnough = this.#quorum.suffices(this.#tallyOf([...this.#ids.keys()]));
      if (!isEnough && this.#handOffs.length > 0) {
        await this.#openStandIns();
        break;
      }
      if (isEnough || !this.#replicas.some(({ mayReturn }) => mayReturn) || !(await wait.next())) break;
      // What was opened is opened once more: uploads that nobody goes on with end by themselves.
      this.abandon();
      this.#ids.clear();
      this.#withoutSpace = 0;
      this.#groups = groupByNode(this.#replicas);
    }
    this.#checkQuorum();
  }

  /** Opens the body at hand-offs, one after the other, until there are as many as a quorum has. */
  async #openStandIns(): Promise<void> {
    for (const replica of this.#handOffs) {
      if (this.#quorum.suffices(this.#tallyOf([...this.#ids.keys()]))) break;
      const id = await openAt(replica);
      if (id === undefined) continue;
      this.#standIns.add(replica);
      this.#ids.set(replica, id);
    }
    this.#handOffs = [];
    const present = this.#groups.flatMap(({ members }) => members);
    this.#groups = groupByNode([...present, ...this.#standIns]);
  }

  /** Does one thing at all replicas that are still with us, and resolves when each has answered or is given up: whether all have answered. */
  #each(
    send: (
      client: DevicesClient,
      ids: readonly number[],
      answer: PartAnswer<undefined>,
      members: readonly Replica[],
    ) => void,
  ): Promise<boolean> {
    return new Promise((resolve) => {
      let haveAllAnswered = true;
      const waiting = new Set(this.#groups.flatMap(({ members }) => members));
      const startMs = performance.now();
      let done = 0;
      let quorumMs = Number.POSITIVE_INFINITY;
      const quiet = setInterval(() => {
        const all = [...this.#replicas, ...this.#standIns];
        if (!this.#quorum.suffices(this.#tallyOf(all.filter((one) => !waiting.has(one))))) return;
        const isLate = performance.now() - startMs > Math.max(LATE_LIMIT_MS, LATE_FACTOR * quorumMs);
        for (const replica of waiting) {
          if (!isLate && !replica.isSilent(LATE_LIMIT_MS)) continue;
          const error = late();
          replica.heard(error);
          settle(replica, error);
        }
      }, LATE_LIMIT_MS / 4);
      const settle = (replica: Replica | undefined, error: RingsteadError | undefined): void => {
        if (replica !== undefined && !waiting.delete(replica)) return;
        if (error !== undefined) {
          if (!hasArrived(error)) haveAllAnswered = false;
          this.#leaveOut(replica, error);
        } else if (replica !== undefined) {
          done += this.#tallyOf([replica]);
          if (this.#quorum.suffices(done)) quorumMs = Math.min(quorumMs, performance.now() - startMs);
        }
        if (waiting.size > 0) return;
        clearInterval(quiet);
        resolve(haveAllAnswered);
      };
      if (waiting.size === 0) settle(undefined, undefined);
      for (const { client, members } of this.#groups) {
        const answer: PartAnswer<undefined> = (error, _value, part) => {
          members[part]?.heard(error);
          settle(members[part], error);
        };
        send(client, this.#idsOf(members), answer, members);
      }
    });
  }

  #leaveOut(replica: Replica | undefined, error: RingsteadError): void {
    if (replica === undefined || !this.#groups.some(({ members }) => members.includes(replica))) return;
    if (error.code === "device-full" || error.code === "device-read-only")
      this.#withoutSpace += this.#tallyOf([replica]);
    this.#ids.delete(replica);
    this.#groups = groupByNode(this.#groups.flatMap(({ members }) => members).filter((member) => member !== replica));
  }

  #idsOf(members: readonly Replica[]): number[] {
    return members.map((member) => this.#ids.get(member) ?? 0);
  }

  #tallyOf(replicas: readonly Replica[]): number {
    const weightOf = (replica: Replica): number =>
      this.#standIns.has(replica) ? 1 : this.#quorum.weightOf(this.#replicas.indexOf(replica));
    return replicas.reduce((tally, replica) => tally + weightOf(replica), 0);
  }

  /** Errors: "device-full" where there would be a quorum if all had space, else "quorum-unavailable". */
  #checkQuorum(): void {
    const taking = this.#tallyOf([...this.#ids.keys()]);
    if (this.#quorum.suffices(taking)) return;
    if (this.#quorum.suffices(taking + this.#withoutSpace)) throw noSpace(this.#path);
    throw new RingsteadError("quorum-unavailable", "too few replicas take the body", { path: this.#path });
  }
}

/** The number of a body that was opened at one device; undefined where it does not answer. */
const openAt = (replica: Replica): Promise<number | undefined> =>
  new Promise((resolve) => {
    const { device, rpc } = replica.client;
    new DevicesClient(rpc, [device]).stageOpen(OPEN_TIMEOUT_MS, (error, id) => {
      replica.heard(error);
      resolve(id);
    });
  });

const late = (): RingsteadError => new RingsteadError("rpc-timeout", "the device does not answer, and others have");
